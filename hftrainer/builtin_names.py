"""The names that the package brings itself, and the module of each: what `hftrainer.registry` fills its tables with.

Data alone, so that a name can be listed without importing what it names.
"""

from __future__ import annotations

_MILLION = "hftrainer.models.motion.motionmillion"
_TRAINING = "hftrainer.training"

MODELS = {
    "motionmillion": f"{_MILLION}.bundle",
    "text_encoder": "hftrainer.models.text_encoder",
    "action_classifier": "hftrainer.models.action_classifier",
    "motionstreamer272": "hftrainer.models.motion.motionstreamer.evaluator",
}
TOKENIZERS = {"human_vqvae": f"{_MILLION}.parts"}
QUANTIZERS = {"fsq": f"{_MILLION}.parts", "ema": f"{_MILLION}.parts"}
TRANSFORMERS = {"llama": f"{_MILLION}.parts"}
TEXT_ENCODERS = {
    "t5": "hftrainer.models.text_encoder",
    "clip": "hftrainer.models.hf_text_encoder",
    "sentence": "hftrainer.models.hf_text_encoder",
}
REPRESENTATIONS = {
    "motion272": "hftrainer.motion.representation.motion272",
    "motion135": "hftrainer.motion.representation.motion135",
    "hml263": "hftrainer.motion.representation.hml263",
    "joints": "hftrainer.motion.representation.joints",
    "joints66": "hftrainer.motion.representation.joints",
}
PIPELINES = {"motionmillion": "hftrainer.pipelines.motionmillion"}
TASKS = {
    "motionmillion_tokenizer": f"{_TRAINING}.motionmillion.tokenizer",
    "motionmillion_ar": f"{_TRAINING}.motionmillion.autoregressive",
    "text_distillation": f"{_TRAINING}.text_distillation",
    "action_classifier": f"{_TRAINING}.action_classifier",
    "motionstreamer272": f"{_TRAINING}.motionstreamer",
}
DATASETS = {
    "motion_windows": "hftrainer.data.motion.windows",
    "packed_windows": "hftrainer.data.motion.packed",
    "text_tokens": "hftrainer.data.tokens.captioned",
    "packed_tokens": "hftrainer.data.tokens.packed",
    "sentences": "hftrainer.data.text_motion.sentences",
    "labelled_clips": "hftrainer.data.text_motion.labelled",
    "text_motion": "hftrainer.data.text_motion.pairs",
    "synthetic_text_motion": "hftrainer.data.synthetic.datasets",
    "synthetic_windows": "hftrainer.data.synthetic.datasets",
    "synthetic_tokens": "hftrainer.data.synthetic.datasets",
}
EVALUATORS = {
    "motionstreamer272": "hftrainer.models.motion.motionstreamer.evaluator",
    "humanml263": "hftrainer.models.motion.humanml263.evaluator",
    "motionclip135": "hftrainer.models.motion.motionclip.evaluator",
}
METRICS = dict.fromkeys(
    ["R@k", "MM-Dist", "FID", "FID-unit", "Diversity", "Diversity-unit-L1"],
    "hftrainer.evaluation.protocols.measures",
)
CALLBACKS = {
    name: f"{_TRAINING}.callbacks.{name}"
    for name in ("artifact", "ema", "reconstruction", "t2m_inference", "t2m_evaluation")
}
LOGGERS = {
    "csv": f"{_TRAINING}.loggers",
    "tensorboard": f"{_TRAINING}.loggers",
    "wandb": f"{_TRAINING}.wandb_log",
}
OPTIMIZERS = dict.fromkeys(["adamw", "adam", "adamw8bit", "muon"], f"{_TRAINING}.optimizers")
SCHEDULES = dict.fromkeys(["constant", "cosine", "linear", "wsd", "inverse_sqrt", "steps"], f"{_TRAINING}.schedules")
LOSSES = {"reconstruction": f"{_TRAINING}.losses", "text_motion": f"{_TRAINING}.contrastive"}
