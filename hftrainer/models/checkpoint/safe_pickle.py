"""Reading torch's pickles without running anything from them.

A pickle is a program that may call any function by name. Here a name is looked up in a table of our own functions,
which build sizes, containers and descriptions of tensors; no function or class that a file names is ever imported. A
name of a third party (a DeepSpeed class beside the weights, say) becomes a `Placeholder`, which keeps what it was
given and does nothing. A name of Python's own that is not in the table (``os.system``, ``builtins.eval``) is an
error: no weight file needs it.
"""

from __future__ import annotations

import io
import pickle
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hftrainer.models.checkpoint.errors import CheckpointError, UnsafeCheckpoint
from hftrainer.models.checkpoint.tensors import StorageRef, TensorRef

MAX_PICKLE = 512 << 20  # bytes; the structure of a checkpoint, not its tensors

STORAGE_DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}  # fmt: skip


@dataclass
class Unpickled:
    """What a pickle described, and the third-party names in it that became placeholders."""

    value: Any
    placeholders: set[str] = field(default_factory=set)


class Placeholder:
    """Stands for an object of a class that is not here; keeps what it was made from, inert.

    Each foreign name gets a subclass, because pickles make instances of classes.
    """

    name = ""
    arguments: tuple[Any, ...]
    state: Any
    items: list[Any]

    def __new__(cls, *arguments: Any, **_: Any) -> Placeholder:
        """Keep the arguments, call nothing."""
        made = super().__new__(cls)
        made.arguments, made.state, made.items = arguments, None, []
        return made

    def __init__(self, *_: Any, **__: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        """For pickles of list subclasses."""
        self.items.append(value)

    def extend(self, values: Any) -> None:
        """For pickles of list subclasses."""
        self.items.extend(values)

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"


def placeholder(name: str) -> type[Placeholder]:
    """The class that stands for a foreign name."""
    return type("Placeholder", (Placeholder,), {"name": name})


def load_pickle(stream: io.BufferedIOBase, path: Path, storage: Callable[[Any], StorageRef]) -> Unpickled:
    """Read one pickle. `storage` turns a persistent id, checked to be a storage's, into its place."""
    unpickler = _Unpickler(stream, path, storage)
    try:
        value = unpickler.load()
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except RecursionError as error:
        raise CheckpointError(f"{path}: its pickle is nested too deeply to be a checkpoint") from error
    except Exception as error:
        raise CheckpointError(f"{path}: its pickle is damaged ({type(error).__name__}: {error})") from error
    return Unpickled(value, unpickler.placeholders)


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BufferedIOBase, path: Path, storage: Callable[[Any], StorageRef]):
        super().__init__(stream, encoding="utf-8")
        self.path, self.storage = path, storage
        self.placeholders: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        """Never imports: one of our functions, a placeholder, or an error."""
        # older protocols write Python 2's names
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        known = _TABLE.get(full)
        if known is not None:
            return known
        if full == "builtins.getattr":  # Python 3.11.0 to 3.11.3 write a member of an enum as getattr(class, name)
            return self._member
        if module in ("torch", "torch.storage") and name in STORAGE_DTYPES:
            return _StorageType(name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("__main__", "builtins", "torch", "numpy", "hftrainer"):
            raise UnsafeCheckpoint(
                f"{self.path} asks for {full}, which no weight file needs; it was refused and nothing was run. "
                "Do not trust this file"
            )
        self.placeholders.add(full)
        return placeholder(full)

    def _member(self, owner: Any, name: Any = None, *_: Any) -> Any:
        """A member of a class that is a placeholder: one more placeholder. Nothing is looked up."""
        if isinstance(owner, type) and issubclass(owner, Placeholder) and isinstance(name, str):
            return owner(name)
        raise UnsafeCheckpoint(
            f"{self.path} asks for builtins.getattr of {type(owner).__name__}, which no weight file needs; it was "
            "refused and nothing was run. Do not trust this file"
        )

    def persistent_load(self, pid: Any) -> StorageRef:
        """A tensor's data, by place."""
        return self.storage(pid)


@dataclass(frozen=True)
class _StorageType:
    """A storage class by name; not callable, so a pickle can only hand it on."""

    name: str

    @property
    def dtype(self) -> torch.dtype:
        return STORAGE_DTYPES[self.name]


def storage_dtype(kind: Any) -> torch.dtype:
    """The dtype that the second field of a storage's persistent id means."""
    if isinstance(kind, _StorageType):
        return kind.dtype
    raise CheckpointError(f"a storage of type {kind!r} is not known")


# --- what names stand for ---------------------------------------------------------------------------------------------


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> TensorRef:
    if not isinstance(storage, StorageRef) or not isinstance(offset, int):
        raise CheckpointError(f"a tensor is described by {type(storage).__name__} and offset {offset!r}")
    ref = TensorRef(storage, _sizes(shape), _sizes(stride), offset)
    ref.check("a tensor")
    return ref


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _rebuild_from_type(function: Any, _type: Any, arguments: Any, _state: Any) -> Any:
    if function not in (_rebuild_tensor, _rebuild_parameter) or not isinstance(arguments, tuple):
        raise CheckpointError(f"a tensor is rebuilt by {function!r}, which is not known")
    return function(*arguments)


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or not all(type(v) is int and v >= 0 for v in values):
        raise CheckpointError(f"a tensor's sizes are {values!r}")
    return tuple(values)


class _Size(tuple):  # type: ignore[type-arg]
    """torch.Size as a tuple."""


def _make_size(values: Any = ()) -> _Size:
    return _Size(_sizes(values))


class _Dict(dict[Hashable, Any]):
    """An ordered or default dictionary; attributes that a pickle sets on it (torch's ``_metadata``) are dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _ordered_dict(items: Any = ()) -> _Dict:
    if not isinstance(items, (list, tuple)):
        raise CheckpointError(f"an ordered dictionary is made from a {type(items).__name__}")
    return _Dict(items)


def _default_dict(*_: Any) -> _Dict:
    return _Dict()


def _make_set(items: Any = ()) -> set[Any]:
    return set(items) if isinstance(items, (list, tuple)) else set()


class _NumpyDtype:
    """numpy.dtype by its letters; object arrays, which are pickles themselves, are refused."""

    def __init__(self, letters: Any, *_: Any):
        if not isinstance(letters, str) or letters.lstrip("<>=|")[:1] not in "fiubcSU":
            raise CheckpointError(f"a numpy array of type {letters!r} is not read")
        self.dtype = np.dtype(letters)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _NumpyArray:
    """numpy.ndarray: shape and bytes come with its state."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _NumpyDtype) or not isinstance(data, bytes):
            raise CheckpointError("a numpy array is not described by a type and bytes")
        shape = _sizes(shape)
        if prod(shape) * kind.dtype.itemsize != len(data):
            raise CheckpointError(f"a numpy array of shape {shape} has {len(data)} bytes")
        self.value = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")


def _numpy_reconstruct(*_: Any) -> _NumpyArray:
    return _NumpyArray()


def _numpy_scalar(kind: Any, data: Any = b"") -> Any:
    if not isinstance(kind, _NumpyDtype) or not isinstance(data, bytes) or len(data) != kind.dtype.itemsize:
        raise CheckpointError("a numpy number is not described by a type and its bytes")
    return np.frombuffer(data, kind.dtype)[0].item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise CheckpointError("bytes are not described by latin-1 text")
    return text.encode("latin1")


_INERT = placeholder("a type")
_TABLE: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "collections.Counter": _default_dict,
    "builtins.set": _make_set,
    "builtins.frozenset": _make_set,
    "builtins.dict": _default_dict,
    "builtins.list": _INERT,
    "builtins.int": _INERT,
    "builtins.float": _INERT,
    "builtins.bool": _INERT,
    "builtins.str": _INERT,
    "builtins.bytearray": _INERT,
    "builtins.object": _INERT,
    "_codecs.encode": _encode,
    "argparse.Namespace": placeholder("argparse.Namespace"),
    "pathlib.PosixPath": placeholder("pathlib.PosixPath"),
    "datetime.datetime": placeholder("datetime.datetime"),
    "torch.Size": _make_size,
    "torch.device": placeholder("torch.device"),
    "torch.Tensor": _INERT,
    "torch.nn.parameter.Parameter": _INERT,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "numpy.dtype": _NumpyDtype,
    "numpy.ndarray": _INERT,
    "numpy.core.multiarray._reconstruct": _numpy_reconstruct,
    "numpy._core.multiarray._reconstruct": _numpy_reconstruct,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}
