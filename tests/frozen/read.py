"""What a folder of frozen artifacts gives, as arrays: through the functions that users call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftrainer.data.flat import PackedTokens
from hftrainer.manifest import fingerprint, verify_manifest
from hftrainer.models.checkpoint import open_checkpoint
from hftrainer.pipelines.folder import existing
from hftrainer.requests import SamplingParams
from hftrainer.zoo.load import load_evaluator, load_pipeline, load_tokenizer
from tests.tiny import SENTENCES


def read(place: Path) -> dict[str, NDArray[np.generic]]:
    """Arrays by name."""
    clip = np.load(place / "clip.npy")
    for folder in ("model", "evaluator"):
        verify_manifest(place / folder)
    pipeline = load_pipeline(str(place / "model"), device="cpu")
    made = pipeline([SENTENCES[0]], seconds=0.5, seed=0, sampling=SamplingParams(do_sample=False))[0]
    evaluator = load_evaluator(str(place / "evaluator"), device="cpu")
    record = existing(place / "generated")["items"][0]
    packed = PackedTokens(place / "packed")
    checkpoint = open_checkpoint(place / "run/checkpoints/last.ckpt")
    sums = {name: float(checkpoint[name].double().abs().sum()) for name in sorted(checkpoint)}
    return {
        "codes": np.asarray(made.tokens),
        "motion": np.asarray(made.motion),
        "clip codes": np.asarray(load_tokenizer(str(place / "model")).encode([clip])[0]),
        "text embedding": np.asarray(evaluator.encode_texts([SENTENCES[0]])),
        "motion embedding": np.asarray(evaluator.encode_motions([clip])),
        "prediction": np.load(place / "generated" / record["files"][0]),
        "fingerprint": np.array(fingerprint(place / "model")),
        "checkpoint": np.array(list(sums.values())),
        "checkpoint names": np.array(list(sums)),
        "packed codes": np.asarray(packed.table.codes),
        "packed text": np.asarray(packed.table.text),
    }
