"""A dataset on disk, in the layout of MotionMillion and of HumanML3D-272:

    motion_data/<name>.npy      (frames, width) float, physical units [or motion_data/vector_272/, motion_272rpr/]
    texts/<name>.txt            captions, one a line; HumanML3D's ``caption#tokens#start#end`` too
    split/<split>.txt           names, one a line                            [any depth below split/]
    mean_std/{mean,std}.npy     (width,)                                     [or {Mean,Std}.npy, mean_std/vector_272/]
    representation.json         {"representation": "hml263"}: what the motions are; motion272 in folders without it
    labels.json                 ours: {name: {"content": ..., "style": ...}}; what captions and balance are made from

A name may contain slashes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import npy_header, read_npy
from hftrainer.files import atomic_path, write_json, write_text
from hftrainer.motion.representation.base import DEFAULT, Representation, get_representation
from hftrainer.motion.statistics import load_statistics
from hftrainer.plain_text import read_lines
from hftrainer.readers import FileError, check_type, inside, read_json

Float32 = NDArray[np.float32]
REPRESENTATION = "representation.json"


@dataclass(frozen=True)
class Caption:
    """A sentence about a clip, or about the part from `start` to `end` seconds (both 0: the full clip).

    `tokens` is HumanML3D's second field, "word/TAG word/TAG ...", where a line has one.
    """

    text: str
    start: float = 0.0
    end: float = 0.0
    tokens: str = field(default="", compare=False)

    def __str__(self) -> str:
        """The line of a text file that `parse_caption` reads as this."""
        whole = not (self.tokens or self.start or self.end)
        return self.text if whole else f"{self.text}#{self.tokens}#{self.start:g}#{self.end:g}"


class DatasetFolder:
    """Reads and writes one dataset folder. Opening a folder reads its listing and the name of its `representation`.

    `create`: the folder need not be there; motions of another `representation` than motion272 are then named as such by
    `write_representation`.
    """

    def __init__(self, root: str | os.PathLike[str], *, create: bool = False):
        self.root = Path(root)
        if not create and not self.root.is_dir():
            raise ValueError(f"there is no dataset folder {str(root)!r}")
        places = [self.root / place for place in ("motion_data/vector_272", "motion_data", "motion_272rpr")]
        self.motions = next((place for place in places if place.is_dir()), self.root / "motion_data")
        self.texts = self.root / "texts"
        self.representation = _representation_of(self.root)

    @property
    def motion_format(self) -> Representation:
        """What the motions are: their width, frame rate and what can be done with them."""
        return get_representation(self.representation)

    def names(self, split: str | None = None) -> list[str]:
        """Names in `split`, in its order; without a split, every motion file, sorted."""
        if split is None:
            files = self.motions.rglob("*.npy")
            return sorted(str(f.relative_to(self.motions).with_suffix("")) for f in files if f.name[0] != ".")
        path = self.root / "split" / f"{split}.txt"
        if not path.is_file():
            raise FileError(f"{self.root} has no split {split!r}; it has {self.splits()}")
        names = [line.strip() for line in read_lines(path) if line.strip()]
        for name in names:
            inside(self.motions, name, suffix=".npy", what=str(path))
        return names

    def splits(self) -> list[str]:
        """Names of the split files."""
        folder = self.root / "split"
        return sorted(str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.txt"))

    def motion_path(self, name: str) -> Path:
        """Where a clip is, or would be."""
        return self.motions / f"{name}.npy"

    def motion(self, name: str) -> Float32:
        """A clip (frames, width) in physical units. Wrong shapes and NaN are errors that name the file."""
        return load_motion(self.motion_path(name), self.representation)

    def frames(self, name: str) -> int:
        """Length of a clip, read only from the header of its file."""
        path = self.motion_path(name)
        try:
            return npy_header(path, kind="float", shape=(None, self.motion_format.width)).shape[0]
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror}") from error

    def captions(self, name: str) -> list[Caption]:
        """The captions of a clip; none if it has no text file."""
        path = self.texts / f"{name}.txt"
        if not path.is_file():
            return []
        return [parse_caption(line) for line in read_lines(path) if line.strip()]

    def labels(self) -> dict[str, dict[str, Any]]:
        """labels.json; empty if there is none."""
        path = self.root / "labels.json"
        labels: dict[str, dict[str, Any]] = read_json(path, max_bytes=1 << 30) if path.is_file() else {}
        for name, found in labels.items():
            _check_label(found, f"{path}, the labels of {name!r}")
        return labels

    def statistics(self) -> tuple[Float32, Float32]:
        """Mean and standard deviation (width,), checked: a wrong file is an error, not a bad motion."""
        for folder in (self.root / "mean_std", self.root / "mean_std" / "vector_272"):
            for mean, std in (("mean.npy", "std.npy"), ("Mean.npy", "Std.npy")):
                if (folder / mean).is_file():
                    return load_statistics(folder / mean, folder / std, self.motion_format)
        raise FileError(f"{self.root} has no mean_std/mean.npy; make it with: hftrainer data stats {self.root}")

    def write_motion(self, name: str, motion: Any) -> None:
        """Write a clip as float32, atomically."""
        path = inside(self.motions, name, suffix=".npy", what="the name of a clip")
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.save(stream, np.asarray(motion, dtype=np.float32))

    def write_representation(self, name: str) -> None:
        """Say what the motions are; folders of motion272 need no file for it."""
        self.representation = get_representation(name).name
        if name != DEFAULT or (self.root / REPRESENTATION).exists():
            write_json(self.root / REPRESENTATION, {"representation": name})

    def write_captions(self, name: str, captions: Iterable[str | Caption]) -> None:
        """Write captions, one a line; those of a part in HumanML3D's form."""
        path = inside(self.texts, name, suffix=".txt", what="the name of a clip")
        write_text(path, "".join(f"{caption}\n" for caption in captions))

    def write_split(self, split: str, names: Iterable[str]) -> None:
        """Write a split file."""
        path = inside(self.root / "split", split, suffix=".txt", what="the name of a split")
        write_text(path, "".join(f"{name}\n" for name in names))

    def write_labels(self, labels: dict[str, dict[str, Any]]) -> None:
        """Write labels.json."""
        write_json(self.root / "labels.json", labels)


def parts_of(label: Mapping[str, Any]) -> list[Mapping[str, str]]:
    """The labels of what happens in a clip, one after the other: a joined clip has several, others their own."""
    return list(label.get("parts") or [label])


def _check_label(label: Any, where: str) -> None:
    check_type(label, dict, where)
    check_type(label.get("parts", []), list, f"{where}, parts")
    for part in parts_of(label):
        check_type(part, dict, f"{where}, a part")
        for key in ("content", "style"):
            check_type("" if part.get(key) is None else part[key], str, f"{where}, {key}")
    if any("content" not in part for part in label.get("parts", [])):
        raise FileError(f"{where}: a part has no content")


def load_motion(path: Path, representation: str = DEFAULT) -> Float32:
    """A motion file (frames, width), checked; see `DatasetFolder.motion`."""
    width = get_representation(representation).width
    try:
        motion = read_npy(path, shape=(None, width), finite=True, what=representation)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    if len(motion) == 0:
        raise FileError(f"{path} has no frames")
    return np.asarray(motion, dtype=np.float32)


def _representation_of(root: Path) -> str:
    path = root / REPRESENTATION
    if not path.is_file():
        return DEFAULT
    name = read_json(path).get("representation")
    if not isinstance(name, str):
        raise FileError(f'{path}: expected {{"representation": NAME}}, such as "hml263", got {name!r} for the name')
    try:
        return get_representation(name).name
    except ValueError as error:
        raise FileError(f"{path}: {error}") from error


def parse_caption(line: str) -> Caption:
    """A plain sentence, or HumanML3D's ``caption#token/POS token/POS#start#end`` (seconds; nan counts as 0)."""
    text, *rest = line.strip().rsplit("#", 3)  # a sentence may hold a # of its own
    if len(rest) != 3:
        return Caption(line.strip())
    try:
        start, end = (0.0 if np.isnan(v) else v for v in map(float, rest[1:]))
    except ValueError:
        return Caption(line.strip())
    return Caption(text.strip(), start, end, rest[0].strip())
