"""A folder of motions in another representation, with a record of what each file was made from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.arrays import read_npy
from hftrainer.files import Sparingly, atomic_path, check_writable, sha256, write_json
from hftrainer.motion.representation.base import get_representation
from hftrainer.motion.representation.convert import Options, check_route, convert
from hftrainer.motion.representation.motion135 import skeleton_offsets
from hftrainer.readers import FileError, inside, json_field, read_json

MANIFEST = "conversion.json"


@dataclass
class ConversionReport:
    """What became of each file, by name: `made`, `kept` (unchanged since an earlier run), why others `failed`, and
    which `left` because their source is gone."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def convert_folder(
    source_folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    source: str,
    target: str,
    *,
    fps: float | None = None,
    layout: str = "columns_interleaved",
    skeleton: str | os.PathLike[str] | None = None,
    flat: bool = False,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> ConversionReport:
    """Convert every .npy below `source_folder` to a float32 .npy of the same name below `out`.

    `fps` is the rate of joints given as source (None: their usual one), `layout` the 6D layout of motion135, `skeleton`
    an .npy of (22, 3) vectors from parent to joint for positions made from rotations; `flat` writes joints as rows
    (frames, 66), as a dataset has them, not (frames, 22, 3). conversion.json in `out` records these, and hashes of
    every file and of what it was made from; a file whose record still fits is kept. A file that
    cannot be converted is reported, not written, and an older result of it removed, as is one whose source is gone.
    Raises ``ValueError`` for an `out` in the source, one that was made with other settings, and one with other motions.
    """
    check_route(source, target)
    folder, out = Path(source_folder), Path(out)
    names = _motion_names(folder)
    if not names:
        raise ValueError(f"there are no .npy files below {str(folder)!r}")
    fps = fps or get_representation(source).fps
    options = Options(fps, layout, _offsets(skeleton))
    manifest = claim(folder, out, conversion_settings(source, target, fps, layout, skeleton))
    report, clips, sparingly = ConversionReport(), manifest["clips"], Sparingly()
    for name in sorted(clips.keys() - set(names)):
        inside(out, name, suffix=".npy", what=f"{out / MANIFEST}: a clip").unlink(missing_ok=True)
        del clips[name]
        report.left.append(name)
    try:
        for name in progress(names):
            taken, made = folder / f"{name}.npy", out / f"{name}.npy"
            record = clips.get(name)
            if record and made.is_file() and record["source"] == sha256(taken) and record["sha256"] == sha256(made):
                report.kept.append(name)
                continue
            try:
                clips[name] = _convert_file(taken, made, source, target, options, flat=flat)
                report.made.append(name)
            except ValueError as error:
                report.failed[name] = str(error)
                clips.pop(name, None)
                made.unlink(missing_ok=True)
            sparingly.call(lambda: write_json(out / MANIFEST, manifest))
    finally:
        write_json(out / MANIFEST, {**manifest, "failed": report.failed})
    return report


def claim(folder: Path, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The record of earlier conversions of the motions in `folder` into `out`, which from now on says whose `out` is.

    Raises ``ValueError`` for the folders that `convert_folder` refuses.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"--out is the source folder {str(folder)!r}, or inside it; choose a folder beside it")
    names = _motion_names(folder)
    if {(folder / f"{name}.npy").resolve() for name in names} & {(out / f"{name}.npy").resolve() for name in names}:
        raise ValueError(f"files of the source folder {str(folder)!r} would be overwritten; choose another --out")
    path = out / MANIFEST
    fresh: dict[str, Any] = {"format_version": 1, "settings": settings, "clips": {}}
    if path.is_file():
        found = read_json(path, max_bytes=1 << 30)
        before, clips = json_field(found, "settings", dict, path), json_field(found, "clips", dict, path)
        if before != settings:
            raise FileError(f"{out} was made with {before}, now {settings} are requested; choose another --out")
        check_writable(out)
        return {**found, **fresh, "clips": clips}
    if out.is_dir() and _motion_names(out):
        raise ValueError(f"{out} has motions that are no results of a conversion; choose another --out")
    check_writable(out)
    write_json(path, fresh)
    return fresh


def _motion_names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix()[:-4] for p in folder.rglob("*.npy") if p.name[0] != ".")


def read_motion(path: Path, representation: str) -> np.ndarray:
    """A motion file of a representation, checked: shape, at least one frame, no NaN. Errors name the file."""
    motion = read_npy(path, finite=True)
    motion_format = get_representation(representation)
    if motion_format.any_rate:  # joints
        right, wanted = motion.shape[1:] in ((22, 3), (66,)), "(frames, 22, 3) or (frames, 66)"
    else:
        width = motion_format.width
        right, wanted = motion.shape[1:] == (width,), f"(frames, {width})"
    if not right or len(motion) == 0:
        raise FileError(f"{path}: expected floats {wanted} of {representation}, got {motion.shape} of {motion.dtype}")
    return motion


def _convert_file(taken: Path, made: Path, source: str, target: str, options: Options, *, flat: bool) -> dict[str, Any]:
    motion = read_motion(taken, source)
    got = convert(motion.astype(np.float64), source, target, options)
    values = np.asarray(got.values, dtype=np.float32)
    values = values.reshape(len(values), -1) if flat else values
    if not np.isfinite(values).all():
        raise ValueError(f"{taken}: the conversion to {target} has NaN or infinite values")
    with atomic_path(made) as temporary, open(temporary, "wb") as stream:
        np.save(stream, values)
    return {
        "source": sha256(taken),
        "sha256": sha256(made),
        "source_frames": len(motion),
        "frames": len(values),
        "fps": got.fps,
    }


def conversion_settings(
    source: str, target: str, fps: float, layout: str, skeleton: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """What, besides the files, decides the results; what a route does not use is left out."""
    out: dict[str, Any] = {"from": source, "to": target}
    if get_representation(source).any_rate:
        out["fps"] = fps
    if "motion135" in (source, target):
        out["layout"] = layout
    if skeleton is not None:
        out["skeleton"] = sha256(skeleton)
    return out


def _offsets(skeleton: str | os.PathLike[str] | None) -> np.ndarray | None:
    if skeleton is None:
        return None
    try:
        offsets = read_npy(skeleton, kind="number", finite=True)
    except OSError as error:
        raise ValueError(f"the skeleton {str(skeleton)!r} cannot be read: {error.strerror}") from error
    return np.asarray(skeleton_offsets(offsets, np.zeros(1)))
