"""MotionCLIP-135: a CLIP-style evaluator of 135-dim motions (weights are the user's)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hftrainer.models.motion.motionclip.evaluator import MotionCLIP135Evaluator as MotionCLIP135Evaluator

__all__ = ["MotionCLIP135Evaluator"]


def __getattr__(name: str) -> Any:
    """Import on use, so that `network` can be imported with nothing but torch."""
    if name == "MotionCLIP135Evaluator":
        return import_module(f"{__name__}.evaluator").MotionCLIP135Evaluator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
