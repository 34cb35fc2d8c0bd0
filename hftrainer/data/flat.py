"""A dataset in a few memory-mapped files: what two packed forms have in common, and the one for captions and codes.

A packed folder holds .npy arrays and made_from.json, which names every file with its bytes and hash, counts, splits,
and what it was made from. Opening maps the arrays and compares sizes: it reads no row, so that a set of millions opens
at once. `PackedFolder.verify` reads everything.

For n entries of m clips with k captions (`hftrainer data pack-tokens` writes it):

    codes.npy            uint16 or uint32     codes of all entries, one after the other
    offsets.npy          int64 (n + 1,)       where each entry starts
    clips.npy            int32 (n,)           the clip of each entry
    first_caption.npy    int64 (m + 1,)       the first caption of each clip
    text.npy             uint8                captions as UTF-8, one after the other
    text_offsets.npy     int64 (k + 1,)       where each caption starts
    spans.npy            float64 (k, 2)       seconds that a caption is about; only where one has some
    names.npy, name_offsets.npy               names of clips, as the captions are stored
    split_<i>.npy        int32                entries of a split; made_from.json says which
    label_<i>.npy        int32 (m,)           number of each clip's value of a label, -1 without one
    mean.npy, std.npy    float32 (width,)     the dataset's statistics, if it has some
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hftrainer.data.appending import map_array
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.tokens.table import Int64, Label, TokenTable, check_made_by, label_of
from hftrainer.files import sha256, write_json
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.motion.statistics import load_statistics
from hftrainer.readers import FileError, check_type, inside, json_field, json_fields, read_json

MANIFEST = "made_from.json"
TOKENS_FORMAT = "hftrainer-packed-tokens-v1"
_LABEL_VALUES = 10_000  # a label with more values than this is text, not a label


class PackedFolder:
    """Arrays of a packed folder by name, mapped when they are first asked for."""

    format: str
    remedy: str

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        if not (self.folder / MANIFEST).is_file():
            raise FileError(f"{str(folder)!r} is not a packed dataset: it has no {MANIFEST}; {self.remedy}")
        try:
            self.made_from: dict[str, Any] = read_packed_manifest(self.folder)
        except ValueError as error:
            raise ValueError(f"{error}; {self.remedy}") from error
        found, files = self.made_from.get("format"), self.made_from["files"]
        if found != self.format:
            raise FileError(f"{self.folder} has the format {found!r}, expected {self.format!r}; {self.remedy}")
        for name, about in files.items():
            path = inside(self.folder, name, what=str(self.folder / MANIFEST))
            size = path.stat().st_size if path.is_file() else None
            if size != about["bytes"]:
                raise FileError(f"{path} has {size} bytes, expected {about['bytes']}; {self.remedy}")
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str) -> NDArray[Any]:
        """An array of this folder; only files that the manifest names are opened."""
        if name not in self._arrays:
            if f"{name}.npy" not in self.made_from["files"]:
                raise FileError(f"{self.folder} has no {name}.npy; {self.remedy}")
            self._arrays[name] = map_array(self.folder / f"{name}.npy")
        return self._arrays[name]

    def split(self, name: str) -> NDArray[Any]:
        """Numbers of the entries of a split."""
        splits = self.made_from["splits"]
        if name not in splits:
            raise FileError(f"{self.folder} has no split {name!r}; it has {sorted(splits)}; {self.remedy}")
        return self.array(splits[name]["array"])

    def statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Mean and standard deviation (width,); None if the dataset had none."""
        if "mean.npy" not in self.made_from["files"]:
            return None
        motion_format = get_representation(self.representation)
        return load_statistics(self.folder / "mean.npy", self.folder / "std.npy", motion_format)

    @property
    def representation(self) -> str:
        """What the motions are, or were before they became codes; motion272 in sets that do not say."""
        return str(self.made_from.get("representation", DEFAULT))

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(int(about["bytes"]) for about in self.made_from["files"].values())

    def name_of(self, clip: int) -> str:
        """A clip's name."""
        names, offsets = self.array("names"), self.array("name_offsets")
        if names.ndim != 1 or offsets.ndim != 1:
            raise FileError(f"{self.folder} has no list of names; {self.remedy}")
        return bytes(names[offsets[clip] : offsets[clip + 1]]).decode()

    def verify(self, progress: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> list[str]:
        """Read everything; what is wrong."""
        problems = []
        for name, about in progress(list(self.made_from["files"].items())):
            if sha256(self.folder / name) != about["sha256"]:
                problems.append(f"{name} does not match its hash")
        return problems or list(self._wrong_inside())

    def _wrong_inside(self) -> Iterable[str]:
        for name, about in self.made_from["splits"].items():
            rows = self.array(about["array"])
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(self.array("offsets")) - 1:
                yield f"split {name} lists missing entries"
        for name in (name for name in ("offsets", "text_offsets", "name_offsets") if f"{name}.npy" in self.files):
            if (np.diff(self.array(name)) < 0).any():
                yield f"{name}.npy is not ascending"

    @property
    def files(self) -> list[str]:
        """Names of the files."""
        return list(self.made_from["files"])


class PackedTokens(PackedFolder):
    """Captions and codes; ``packed[i]`` are the codes of an entry."""

    format = TOKENS_FORMAT
    remedy = "make it with: hftrainer data pack-tokens"

    def __init__(self, folder: str | os.PathLike[str]):
        super().__init__(folder)
        json_fields(self.made_from, self.folder / MANIFEST, {"codebook_size": int, "frames_per_code": int})
        labels = {
            name: Label(self._column(about["array"]), list(about["values"]))
            for name, about in self.made_from["labels"].items()
        }
        self.table = TokenTable(
            codes=self._column("codes"),
            offsets=self._offsets("offsets"),
            clips=self._column("clips"),
            first_caption=self._offsets("first_caption"),
            text=self._column("text"),
            text_offsets=self._offsets("text_offsets"),
            spans=self.array("spans") if "spans.npy" in self.files else None,
            codebook_size=self.made_from["codebook_size"],
            frames_per_code=self.made_from["frames_per_code"],
            representation=self.representation,
            labels=labels,
            folder=str(self.folder),
        )
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Numbers that say where something is in another array stay inside of it."""
        table = self.table
        most = {
            "clips": len(table.first_caption) - 2, "first_caption": len(table.text_offsets) - 1,
            "offsets": len(table.codes), "text_offsets": len(table.text),
        }  # fmt: skip
        for name, last in most.items():
            values = self.array(name)
            if len(values) and not 0 <= values.min() <= values.max() <= last:
                raise FileError(f"{self.folder / name}.npy holds numbers outside of 0 to {last}; {self.remedy}")
        table = self.table
        fits = (
            len(table.offsets) == len(table.clips) + 1
            and table.offsets[-1] == len(table.codes)
            and table.text_offsets[-1] == len(table.text)
            and table.first_caption[-1] == len(table.text_offsets) - 1
            and len(table.first_caption) == len(self._offsets("name_offsets"))
            and (table.spans is None or table.spans.shape == (len(table.text_offsets) - 1, 2))
        )
        if not fits:
            raise ValueError(f"the arrays of {self.folder} are inconsistent; {self.remedy}")

    def _column(self, name: str) -> NDArray[Any]:
        array = self.array(name)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise FileError(f"{self.folder}: {name} holds {array.shape} of {array.dtype}; {self.remedy}")
        return array

    def _offsets(self, name: str) -> NDArray[Any]:
        array = self._column(name)
        if not len(array) or array[0] != 0:
            raise FileError(f"{self.folder}: {name} does not begin with 0; {self.remedy}")
        return array

    def __len__(self) -> int:
        return len(self.table.clips)

    def __getitem__(self, entry: int) -> Int64:
        start, end = self.table.offsets[entry : entry + 2]
        return np.asarray(self.table.codes[start:end], dtype=np.int64)

    @property
    def lengths(self) -> Int64:
        """Codes of each entry."""
        return np.diff(self.table.offsets)

    @property
    def codebook_size(self) -> int:
        """Codes are below this."""
        return self.table.codebook_size

    def check_tokenizer(self, fingerprint: str) -> None:
        """Raise ``ValueError`` unless these codes were made by the tokenizer with this hash."""
        check_made_by(self.folder, self.made_from["tokenizer_sha256"], fingerprint)

    def _wrong_inside(self) -> Iterable[str]:
        yield from super()._wrong_inside()
        table = self.table
        for start in range(0, len(table.codes), 1 << 24):
            if (table.codes[start : start + (1 << 24)] >= table.codebook_size).any():
                yield f"codes.npy holds codes of {table.codebook_size} and up"
                break
        if (np.diff(table.offsets) == 0).any():
            yield "an entry has no codes"
        if (np.diff(table.first_caption) == 0).any():
            yield "a clip has no caption"


_MANIFEST: dict[str, dict[str, type]] = {
    "files": {"bytes": int, "sha256": str}, "splits": {"array": str}, "labels": {"array": str, "values": list},
}  # fmt: skip


def read_packed_manifest(folder: Path) -> dict[str, Any]:
    """made_from.json with what every packed set says: its files, splits and labels, each described by an object."""
    path = folder / MANIFEST
    about: dict[str, Any] = read_json(path, max_bytes=1 << 30)
    for part, fields in _MANIFEST.items():
        for name, entry in json_field(about, part, dict, path).items():
            check_type(entry, dict, f"{path}, {part}, {name!r}")
            for key, kind in fields.items():
                json_field(entry, key, kind, f"{path}, {part}, {name!r}")
    return about


def write_packed_manifest(folder: Path, about: dict[str, Any]) -> None:
    """Write made_from.json over every .npy file of `folder`."""
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.glob("*.npy"))}
    write_json(folder / MANIFEST, {**about, "files": files})


def check_replaceable(out: str | os.PathLike[str]) -> None:
    """Refuse a folder that holds anything but an earlier packed set: all of it would be replaced."""
    out = Path(out)
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{str(out)!r} exists and is not a packed dataset; give a new folder for --out")


def write_splits(folder: Path, entries: Mapping[str, ArrayLike]) -> dict[str, Any]:
    """Write the entries of each split."""
    about = {}
    for i, split in enumerate(sorted(entries)):
        numbers = np.asarray(entries[split], dtype=np.int32)
        np.save(folder / f"split_{i}.npy", numbers)
        about[split] = {"array": f"split_{i}", "entries": len(numbers)}
    return about


def write_labels(folder: Path, labels: dict[str, dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Write the label values of each clip that are words or whole numbers."""
    found = {key for name in names for key, value in labels.get(name, {}).items() if isinstance(value, (str, int))}
    about: dict[str, Any] = {}
    for key in sorted(found):
        values = [labels.get(name, {}).get(key) for name in names]
        label = label_of([None if value is None else str(value) for value in values])
        if len(label.values) > _LABEL_VALUES:
            continue
        array = f"label_{len(about)}"
        np.save(folder / f"{array}.npy", label.ids)
        about[key] = {"array": array, "values": label.values}
    return about


def write_statistics_of(dataset: DatasetFolder, folder: Path) -> None:
    """Copy the dataset's statistics, if it has some."""
    if (dataset.root / "mean_std").is_dir():
        for name, values in zip(("mean", "std"), dataset.statistics(), strict=True):
            np.save(folder / f"{name}.npy", values)
