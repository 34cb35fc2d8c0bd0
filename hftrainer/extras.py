"""Optional dependencies: imported where they are used, and named with their pip command when they are missing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_EXTRA_OF = {
    "lightning": "train",
    "wandb": "train",
    "tensorboard": "train",
    "deepspeed": "deepspeed",
    "peft": "lora",
    "scipy": "eval",
    "imageio_ffmpeg": "viz",
    "PIL": "viz",
    "pxr": "usd",
    "fastapi": "serve",
    "uvicorn": "serve",
    "websockets": "serve",
    "torchao": "quant",
    "ufbx": "fbx",
}


class MissingExtra(ImportError):
    """An optional dependency is not installed; the message is the command that installs it."""


def need(module: str, purpose: str) -> ModuleType:
    """Import `module`, or raise `MissingExtra` saying what it is for and how to get it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        raise _missing(top, purpose) from error


def check(module: str, purpose: str) -> None:
    """Raise what `need` would if a module is not installed, without importing it."""
    if find_spec(module) is None:
        raise _missing(module, purpose)


def _missing(module: str, purpose: str) -> MissingExtra:
    return MissingExtra(f"{purpose} needs {module!r}; install it with: pip install 'hftrainer[{_EXTRA_OF[module]}]'")


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings are logged inside: torchao, which transformers imports where it is installed, warns of every compiled
    part of its own that this torch has no use for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
