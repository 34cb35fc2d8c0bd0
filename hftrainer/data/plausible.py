"""A look at the motions of a data source before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.data.folder import DatasetFolder
from hftrainer.motion.plausible import problem_of_most
from hftrainer.motion.representation.base import get_representation

_LOOKED_AT = 16  # clips, spread over the training split


def problem_of_source(source: Any) -> str | None:
    """What shows that most of a few training clips are not what their data set takes them for; None if nothing does.

    Only sources of motions are looked at: those with a dataset folder or a packed set of motions. A clip that cannot be
    read is left to training, which names it.
    """
    representation = getattr(source, "representation", None)
    if representation is None:
        return None
    return problem_of_most(get_representation(representation), _clips(source))


def _clips(source: Any) -> Iterator[tuple[str, NDArray[np.float32]]]:
    folder, packed, split = (getattr(source, name, None) for name in ("folder", "packed", "config"))
    split = getattr(split, "train_split", None)
    if split is None or hasattr(source, "tokens"):
        return
    if isinstance(folder, DatasetFolder):
        names = folder.names(split)
        for name in names[:: max(1, len(names) // _LOOKED_AT)][:_LOOKED_AT]:
            try:
                yield name, folder.motion(name)
            except (OSError, ValueError):
                continue
    elif packed is not None:
        clips = packed.split(split)
        for clip in clips[:: max(1, len(clips) // _LOOKED_AT)][:_LOOKED_AT]:
            yield packed.name_of(int(clip)), packed[int(clip)]
