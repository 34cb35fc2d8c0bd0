"""A data set as protocols want it: real clips, captions and lengths, in the representation that is judged."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.text_motion.evaluation import Pair
from hftrainer.evaluation.protocols.plan import draw, entries
from hftrainer.evaluation.protocols.run import Clips
from hftrainer.evaluation.protocols.schema import Protocol
from hftrainer.motion.representation.convert import Options, convert
from hftrainer.motion.representation.spec import HML263, MOTION272
from hftrainer.motion.resample import resampled_frames

_KEPT = 5000  # converted clips in memory; one of 263 numbers and 200 frames is 0.2 MB


def open_dataset(root: str, split: str, protocol: Protocol, *, texts: str | None = None) -> Clips:
    """The real clips of a split of a data set folder of motion272; `texts`: another folder with captions.

    Where a protocol judges another representation, clips are converted (to HumanML3D-263 with its 20 fps, to motion135
    in the layout "columns").
    """
    folder = DatasetFolder(root)
    if texts is not None:
        folder.texts = type(folder.texts)(texts)
    ids = folder.names(split)
    missing = [name for name in ids if not folder.motion_path(name).is_file()]
    if missing:
        raise ValueError(f"{root}: {len(missing)} clips of split {split!r} have no motion file ({missing[0]}, ...)")
    frames = {name: folder.frames(name) for name in ids}
    load: Any = folder.motion
    if protocol.representation != MOTION272.name:

        @lru_cache(maxsize=_KEPT)
        def converted(name: str) -> np.ndarray:
            motion = folder.motion(name).astype(np.float64)
            values = convert(motion, MOTION272.name, protocol.representation, Options(layout="columns")).values
            return np.asarray(values, dtype=np.float32)

        load = converted
    if protocol.representation == HML263.name:
        frames = {name: resampled_frames(n, MOTION272.fps, HML263.fps) - 1 for name, n in frames.items()}
    return Clips(ids, {name: folder.captions(name) for name in ids}, frames, load)


def one_caption_a_clip(protocol: Protocol) -> bool:
    """Whether every prediction stands for its whole clip."""
    return protocol.captions.rule != "each" and not protocol.captions.subclips


def protocol_pairs(protocol: Protocol, clips: Clips) -> list[Pair]:
    """Everything that a protocol judges, as (name, caption, frames at 30 fps) for a generator.

    Names are the clips', or where a clip has several captions or parts the entries' keys. Captions that chance decides
    are drawn as the protocol will draw them.
    """
    if protocol.representation != MOTION272.name:
        raise ValueError(
            f"{protocol.name} judges {protocol.representation}; generate motion272 (--pair-source official_split) and "
            "give that folder, which is converted"
        )
    if protocol.redraw and protocol.captions.rule == "random":
        raise ValueError(
            f"{protocol.name} draws captions anew in each of {protocol.repeats} repeats; one motion a clip cannot "
            "stand for all of them"
        )
    kept = entries(protocol, clips.ids, clips.captions, clips.frames).kept
    whole = one_caption_a_clip(protocol)
    return [
        Pair(item.id if whole else item.key, item.caption, entry.end - entry.start)
        for entry, item in zip(kept, draw(protocol, kept), strict=True)
    ]
