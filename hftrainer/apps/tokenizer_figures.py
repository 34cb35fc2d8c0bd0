"""How well a model's tokenizer reconstructs the clips of a data set."""

from __future__ import annotations

import os
from typing import Any

from hftrainer.apps.generate_set import Progress
from hftrainer.data.folder import DatasetFolder
from hftrainer.evaluation import tokenizer
from hftrainer.manifest import fingerprint
from hftrainer.zoo.load import load_evaluator, load_tokenizer, locate


def evaluate_tokenizer(
    model: str,
    data: str | os.PathLike[str],
    *,
    split: str = "test",
    evaluator: str | None = None,
    progress: Progress = iter,
) -> dict[str, Any]:
    """Figures of `hftrainer.evaluation.tokenizer` over a split, and what they are of; with an `evaluator`, FID too."""
    encoder = load_tokenizer(model)
    dataset = DatasetFolder(data)
    scorer = None if evaluator is None else load_evaluator(evaluator)
    motions = map(dataset.motion, progress(dataset.names(split)))
    figures = tokenizer.evaluate_tokenizer(encoder, motions, evaluator=scorer)
    identity = {"model": model, "model_hash": fingerprint(locate(model)[0])}
    return {**identity, "split": split, "evaluator": evaluator, "figures": figures}
