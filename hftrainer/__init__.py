"""Train, load, sample and judge text-to-human-motion models.

Importing this package is cheap: nothing heavier than the standard library is loaded until a name is used.

    import hftrainer
    pipe = hftrainer.load_pipeline("gotozero-nano")
    motions = pipe.infer_t2m(["a person walks forward, then waves"])   # list of (frames, 272)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hftrainer.version import __version__

if TYPE_CHECKING:
    from hftrainer import zoo as zoo
    from hftrainer.apps.train import train as train
    from hftrainer.zoo.load import load_pipeline as load_pipeline

__all__ = ["__version__", "load_pipeline", "train", "zoo"]


def __getattr__(name: str) -> Any:
    if name == "load_pipeline":
        return import_module("hftrainer.zoo.load").load_pipeline
    if name == "train":
        return import_module("hftrainer.apps.train").train
    if name == "zoo":
        return import_module("hftrainer.zoo")
    raise AttributeError(f"module 'hftrainer' has no attribute {name!r}")
