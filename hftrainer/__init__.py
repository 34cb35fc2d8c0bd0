"""Train, load, sample and evaluate text-to-human-motion models.

Importing this package is cheap: nothing heavier than the standard library is loaded until a name is used.

    import hftrainer
    pipe = hftrainer.load_pipeline("gotozero-mini")
    made = pipe("a person walks forward", seconds=5)
    made[0].save("walk.glb")                                       # or .bvh, .npz, .mp4, .html, ...
    hftrainer.export("out/000_walk_s0.npy", "walk.bvh", skeleton="mixamo")
    report = hftrainer.evaluate("gotozero-nano", "dataset/bandai", evaluator="motionstreamer272-nano", out="runs/a")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hftrainer.version import __version__

if TYPE_CHECKING:
    from hftrainer import zoo as zoo
    from hftrainer.apps.evaluate import evaluate as evaluate
    from hftrainer.apps.export import export as export
    from hftrainer.apps.generate import generate as generate
    from hftrainer.apps.train import train as train
    from hftrainer.zoo.load import load_pipeline as load_pipeline

__all__ = ["__version__", "evaluate", "export", "generate", "load_pipeline", "train", "zoo"]

_HOMES = {
    "evaluate": "hftrainer.apps.evaluate",
    "export": "hftrainer.apps.export",
    "generate": "hftrainer.apps.generate",
    "load_pipeline": "hftrainer.zoo.load",
    "train": "hftrainer.apps.train",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "zoo":
        return import_module("hftrainer.zoo")
    raise AttributeError(f"module 'hftrainer' has no attribute {name!r}")
