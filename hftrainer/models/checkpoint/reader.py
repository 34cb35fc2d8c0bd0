"""One reader for every form in which weights come.

    safetensors                 a file, or the index of a sharded one
    torch zip file              under any name: .pth .pt .ckpt .zip
    torch legacy file           before torch 1.6
    zip archive                 around one of the others, or around a DeepSpeed folder
    DeepSpeed folder            ZeRO 1, 2 and 3: fp32 weights gathered from all ranks

Opening reads only the structure. Tensors are memory-mapped on access, so what is not wanted (an
optimizer state) is never read, and nothing that a file names is imported or run (`safe_pickle`).
"""

from __future__ import annotations

import os
import shutil
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from hftrainer.files import temporary_folder
from hftrainer.models.checkpoint import deepspeed
from hftrainer.models.checkpoint.errors import CheckpointError
from hftrainer.models.checkpoint.pickle_keys import short
from hftrainer.models.checkpoint.safe_pickle import Unpickled
from hftrainer.models.checkpoint.safetensors import read_safetensors
from hftrainer.models.checkpoint.tensors import Mappings, TensorRef
from hftrainer.models.checkpoint.torch_legacy import read_torch_legacy
from hftrainer.models.checkpoint.torch_zip import copy_entry, is_torch_zip, open_zip, read_torch_zip, verify_zip
from hftrainer.readers import check_regular, check_type, inside, json_field, read_json

INDEX_SUFFIX = ".index.json"
KEYS = ("state_dict", "trans", "net", "model", "module")
_MAX_RATIO = 50  # weights hardly compress; a zip that grows more than this is no checkpoint
_SMALL = 64 << 20
_MAX_ARCHIVES = 3  # archives in archives
_MAX_MEMBERS = 10_000  # of an archive around weights; DeepSpeed writes two files a GPU
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".zip")


class Checkpoint(Mapping[str, Tensor]):
    """Tensors by name, loaded when they are asked for.

    `form` says what was read; `placeholders` the third-party classes in it that were not loaded; `shape_of` and
    `dtype_of` answer without loading. A tensor that is changed in place while it is alive is changed for who asks this
    object for it again; another `open_checkpoint` of the file, and the file, know nothing of it.
    """

    def __init__(self, path: Path, form: str, tensors: Mapping[str, Any], placeholders: set[str] | None = None):
        self.path, self.form = path, form
        self.placeholders = placeholders or set()
        self._tensors = dict(tensors)
        self._mappings = Mappings()

    def __getitem__(self, name: str) -> Tensor:
        found: Tensor = self._tensors[name].load(self._mappings)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def dtype_of(self, name: str) -> Any:
        """Type of a tensor."""
        return self._tensors[name].dtype

    def bytes_of(self, name: str) -> int:
        """Size of a tensor."""
        return int(self._tensors[name].nbytes)

    def renamed(self, names: Mapping[str, str]) -> Checkpoint:
        """The tensors `names[new] = old` under their new names."""
        out = Checkpoint(
            self.path, self.form, {new: self._tensors[old] for new, old in names.items()}, self.placeholders
        )
        out._keep = self  # type: ignore[attr-defined]  # an unpacked archive lives as long as its tensors may be asked for
        return out


# what parsers of hostile bytes meet besides what they look for; none of it is this program's state
_DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RecursionError, RuntimeError, TypeError,
    ValueError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def open_checkpoint(
    path: str | os.PathLike[str], *, keys: Sequence[str] = KEYS, prefix: str = "", verify: bool = False
) -> Checkpoint:
    """Open a weight file or DeepSpeed folder of any form.

    `keys`: where a torch file may keep its state dict, tried in order; without any of them the file itself is the state
    dict. A ``module.`` prefix is removed from names; with `prefix`, only names that start with it are kept, without it.
    `verify` reads complete torch zip files and compares their checksums.
    """
    path = Path(path)
    try:
        if path.is_dir():
            found = _open_folder(path)
        elif path.is_file():
            found = _open_file(path, keys, verify)
        else:
            raise CheckpointError(f"there is no weight file {str(path)!r}")
    except CheckpointError:
        raise
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise CheckpointError(f"{path} is damaged, or no weight file ({reason})") from error
    names = {name.removeprefix("module."): name for name in found}
    if prefix:
        names = {new.removeprefix(prefix): old for new, old in names.items() if new.startswith(prefix)}
        if not names:
            raise CheckpointError(
                f"{path}: no tensor's name starts with {prefix!r}; it holds e.g. {next(iter(found), None)!r}"
            )
    return found.renamed(names)


def _open_file(path: Path, keys: Sequence[str], verify: bool, *, unpacked: int = 0) -> Checkpoint:
    if path.name.endswith(INDEX_SUFFIX):
        return Checkpoint(path, "sharded safetensors", _read_index(path))
    with open(path, "rb") as stream:
        start = stream.read(16)
    if start[:4] == b"PK\x03\x04":
        if is_torch_zip(path):
            if verify:
                verify_zip(path)
            return _select(path, "torch zip", read_torch_zip(path), keys)
        if unpacked >= _MAX_ARCHIVES:
            raise CheckpointError(f"{path} is an archive in {unpacked} others; no weights are packed like that")
        return _open_archive(path, keys, verify, unpacked + 1)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return Checkpoint(path, "safetensors", read_safetensors(path))
    if start[:1] == b"\x80":
        return _select(path, "torch legacy", read_torch_legacy(path), keys)
    raise CheckpointError(
        f"{path} is neither safetensors nor a torch file nor a zip archive: it starts with {start!r} and holds "
        f"{path.stat().st_size} bytes"
    )


def _select(path: Path, form: str, read: Unpickled, keys: Sequence[str]) -> Checkpoint:
    """The state dict in what a torch file holds."""
    value = read.value
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a dictionary of tensors, got a {type(value).__name__}")
    chosen = next((value[key] for key in keys if isinstance(value.get(key), dict)), value)
    wrong = {str(name): item for name, item in chosen.items() if not isinstance(item, TensorRef)}
    if wrong or not chosen:
        name, item = next(iter(wrong.items()), ("nothing", None))
        raise CheckpointError(
            f"{path}: expected tensors by name, or one of the keys {list(keys)}; found {name!r}: "
            f"{short(item)} among {len(chosen)} entries"
        )
    return Checkpoint(path, form, {str(name): ref for name, ref in chosen.items()}, read.placeholders)


def _read_index(index: Path) -> dict[str, TensorRef]:
    table = json_field(read_json(index, error=CheckpointError), "weight_map", dict, index, error=CheckpointError)
    if not table:
        raise CheckpointError(f"{index} names no tensors: its weight_map is empty")
    for name, shard in table.items():
        check_type(shard, str, f"{index}, the shard of {name[:80]!r}", error=CheckpointError)
    tensors: dict[str, TensorRef] = {}
    for shard in sorted(set(table.values())):
        file = inside(index.parent, shard, what=f"{index}, a shard", error=CheckpointError)
        if not file.is_file():
            raise CheckpointError(f"{index}: its shard {shard!r} is missing")
        held = read_safetensors(file)
        for name in (name for name, where in table.items() if where == shard):
            if name not in held:
                raise CheckpointError(f"{index}: {name} should be in {shard}, which does not have it")
            tensors[name] = held[name]
    return tensors


def _open_folder(path: Path) -> Checkpoint:
    indexes = sorted(path.glob(f"*{INDEX_SUFFIX}"))
    if deepspeed.is_deepspeed(path):
        tensors, stage, placeholders = deepspeed.read_deepspeed(path, lambda file: _read_any_torch(file))
        return Checkpoint(path, f"DeepSpeed ZeRO {stage}", tensors, placeholders)
    if len(indexes) == 1:
        return Checkpoint(path, "sharded safetensors", _read_index(indexes[0]))
    raise CheckpointError(f"{path} is neither a DeepSpeed checkpoint nor a sharded one")


def _read_any_torch(path: Path) -> Unpickled:
    check_regular(path, error=CheckpointError)
    with open(path, "rb") as stream:
        start = stream.read(4)
    return read_torch_zip(path) if start == b"PK\x03\x04" else read_torch_legacy(path)


# --- archives -------------------------------------------------------------------------------------------------------


def _open_archive(path: Path, keys: Sequence[str], verify: bool, depth: int) -> Checkpoint:
    """A zip around a weight file or a DeepSpeed folder: unpacked beside the temporary files, gone with the result, or
    at the next start if this process is killed."""
    folder = temporary_folder("unpacked")
    try:
        members = _unpack(path, folder)
        target = _weights_among(path, folder, members)
        found = _open_folder(target) if target.is_dir() else _open_file(target, keys, verify, unpacked=depth)
    except (CheckpointError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        kind = type(error) if isinstance(error, CheckpointError) else CheckpointError
        said = " ".join(map(str, error.args)).replace(f"{folder}", f"in {path}: ")  # the folder is gone, and nobody's
        raise kind(said if str(path) in said else f"{path}: {said}") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    found.form = f"zip archive of {found.form}"
    weakref.finalize(found, shutil.rmtree, folder, True)
    return found


def _unpack(path: Path, folder: Path) -> list[Path]:
    with open_zip(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if len(entries) > _MAX_MEMBERS:
            raise CheckpointError(f"{path} has {len(entries)} files in it; no checkpoint has more than {_MAX_MEMBERS}")
        whole = sum(entry.file_size for entry in entries)
        packed = max(1, path.stat().st_size)
        if whole > _SMALL and whole > _MAX_RATIO * packed:
            raise CheckpointError(
                f"{path} would grow from {packed} to {whole} bytes; weights do not compress that well"
            )
        if whole > shutil.disk_usage(folder).free:
            raise CheckpointError(
                f"{path} needs {whole} bytes of temporary space in {folder.parent}; set TMPDIR to a larger disk"
            )
        members = []
        for entry in entries:
            out = folder / PurePosixPath(entry.filename)
            out.parent.mkdir(parents=True, exist_ok=True)
            copy_entry(archive, entry, out, path)
            members.append(out)
    return members


def _weights_among(path: Path, folder: Path, members: list[Path]) -> Path:
    for inner in (folder, *sorted({member.parent for member in members}, key=lambda p: len(p.parts))):
        if deepspeed.is_deepspeed(inner):
            return inner
    candidates = [m for m in members if m.suffix in _WEIGHT_SUFFIXES or m.name.endswith(INDEX_SUFFIX)]
    indexes = [m for m in candidates if m.name.endswith(INDEX_SUFFIX)]
    if len(indexes) == 1:
        return indexes[0]
    if len(candidates) != 1:
        names = [str(m.relative_to(folder)) for m in members][:5]
        raise CheckpointError(f"{path}: expected one weight file in the archive, found {len(candidates)} among {names}")
    return candidates[0]
