"""Models as they would be, on the meta device: every tensor has its shape and type, and takes no memory.

What a configuration takes from files is outlined from their sizes where the files are, else from what is written; what
is not known is said in notes, never guessed. A model whose building reads files says how it is outlined
(`hftrainer.interfaces.Outlinable`); any other is simply built.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hftrainer.registry import MODELS, make


def outline(section: dict[str, Any], *, path: str = "model") -> tuple[nn.Module | None, list[str]]:
    """The model of a configuration's section on the meta device, and notes; None where its sizes are not known."""
    factory, config = MODELS.resolve(section, path=path)
    described = getattr(factory, "outline", None)
    with torch.device("meta"):
        if described is None:
            return make(factory, config), []
        model, notes = described(config)
        return model, list(notes)


class AbsentText:
    """Stands where a text tokenizer would; an outline reads no text."""
