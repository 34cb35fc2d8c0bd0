"""``hftrainer.export``: any motion into any file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.motion.body import Body, BodyMotion, body_of, smpl_body
from hftrainer.motion.fit import pose
from hftrainer.motion.io.read_body import check_size, read_motions
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.pipelines.shown import Shown
from hftrainer.readers import FileError
from hftrainer.render.export import ExportOptions, check_formats, format_of, write


def export(
    motion: Any,
    path: str | os.PathLike[str],
    *,
    body: Body | str | os.PathLike[str] | None = None,
    skeleton_map: str | None = None,
    raw: bool = False,
    representation: str = DEFAULT,
    **options: Any,
) -> None:
    """Write a motion, or for .glb, .html and videos a list of them, in the format of the ending of `path`.

    `motion`: what a pipeline returns, a `BodyMotion`, an array (frames, width) of the `representation`, or a
    file (.npy, .npz, .bvh, .glb).
    `body`: the body that features are fitted to, as a `Body` or a model's folder; default SMPL's proportions; what a
    pipeline returned has its model's. `skeleton_map`: which map fits the bones of a BVH file. `options` are those of
    `ExportOptions`: skeleton, fps, unit, up, in_place, root_motion, loop, transparent.
    """
    kind, chosen = format_of(path), ExportOptions(**options)
    check_formats((kind,), chosen)
    given = list(motion) if isinstance(motion, (list, tuple)) else [motion]
    if not given:
        raise FileError(f"{path}: no motion to export: the list is empty")
    on = body if isinstance(body, Body) else body_of(body) if body is not None else None
    found = [pair for one in given for pair in named_motions(one, on, skeleton_map, raw, representation)]
    titles = [name for name, _ in found]
    write(path, [chosen.apply(shown, raw=raw) for _, shown in found], chosen, titles=titles, kind=kind, raw=raw)


def named_motions(
    motion: Any,
    body: Body | None = None,
    skeleton_map: str | None = None,
    raw: bool = False,
    representation: str = DEFAULT,
) -> Sequence[tuple[str, BodyMotion]]:
    """Motions with their names of anything that `export` takes."""
    if isinstance(motion, BodyMotion):
        return [(motion.body.name, motion)]
    if isinstance(motion, Shown):
        return [(motion.prompt, motion.posed(raw=raw))]
    if isinstance(motion, (str, os.PathLike)):
        return read_motions(Path(motion), body=body, skeleton_map=skeleton_map, raw=raw)
    if type(motion).__module__.partition(".")[0] == "torch":
        motion = motion.detach().cpu().numpy()
    if isinstance(motion, np.ndarray):
        width = get_representation(representation).width
        if motion.ndim != 2 or motion.shape[1] != width or not len(motion):
            raise ValueError(
                f"a motion as an array of {representation} has {width} features, (frames, {width}), got shape "
                f"{motion.shape}"
            )
        if motion.dtype.kind != "f":
            raise TypeError(f"a motion as an array must hold floats, got {motion.dtype}")
        check_size(motion, "the array")
        return [("motion", pose(motion, body or smpl_body(), representation=representation, raw=raw))]
    raise TypeError(
        f"cannot export {type(motion).__name__}: give what a pipeline returns, a BodyMotion, an array (frames, width), "
        "or the path of a .npy, .npz, .bvh or .glb"
    )
