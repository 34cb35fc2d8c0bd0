"""Reading torch's pickles without running anything from them.

A pickle is a program that may call any function by name. Here a name is looked up in a table of our own functions,
which build sizes, containers and descriptions of tensors; no function or class that a file names is ever imported. A
name of a third party (a DeepSpeed class beside the weights, say) becomes a `Placeholder`, which keeps what it was
given and does nothing. A name of Python's own that is not in the table (``os.system``, ``builtins.eval``) is an
error: no weight file needs it.
"""

from __future__ import annotations

import io
import re
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
from hftrainer.models.checkpoint.pickle_keys import check_key, short
from hftrainer.models.checkpoint.pickle_machine import Budget, run
from hftrainer.models.checkpoint.tensors import MAX_DIMENSIONS, MAX_SIZE, StorageRef, TensorRef
from hftrainer.shown import visible

MAX_PICKLE = 128 << 20  # bytes; the structure of a checkpoint, not its tensors
_MAX_NAMES = 10_000  # different foreign names in one file
_MAX_NAME = 500  # letters

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

    def __init__(self, *arguments: Any):
        self.arguments, self.state = arguments, None
        self.items: list[Any] = []

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"


def placeholder(name: str) -> type[Placeholder]:
    """The class that stands for a foreign name."""
    return type("Placeholder", (Placeholder,), {"name": name})


def load_pickle(stream: io.BufferedIOBase, path: Path, storage: Callable[[Any], StorageRef]) -> Unpickled:
    """Read one pickle. `storage` turns a persistent id, checked to be a storage's, into its place."""
    world = _World(path, storage)
    try:
        value = run(stream, world, Budget(bytes=MAX_PICKLE))
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise CheckpointError(f"{path}: its pickle is damaged ({reason})") from error
    return Unpickled(value, set(world.foreign))


class _World:
    """What a torch file's pickle may name, call and change: see the module's docstring."""

    def __init__(self, path: Path, storage: Callable[[Any], StorageRef]):
        self.path, self.storage = path, storage
        self.foreign: dict[str, type[Placeholder]] = {}

    def find(self, module: str, name: str) -> Any:
        """Never imports: one of our functions, a placeholder, or an error."""
        # older protocols write Python 2's names
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        known = _TABLE.get(full)
        if known is not None:
            return known
        if full == "builtins.getattr":  # Python 3.11.0 to 3.11.3 write a member of an enum as getattr(class, name)
            return _MEMBER
        if module in ("torch", "torch.storage") and name in STORAGE_DTYPES:
            return _StorageType(name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("__main__", "builtins", "torch", "numpy", "hftrainer"):
            raise UnsafeCheckpoint(
                f"{self.path} asks for {visible(full[:_MAX_NAME])}, which no weight file needs; it was refused and "
                "nothing was run. Do not trust this file"
            )
        if len(full) > _MAX_NAME or len(self.foreign) >= _MAX_NAMES:
            raise CheckpointError(f"it names more than {_MAX_NAMES} classes, or one in more than {_MAX_NAME} letters")
        return self.foreign.setdefault(full, placeholder(full))

    def call(self, function: Any, arguments: Any) -> Any:
        """One of our functions, a placeholder made, or an error."""
        if function is _MEMBER:
            return self._member(*arguments)
        if id(function) in _CALLABLE or (isinstance(function, type) and issubclass(function, Placeholder)):
            return function(*arguments)
        raise CheckpointError(f"its pickle calls {short(function)}")

    def state(self, made: Any, state: Any) -> None:
        """Only what was made from this pickle is given state, never what a name stands for."""
        if isinstance(made, Placeholder):
            made.state = state
        elif isinstance(made, (_NumpyDtype, _NumpyArray)):
            made.set_state(state)
        elif not isinstance(made, _Dict):  # attributes that torch sets on it (``_metadata``) are dropped
            raise CheckpointError(f"its pickle gives state to {short(made)}")

    def item(self, made: Any, key: Any, value: Any) -> None:
        """Items of ordered dictionaries and of placeholders."""
        if isinstance(made, _Dict):
            made[key] = value
        elif isinstance(made, Placeholder):
            made.items.append(value if key is None else (key, value))
        else:
            raise CheckpointError(f"its pickle puts an item into {short(made)}")

    def place(self, pid: Any) -> StorageRef:
        """A tensor's data, by place."""
        return self.storage(pid)

    def _member(self, owner: Any = None, name: Any = None, *_: Any) -> Any:
        """A member of a class that is a placeholder: one more placeholder. Nothing is looked up."""
        if isinstance(owner, type) and issubclass(owner, Placeholder) and isinstance(name, str):
            return owner(name)
        raise UnsafeCheckpoint(
            f"{self.path} asks for builtins.getattr of {short(owner)}, which no weight file needs; it was refused and "
            "nothing was run. Do not trust this file"
        )


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
    raise CheckpointError(f"a storage of type {short(kind)} is not known")


# --- what names stand for ---------------------------------------------------------------------------------------------


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> TensorRef:
    if not isinstance(storage, StorageRef) or not isinstance(offset, int):
        raise CheckpointError(f"a tensor is described by {type(storage).__name__} and offset {short(offset)}")
    ref = TensorRef(storage, _sizes(shape), _sizes(stride), offset)
    ref.check("a tensor")
    return ref


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _rebuild_from_type(function: Any, _type: Any, arguments: Any, _state: Any) -> Any:
    if (function is not _rebuild_tensor and function is not _rebuild_parameter) or not isinstance(arguments, tuple):
        raise CheckpointError(f"a tensor is rebuilt by {short(function)}, which is not known")
    return function(*arguments)


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > MAX_DIMENSIONS:
        raise CheckpointError(f"a tensor's sizes are {short(values)}, at most {MAX_DIMENSIONS} are expected")
    wrong = next((v for v in values if type(v) is not int or not 0 <= v < MAX_SIZE), None)
    if wrong is not None or any(v is None for v in values):
        raise CheckpointError(f"a tensor's sizes are none: {short(wrong)}")
    return tuple(values)


class _Size(tuple):  # type: ignore[type-arg]
    """torch.Size as a tuple."""


def _make_size(values: Any = ()) -> _Size:
    return _Size(_sizes(values))


class _Dict(dict[Hashable, Any]):
    """An ordered or default dictionary."""

    __slots__ = ()


def _ordered_dict(items: Any = ()) -> _Dict:
    if not isinstance(items, (list, tuple)) or not all(isinstance(i, (list, tuple)) and len(i) == 2 for i in items):
        raise CheckpointError(f"an ordered dictionary is made from {short(items)}, no list of pairs")
    return _Dict((check_key(key), value) for key, value in items)


def _default_dict(*_: Any) -> _Dict:
    return _Dict()


def _make_set(items: Any = ()) -> set[Any]:
    return set(map(check_key, items)) if isinstance(items, (list, tuple)) else set()


_LETTERS = re.compile(r"[<>=|]?[fiubcSU]\d{1,6}")


class _NumpyDtype:
    """numpy.dtype by its letters; object arrays, which are pickles themselves, are refused."""

    def __init__(self, letters: Any, *_: Any):
        if not isinstance(letters, str) or _LETTERS.fullmatch(letters) is None:
            raise CheckpointError(f"a numpy array of type {short(letters)} is not read")
        self.dtype = np.dtype(letters)

    def set_state(self, state: Any) -> None:
        """Byte order is the second field."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _NumpyArray:
    """numpy.ndarray: shape and bytes come with its state."""

    value: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """Version, shape, type, order and bytes."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise CheckpointError(f"a numpy array is described by {short(state)}")
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
_MEMBER = object()  # stands for getattr
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
_CALLABLE = {id(known) for known in _TABLE.values()}
