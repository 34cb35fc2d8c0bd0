"""The model card of a converted artifact: what it is, what it may be used for, where it comes from."""

from __future__ import annotations

import json

from hftrainer.models.motion.motionmillion.config import MotionMillionConfig
from hftrainer.models.text_encoder_base import kind_of, spell_kind
from hftrainer.shown import as_markdown

_SPLITS = {
    "train": "the train split; test-set leaderboards are meaningful",
    "all": "**all splits, test included: not eligible for HumanML3D or MotionMillion test-set leaderboards**",
    "unknown": "unknown splits (not recorded); check before using it on a test-set leaderboard",
}
_RELEASED = """\
The official code is Apache-2.0; the data set MotionMillion is CC BY-NC-SA 4.0; Flan-T5 is Apache-2.0. The authors state
no separate licence for the weights: take the data set's terms (non-commercial) as binding unless they tell you
otherwise."""


def model_card(config: MotionMillionConfig, *, repo_id: str | None = None, source: str | None = None) -> str:
    """README.md of an artifact; `source` is the released file that it was converted from."""
    if config.ar is None:
        raise ValueError("a model card is for a complete model; this one has no transformer")
    ar = config.ar.config
    origin = "A Go to Zero model, written by hftrainer."
    licence = "Whoever publishes these weights states their licence; the terms of what they were trained on bind."
    if source is not None:
        released = "the official release (github.com/VankouF/MotionMillion-Codes)"
        origin = f"Converted from {as_markdown(source)} of {released} by hftrainer."
        licence = _RELEASED
    where = json.dumps(repo_id) if repo_id else '"path/to/this/folder"'
    return f"""---
license: other
license_name: see-below
pipeline_tag: text-to-motion
library_name: hftrainer
---
# Go to Zero (MotionMillion): {ar.n_layer} layers, width {ar.n_embd}

{origin} Text to 272-dim motion at 30 fps;
Ke Fan et al., "Go to Zero: Towards Zero-shot Motion Generation with Million-scale Data", ICCV 2025,
arXiv 2507.07095.

Trained on {_SPLITS[config.training_splits]}.

```python
from hftrainer.pipelines.motionmillion import MotionMillionPipeline
pipe = MotionMillionPipeline.from_pretrained({where}, device="cuda", dtype="bfloat16")
motions = pipe.infer_t2m(["a person swings a golf club"])
```

| file | content |
|---|---|
| fsq.safetensors | HumanVQVAE tokenizer, {config.tokenizer.config.codebook_size} codes |
| ar.safetensors (or shards) | transformer, {ar.n_layer} layers, {ar.n_head} heads, width {ar.n_embd} |
| mean.npy, std.npy | statistics of the 272 features |
| text_encoder/ | text encoder{_kind(config)}, if it is here |
| manifest.json | bytes and SHA-256 of every file |

## Licence

{licence}
"""


def _kind(config: MotionMillionConfig) -> str:
    part = config.text_encoder
    return f" ({spell_kind(kind_of(part.name, part.config))})" if part is not None else ""
