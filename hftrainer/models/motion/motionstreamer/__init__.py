"""The MotionStreamer-272 evaluator (arXiv 2503.15451): texts and motions in one space, where metrics are taken."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hftrainer.models.motion.motionstreamer.config import MotionStreamer272Config as MotionStreamer272Config
    from hftrainer.models.motion.motionstreamer.evaluator import (
        MotionStreamer272Evaluator as MotionStreamer272Evaluator,
    )
    from hftrainer.models.motion.motionstreamer.network import Gaussian as Gaussian

__all__ = ["Gaussian", "MotionStreamer272Config", "MotionStreamer272Evaluator"]

_WHERE = {
    "MotionStreamer272Evaluator": "evaluator",
    "MotionStreamer272Config": "config",
    "Gaussian": "network",
}


def __getattr__(name: str) -> Any:
    """Import on use, so that `network` can be imported with nothing but torch."""
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
