"""A data set as protocols read it: real clips, captions and lengths, in the representation that is judged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.text_motion.evaluation import Pair, check_names
from hftrainer.evaluation.predictions import converted
from hftrainer.evaluation.protocols.clips import EvaluationSet, MotionStore
from hftrainer.evaluation.protocols.plan import Entry, draw
from hftrainer.evaluation.protocols.schema import Protocol

Progress = Callable[[Iterable[Any]], Iterable[Any]]


def open_dataset(
    root: str | os.PathLike[str],
    protocol: Protocol,
    *,
    split: str | None = None,
    texts: str | os.PathLike[str] | None = None,
    limit: int = 0,
    progress: Progress = iter,
) -> EvaluationSet:
    """The real clips of a `split` (default: the protocol's) of a data set folder; `limit`: only the first so many.

    `texts`: another folder with captions. Where the protocol judges another representation than the folder holds, clips
    are converted. Raises ``ValueError`` for clips without a motion file and for names that lead out of a folder.
    """
    folder = DatasetFolder(root)
    if texts is not None:
        folder.texts = Path(texts)
    split = split or protocol.ids.split
    ids = folder.names(split)
    ids = ids[:limit] if limit else ids
    check_names(ids, f"split {split!r} of {folder.root}")
    missing = [name for name in ids if not folder.motion_path(name).is_file()]
    if missing:
        raise ValueError(f"{root}: {len(missing)} clips of split {split!r} have no motion file ({missing[0]}, ...)")
    captions = {name: folder.captions(name) for name in ids}
    stored = folder.representation
    if stored == protocol.representation:
        return EvaluationSet(ids, captions, {name: folder.frames(name) for name in ids}, MotionStore(folder.motion))

    def load(name: str) -> np.ndarray:
        values = converted(folder.motion(name).astype(np.float64), stored, protocol.representation)
        return np.asarray(values, dtype=np.float32)

    real = MotionStore(load)
    frames = {name: len(real(name)) for name in progress(ids)}  # type: ignore[arg-type]
    return EvaluationSet(ids, captions, frames, real)


def one_prediction_a_clip(protocol: Protocol) -> bool:
    """Whether every prediction stands for its complete clip."""
    return protocol.captions.rule != "each" and not protocol.captions.subclips


def protocol_pairs(protocol: Protocol, kept: Sequence[Entry], made: str) -> list[Pair]:
    """Everything that a protocol judges, as (name, caption, frames) for a generator of the representation `made`.

    Names are the clips', or where a clip has several captions or parts the entries' keys. Captions that chance decides
    are drawn as the protocol will draw them.
    """
    if protocol.representation != made:
        raise ValueError(
            f"{protocol.name} judges {protocol.representation}, the model makes {made}; generate for the data set "
            "(--pair-source official_split) and give that folder, which is converted where there is a way"
        )
    if protocol.redraw and protocol.captions.rule == "random":
        raise ValueError(
            f"{protocol.name} draws captions again in each of {protocol.repeats} repeats; one motion a clip cannot "
            "stand for all of them"
        )
    single = one_prediction_a_clip(protocol)
    return [
        Pair(item.id if single else item.key, item.caption, entry.end - entry.start)
        for entry, item in zip(kept, draw(protocol, kept), strict=True)
    ]
