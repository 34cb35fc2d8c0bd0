"""A MotionStreamer-272 evaluator on the meta device, for ``hftrainer train --dry-run``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hftrainer.models.motion.motionstreamer import artifact
from hftrainer.models.motion.motionstreamer.config import MotionStreamer272Config

_DISTILBERT = {"vocab_size": 30522, "width": 768, "layers": 6, "heads": 12, "hidden": 3072, "max_tokens": 512}


def outline_parts(config: MotionStreamer272Config) -> tuple[artifact.Parts, list[str]]:
    """The parts without their weights, and notes on what is not known."""
    source = config.text.source
    if source is None or Path(source).is_dir():
        return artifact.build(config), []
    text = dataclasses.replace(config.text, source=None, **_DISTILBERT)
    parts = artifact.build(dataclasses.replace(config, text=text))
    return parts, [f"the text model {source} is not read: the published sizes of DistilBERT are used"]
