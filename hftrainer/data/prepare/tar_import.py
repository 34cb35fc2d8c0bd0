"""Tar shards as a dataset folder: archives as MotionMillion publishes them, and webdataset shards (name.npy, name.txt).

Members are told by what they are: floats (frames, width) are a motion, whole numbers are codes, .txt below split/
is a split, other .txt is captions, mean and std are statistics. Nothing is written outside of the dataset.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hftrainer.arrays import parse_npy
from hftrainer.data.folder import DatasetFolder
from hftrainer.files import atomic_path, only_writer, write_text
from hftrainer.readers import FileError, check_regular, inside

CODES = "VQVAE_codebook_imported"
# folders of the published layouts, which are not part of a clip's name
_OUTER = ("motion_data", "vector_272", "motion_272rpr", "texts", "split", "mean_std", CODES)


_NOTES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
          tarfile.GNUTYPE_LONGLINK)  # fmt: skip
_MAX_NOTE = 1 << 16  # bytes
_MAX_MEMBER = {".npy": 1 << 28, ".txt": 1 << 26}  # bytes; other members are skipped
_MAX_UNPACKED, _MAX_RATIO = 1 << 29, 200  # bytes of an archive, and for each of its own; motions shrink to a half


@dataclass
class TarReport:
    """What was imported, by kind, and members that are nothing of a dataset."""

    counts: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    renamed: int = 0
    written: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # by file: its member, and the content's hash

    def claim(self, target: str, where: str, data: bytes) -> None:
        """Note which member becomes the file `target`; ``ValueError`` if another one with other content did."""
        digest = hashlib.blake2b(data, digest_size=16).digest()
        first, known = self.written.setdefault(target, (where, digest))
        if known != digest:
            raise FileError(
                f"{where} would replace {target}, which {first} became; import them with different --prefix"
            )

    def add(self, kind: str) -> None:
        """Count one."""
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def lines(self, out: str | os.PathLike[str]) -> list[str]:
        """What was imported into `out`, in sentences."""
        lines = [f"{', '.join(f'{count} {kind}' for kind, count in self.counts.items())} -> {out}"]
        if self.renamed:
            lines.append(f"{self.renamed} members had a duplicated top folder, which was removed once")
        if self.skipped:
            lines.append(f"{len(self.skipped)} members were skipped, e.g. {self.skipped[0]}")
        return lines


def import_tar(
    shards: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    prefix: str = "",
    split: str | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> TarReport:
    """Unpack .tar, .tar.gz, ... into the dataset folder `out`, member by member, in the layout of `DatasetFolder`.

    `prefix` is put before names (archives of parts often omit the part's name: ``MotionGV/``). A top folder that is
    there twice (MotionGV/MotionGV/...) is written once. `split`: also list the clips that came in this split. Raises
    ``ValueError`` for a member that is damaged, has a name that leads out of the folder, or would replace another one.
    """
    dataset, report, names = DatasetFolder(out, create=True), TarReport(), []
    with only_writer(dataset.root):
        for shard in shards:
            for member, data in progress(_members(Path(shard))):
                try:
                    kind, name = _take(dataset, PurePosixPath(member), data, prefix, f"{shard}: {member}", report)
                except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                    raise FileError(f"{shard}: {member} is a file and a folder in {out}") from error
                if kind == "motions":
                    names.append(name)
        if not report.counts:
            raise ValueError(f"{', '.join(map(str, shards))}: no motion, caption, code, split or statistics found")
        if split is not None:
            known = dataset.names(split) if split in dataset.splits() else []
            dataset.write_split(split, dict.fromkeys([*known, *names]))
    return report


class _Header(tarfile.TarInfo):
    """A member's header. Those that only hold long names and notes are read whole by tarfile, at any size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _NOTES and header.size > _MAX_NOTE:
            raise ValueError(f"a name or note of {header.size} bytes; the limit is {_MAX_NOTE}")
        return header


class _Unpacked:
    """What is in a packed archive, no more than `most` bytes of it. tarfile unpacks ten kilobytes at once, which may be
    fourteen gigabytes; Python's files of these formats unpack what is asked for."""

    def __init__(self, shard: Path, most: int):
        self._most = self._left = most
        with open(shard, "rb") as stream:
            start = stream.read(6)
        opened: Callable[[Path], Any] = lambda path: open(path, "rb")  # noqa: E731
        for magic, unpack in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
            if start.startswith(magic):
                opened = unpack
        self._stream = opened(shard)

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise FileError(f"it would be unpacked to more than {self._most} bytes")
        return data

    def close(self) -> None:
        self._stream.close()


def _members(shard: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of regular files, in the order of the archive; it is read once, from front to back."""
    most = _MAX_UNPACKED + _MAX_RATIO * check_regular(shard)
    unpacked: Any = _Unpacked(shard, most)
    try:
        with closing(unpacked), tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_Header) as archive:
            for member in archive:
                if member.offset_data + member.size > most:
                    raise FileError(f"{member.name[:80]!r} would be unpacked to more than {most} bytes")
                if member.issparse():
                    raise FileError(f"{member.name[:80]!r} is a sparse file, which no data set has")
                limit = _MAX_MEMBER.get(PurePosixPath(member.name).suffix)
                if limit is not None and member.size > limit:
                    raise FileError(f"{member.name[:80]!r} has {member.size} bytes; the limit is {limit}")
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is not None:
                    yield member.name, stream.read() if limit is not None else b""
    except (
        tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError, zlib.error, lzma.LZMAError,
    ) as error:  # fmt: skip
        raise FileError(f"{shard} cannot be read as a tar archive: {error}") from error


def _take(
    dataset: DatasetFolder, path: PurePosixPath, data: bytes, prefix: str, where: str, report: TarReport
) -> tuple[str | None, str]:
    inside(dataset.root, str(path), what=where)
    outer = [part for part in path.parts[:-1] if part in _OUTER]
    inner = [part for part in path.parts[:-1] if part not in _OUTER and part != "."]
    if len(inner) > 1 and inner[0] == inner[1]:
        inner, report.renamed = inner[1:], report.renamed + 1
    head = [part for part in prefix.split("/") if part]
    if head and inner[: len(head)] == head:
        inner = inner[len(head) :]  # the archive says it, too
    # split files are read without space around names
    name = "/".join(part.strip() for part in [*head, *inner, path.stem])
    inside(dataset.root, name, what=where)
    kind = None
    if path.name.startswith("."):
        pass
    elif path.suffix == ".npy" and path.stem.lower() in ("mean", "std"):
        kind = "statistics"
        report.claim(f"mean_std/{path.stem.lower()}.npy", where, data)
        _write(dataset.root / "mean_std" / f"{path.stem.lower()}.npy", data)
    elif path.suffix == ".npy":
        kind = _take_array(dataset, name, data, where, report)
    elif path.suffix == ".txt":
        text = _text(data, where)
        kind = "splits" if "split" in outer else "captions"
        # a split keeps its own folders (version1/t2m_60_300/train), without the prefix of clips
        target = Path("split", *inner, path.name) if kind == "splits" else Path("texts", f"{name}.txt")
        report.claim(target.as_posix(), where, data)
        write_text(dataset.root / target, text)
    if kind is None:
        report.skipped.append(str(path))
    else:
        report.add(kind)
    return kind, name


def _take_array(dataset: DatasetFolder, name: str, data: bytes, where: str, report: TarReport) -> str:
    array = parse_npy(data, where, kind="number")
    if array.dtype.kind in "iu":
        report.claim(f"{CODES}/{name}.npy", where, data)
        _write(dataset.root / CODES / f"{name}.npy", data)
        return "codes"
    width = dataset.motion_format.width
    if array.ndim != 2 or array.shape[1] != width or array.dtype.kind != "f":
        raise FileError(
            f"{where}: expected (frames, {width}) of {dataset.representation} or codes, got {array.dtype} {array.shape}"
        )
    report.claim(f"motion_data/{name}.npy", where, data)
    dataset.write_motion(name, array)
    return "motions"


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{where} is not UTF-8 text: {error}") from error


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
