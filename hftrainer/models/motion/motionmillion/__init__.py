"""Go to Zero (MotionMillion, arXiv 2507.07095): text to motion by a prefix language model over motion codes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle as MotionMillionBundle
    from hftrainer.models.motion.motionmillion.config import MotionMillionConfig as MotionMillionConfig

__all__ = ["MotionMillionBundle", "MotionMillionConfig"]

_WHERE = {"MotionMillionBundle": "bundle", "MotionMillionConfig": "config"}


def __getattr__(name: str) -> Any:
    """Import on use, so that importing `network` needs only torch."""
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
