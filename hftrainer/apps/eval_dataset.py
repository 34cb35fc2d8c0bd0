"""A dataset as protocols read it: real clips, captions and lengths, in the representation of the protocol."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.verify_quick import stale_clips
from hftrainer.data.text_motion.evaluation import Pair, check_names
from hftrainer.evaluation.predictions import converted
from hftrainer.evaluation.protocols.clips import EvaluationSet, MotionStore
from hftrainer.evaluation.protocols.plan import Entry, draw
from hftrainer.evaluation.protocols.schema import Protocol
from hftrainer.motion.plausible import problem_of_most
from hftrainer.motion.representation.base import get_representation
from hftrainer.motion.representation.convert import check_route
from hftrainer.readers import FileError

Progress = Callable[[Iterable[Any]], Iterable[Any]]
_LOOKED_AT = 32  # clips whose values are looked at before work is spent


def open_dataset(
    root: str | os.PathLike[str],
    protocol: Protocol,
    *,
    split: str | None = None,
    texts: str | os.PathLike[str] | None = None,
    limit: int = 0,
    any_values: bool = False,
    progress: Progress = iter,
) -> EvaluationSet:
    """The real clips of a `split` (default: the protocol's) of a data set folder; `limit`: only the first so many.

    `texts`: another folder with captions. If the protocol needs another representation than the folder has,
    clips are converted. Raises ``ValueError`` for clips without a motion file, for names that lead out of a folder and,
    unless `any_values`, where most of a few clips are z-scored, in other units, or something else, or where one is
    not what its import wrote.
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
        raise FileError(f"{root}: {len(missing)} clips of split {split!r} have no motion file ({missing[0]}, ...)")
    captions = {name: folder.captions(name) for name in ids}
    stored = folder.representation
    clips = MotionStore(folder.motion)
    if not any_values:
        looked_at = ids[:: max(1, len(ids) // _LOOKED_AT)]
        problem = problem_of_most(folder.motion_format, ((name, _clip(clips, name)) for name in looked_at))
        problem = problem or stale_clips(folder, ids)
        if problem is not None:
            raise FileError(f"{root}: {problem}. Predictions cannot be evaluated against such clips")
    if stored == protocol.representation:
        return EvaluationSet(ids, captions, {name: folder.frames(name) for name in ids}, clips)

    def load(name: str) -> np.ndarray:
        values = converted(_clip(clips, name).astype(np.float64), stored, protocol.representation)
        return np.asarray(values, dtype=np.float32)

    real = MotionStore(load)
    frames = {name: len(_clip(real, name)) for name in progress(ids)}
    return EvaluationSet(ids, captions, frames, real)


def _clip(clips: MotionStore, name: str) -> Any:
    """A clip that is there."""
    motion = clips(name)
    assert motion is not None
    return motion


def one_prediction_a_clip(protocol: Protocol) -> bool:
    """Whether every prediction stands for its complete clip."""
    return protocol.captions.rule != "each" and not protocol.captions.subclips


def frames_to_make(frames: int, made: str, wanted: str) -> int:
    """Frames of the representation `made` that give at least as many of the protocol's representation."""
    if made == wanted:
        return frames
    return math.ceil(frames * get_representation(made).fps / get_representation(wanted).fps) + 1


def protocol_pairs(protocol: Protocol, kept: Sequence[Entry], made: str) -> list[Pair]:
    """Everything that a protocol evaluates, as (name, caption, frames) for a generator of the representation `made`.

    Names are the clips', or where a clip has several captions or parts the entries' keys. Captions that chance decides
    are drawn as the protocol will draw them. Motions of another representation are converted when they are evaluated;
    they are asked for one frame longer than their clips, since conversion may drop the last.
    """
    if protocol.representation != made:
        check_route(made, protocol.representation)
    if protocol.redraw and protocol.captions.rule == "random":
        raise ValueError(
            f"{protocol.name} draws captions again in each of {protocol.repeats} repeats; one motion per clip cannot "
            "represent all of them"
        )
    single = one_prediction_a_clip(protocol)
    return [
        Pair(
            item.id if single else item.key,
            item.caption,
            frames_to_make(entry.end - entry.start, made, protocol.representation),
        )
        for entry, item in zip(kept, draw(protocol, kept), strict=True)
    ]
