"""A folder of predictions, `<name>.npy` each, in the evaluator's representation; every file is checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import npy_header, read_npy
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.motion.representation.convert import Options, convert, targets
from hftrainer.readers import FileError, inside, read_json
from hftrainer.registry import REPRESENTATIONS

Floats = NDArray[np.floating[Any]]

LAYOUT = "columns"  # of motion135 in evaluation: what MotionCLIP-135 reads
_LOOKED_AT = 16  # files whose width is checked before anything is evaluated
_USUAL_RATES = (10.0, 12.5, 15.0, 20.0, 24.0, 25.0, 50.0, 60.0, 100.0, 120.0)
_ALIKE, _FEWEST = 0.9, 8  # share, and least number, of clips whose lengths must tell the same story
_ROUNDING = 1.5  # frames
_SURPLUS = 3  # frames by which a converted motion may be longer than its clip


class Predictions:
    """Motions of a folder by name, in the evaluator's representation.

    `representation` is the evaluator's. A folder of another one is converted if possible; any other
    difference is an error. With a `suffix`, ``<name><suffix>.npy`` is read: further generations are ``<name>_1``,
    ``<name>_2`` and so on. A call returns None where there is no file, and raises ``ValueError`` for a broken one.
    """

    def __init__(self, root: str | os.PathLike[str], representation: str = DEFAULT, suffix: str = ""):
        self.root, self.representation, self.suffix = Path(root), representation, suffix
        if not self.root.is_dir():
            raise ValueError(f"there is no folder of predictions {str(root)!r}")
        self.stored = self._stored_representation()
        self._clip_frames: dict[str, int] = {}

    def __call__(self, name: str) -> Floats | None:
        """The motion (frames, width) called `name`."""
        path = self.path(name)
        if not path.is_file():
            return None
        stored = read_prediction(path, get_representation(self.stored).width)
        motion = converted(stored, self.stored, self.representation)
        surplus = len(motion) - self._clip_frames.get(name, len(motion))
        return motion[: len(motion) - surplus] if 0 < surplus <= _SURPLUS else motion

    def cut_converted(self, frames: Mapping[str, int]) -> None:
        """Cut converted motions that are a few frames longer than their clips, which have `frames`.

        Frame rates need not divide each other: no length at one rate may give exactly that length at another.
        """
        self._clip_frames = dict(frames) if self.stored != self.representation else {}

    def path(self, name: str) -> Path:
        """Where its file is, or would be; ``ValueError`` for a name that leads out of the folder."""
        return inside(self.root, name, suffix=f"{self.suffix}.npy", what="a clip's name")

    def files(self) -> list[Path]:
        """All motion files, sorted."""
        return sorted(p for p in self.root.rglob("*.npy") if not p.name.startswith("."))

    def manifest(self) -> dict[str, Any]:
        """What `hftrainer evaluate generate` noted beside them; empty for other folders."""
        path = self.root / "manifest.json"
        if not path.is_file():
            return {}
        content: dict[str, Any] = read_json(path)
        return content

    def generations(self, names: Iterable[str]) -> int:
        """How many there are of these clips: 1, and one more for each of ``_1``, ``_2`` ... that any of them has.

        A file that is a clip's own is not another clip's generation.
        """
        names, number = set(names), 1
        while any(f"{name}_{number}" not in names and self.path(f"{name}_{number}").is_file() for name in names):
            number += 1
        return number

    def check_rate(self, frames: Mapping[str, int], fps: float) -> None:
        """Raise ``ValueError`` if the motions are at another frame rate than `fps`, at which clips have `frames`.

        The folder's manifest says so, or nearly all lengths are one multiple of their clips', which a usual rate
        explains (20 fps predictions of 30 fps clips have two thirds of the frames).
        """
        wanted = get_representation(self.stored).fps
        noted = self.manifest().get("fps")
        if noted is not None and float(noted) != wanted:
            raise FileError(
                f"{self.root}/manifest.json says {noted:g} fps; {self.stored} has {wanted:g}. Resample the motions"
            )
        if self.stored != self.representation:
            return  # conversion has a rate of its own, and exact lengths are compared after it
        pairs = [(length, frames[name]) for name, length in self._lengths(frames)]
        off = [(length, n) for length, n in pairs if abs(length - n) > _ROUNDING]
        for rate in _USUAL_RATES:
            alike = sum(abs(length - n * rate / fps) <= _ROUNDING for length, n in off)
            if rate != fps and len(pairs) >= _FEWEST and alike >= _ALIKE * len(pairs):
                raise FileError(
                    f"{self.root}: {alike} of {len(pairs)} predictions have {rate / fps:.3g} times the frames of "
                    f"their clips, as motions at {rate:g} fps would have; {fps:g} fps is "
                    "expected. Resample them (or use "
                    "--any-rate if these lengths are intended)"
                )

    def _lengths(self, names: Iterable[str]) -> Iterable[tuple[str, int]]:
        """Lengths from file headers; broken files are found later."""
        for name in names:
            path = self.path(name)
            if path.is_file():
                try:
                    yield name, npy_header(path).shape[0]
                except (OSError, ValueError, IndexError):
                    continue

    def _stored_representation(self) -> str:
        """Representation of the folder's files, by their width; an error if the evaluator cannot use it."""
        files = self.files()
        if not files:
            raise FileError(f"{self.root} has no .npy files; predictions are <clip name>.npy, one per clip")
        widths = set()
        for path in files[:: max(1, len(files) // _LOOKED_AT)]:
            try:
                widths.add(npy_header(path).shape[1:])
            except (OSError, ValueError):
                continue  # named with the others that are broken
        wanted = get_representation(self.representation)
        if (wanted.width,) in widths or not widths:
            return self.representation
        shape = next(iter(widths))
        found = self._named_by(shape)
        if found is not None and wanted.name in targets(found):
            return found
        what = f"that is {found}" if found else "no known representation has that shape"
        if len(widths) > 1:
            what = f"and others: {sorted(map(str, widths))}"
        raise FileError(
            f"{self.root}: motions are (frames, {', '.join(map(str, shape)) or '-'}), {what}; expected {wanted.name}, "
            f"(frames, {wanted.width}) at {wanted.fps:g} fps. Convert them: hftrainer data convert-representation"
        )

    def _named_by(self, shape: tuple[int, ...]) -> str | None:
        """The representation that the folder's manifest names, or the first that has this width."""
        noted = self.manifest().get("representation")
        known = REPRESENTATIONS.names()
        if noted in known and shape == (get_representation(noted).width,):
            return str(noted)
        return next((name for name in known if shape == (get_representation(name).width,)), None)


def converted(motion: Floats, stored: str, wanted: str) -> Floats:
    """A motion in the evaluator's representation."""
    if stored == wanted:
        return motion
    return np.asarray(convert(motion, stored, wanted, Options(layout=LAYOUT)).values)


def read_prediction(path: Path, width: int) -> Floats:
    """A motion file (frames, width), checked; errors name the file and what is wrong."""
    motion = read_npy(path, shape=(None, width), finite=True)
    if len(motion) == 0:
        raise FileError(f"{path} has no frames")
    return motion
