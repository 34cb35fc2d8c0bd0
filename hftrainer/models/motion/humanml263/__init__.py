"""The official matcher of HumanML3D-263 (Guo et al., CVPR 2022): the evaluator of the 263-dim leaderboards."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hftrainer.models.motion.humanml263.evaluator import HumanML263Evaluator as HumanML263Evaluator

__all__ = ["HumanML263Evaluator"]


def __getattr__(name: str) -> Any:
    """Import on use, so that `network` can be imported with nothing but torch."""
    if name == "HumanML263Evaluator":
        return import_module(f"{__name__}.evaluator").HumanML263Evaluator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
