"""A pretend CUDA machine: CPU numbers under the rules of CUDA, so that what only GPUs run is tested on every machine.

Tensors "on" a pretend device compute on the CPU. What goes wrong on a GPU goes wrong here: tensors of different devices
do not mix, what makes the host wait is counted by place, a graph replays the memory that it was captured with, work for
one device is not captured by a stream of another. Nothing is compiled; outside `machine()` torch is as it was.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from hftrainer.bench.pretend_kernels import OURS

PACKAGE = Path(__file__).parents[1]  # a clone may be called as the package is

_WAITS = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "bincount", "equal", "unique_consecutive"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
_COPIES = {"copy_", "_to_copy"}


_Tensor: Any = torch.Tensor  # whose signatures for type checkers allow no subclass that says it is elsewhere


class Pretend(_Tensor):  # type: ignore[misc]
    """A CPU tensor `inner` that says it is on `place`."""

    inner: torch.Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, inner: torch.Tensor, place: torch.device) -> Pretend:
        """Wrap a tensor."""
        made: Pretend = _Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device="cpu", requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner, made.place = inner.detach(), place
        return made

    @property
    def device(self) -> torch.device:
        """Where it says that it is."""
        return self.place

    @property
    def is_cuda(self) -> bool:
        """Always."""
        return True

    def data_ptr(self) -> int:
        """Of the CPU tensor."""
        return self.inner.data_ptr()

    def __repr__(self) -> str:
        return f"Pretend({self.inner!r}, {self.place})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return MACHINE[-1].dispatch(func, args, kwargs or {})


class Graph:
    """What a capture records: calls with their tensors; `replay` makes them again into the same memory."""

    def __init__(self, machine: Machine):
        self.machine, self.calls = machine, []  # type: ignore[var-annotated]
        self.before: dict[int, tuple[Any, Any]] = {}

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        """What runs on the current stream's device from now on is recorded."""
        assert capture_error_mode == "thread_local"
        self.device = self.machine.stream.device
        self.machine.capturing = self

    def capture_end(self) -> None:
        """Nothing that was captured has run."""
        self.machine.capturing = None
        for storage, was in self.before.values():  # nothing of a capture has run
            storage.copy_(was)
        self.before = {}
        self.machine.captures += 1

    def record(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a call, and remember it and what it wrote over."""
        for spec, value in zip(func._schema.arguments, args, strict=False):
            if spec.alias_info is not None and spec.alias_info.is_write and isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))  # type: ignore[no-untyped-call]
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    def replay(self) -> None:
        """All calls again, into the same memory."""
        self.machine.replays += 1
        if self.machine.replays > 20_000:
            raise AssertionError("20,000 replays: nothing ends this loop")
        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                again = func(*args, **kwargs)
                for old, new in zip(tree_flatten(out)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(old, torch.Tensor) and not _same_memory(old, new):
                        old.copy_(new)

    def pool(self) -> int:
        """Of memory; there is one."""
        return 1


def _same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


class Stream:
    """Of one device."""

    def __init__(self, device: torch.device):
        self.device = torch.device(device)

    def wait_stream(self, other: Stream) -> None:
        """Streams of one device only."""
        assert other.device == self.device


class Machine:
    """Devices `count`; what happened: host waits by place, captures, replays, kernels while `count_kernels`."""

    def __init__(self, count: int = 1, free: int = 60 << 30):
        self.devices, self.free, self.reserved, self.allocated = count, free, 0, 0
        self.current = 0
        self.stream = Stream(torch.device("cuda", 0))
        self.waits: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()
        self.capturing: Graph | None = None
        self.captures = self.replays = self.streams = 0

    def wait(self, why: str) -> None:
        """The host waits for the device here."""
        if self.capturing is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {why}")
        frames = [
            f for f in traceback.extract_stack() if PACKAGE in Path(f.filename).parents and f.filename != __file__
        ]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "test"
        self.waits[f"{where}: {why}"] += 1

    def dispatch(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation on tensors of which some are on a pretend device."""
        name = func._schema.name.split("::")[1]
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        places = {t.place for t in tensors if isinstance(t, Pretend)}
        mixed = [t for t in tensors if not isinstance(t, Pretend) and t.dim() > 0]
        if name not in _COPIES and (len(places) > 1 or (mixed and name not in _INDEXING)):
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} got {places}, {len(mixed)} cpu")
        if name in _WAITS or (name == "copy_" and (mixed or len(places) > 1)):
            self.wait(name)
        if name in _INDEXING:
            if mixed:
                self.wait("index on the host")
            if any(i is not None and i.dtype == torch.bool for i in args[1]):
                self.wait("index by truth values")
        place = next(iter(places))
        plain_args, plain_kwargs = tree_map(lambda t: t.inner if isinstance(t, Pretend) else t, (args, kwargs))
        func = OURS.get((name, func._overloadname), func)
        return self._wrap(self._run(func, plain_args, plain_kwargs, place), tensors, place)

    def _run(self, func: Any, args: Any, kwargs: Any, place: torch.device) -> Any:
        self.kernels[getattr(func, "__name__", str(func))] += 1
        with torch.no_grad():
            if self.capturing is not None and place == self.capturing.device:
                return self.capturing.record(func, args, kwargs)
            return func(*args, **kwargs)

    def _wrap(self, out: Any, inputs: list[torch.Tensor], place: torch.device) -> Any:
        known = {id(t.inner): t for t in inputs if isinstance(t, Pretend)}

        def wrapped(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            return known[id(value)] if id(value) in known else Pretend(value, place)

        return tree_map(wrapped, out)


MACHINE: list[Machine] = []


class _Functions(TorchFunctionMode):
    """Factories and moves that name a pretend device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        machine, kwargs = MACHINE[-1], dict(kwargs or {})
        name = getattr(func, "__name__", "")
        first = args[0] if args else None
        if name in ("to", "cpu", "cuda") and isinstance(first, torch.Tensor):
            return self._move(machine, func, name, first, args, kwargs)
        if name in ("tolist", "numpy") and isinstance(first, Pretend):
            machine.wait(name)
            return getattr(first.inner, name)()
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda":
            if name == "tensor":
                machine.wait("copy to the device")
            kwargs["device"] = "cpu"
            with torch._C.DisableTorchFunctionSubclass():
                made = func(*args, **kwargs)
                if isinstance(made, Pretend):
                    return made
                place = _placed(device, machine)
                if machine.capturing is not None and place == machine.capturing.device:
                    machine.capturing.calls.append((func, args, kwargs, made))
                return Pretend(made, place)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    def _move(self, machine: Machine, func: Any, name: str, x: torch.Tensor, args: Any, kwargs: Any) -> Any:
        inner = x.inner if isinstance(x, Pretend) else x
        here = x.place if isinstance(x, Pretend) else torch.device("cpu")
        rest: list[Any] = []
        there = here
        if name != "to":
            there = torch.device("cpu" if name == "cpu" else "cuda")
        for value in args[1:] if name == "to" else ():
            if isinstance(value, torch.Tensor):
                there, value = value.device, value.dtype
            if isinstance(value, (str, torch.device)):
                there = torch.device(value)
            elif isinstance(value, torch.dtype):
                rest.append(value)
        kwargs.pop("non_blocking", None)
        if kwargs.get("device") is not None:
            there = torch.device(kwargs.pop("device"))
        there = _placed(there, machine) if there.type == "cuda" else there
        with torch._C.DisableTorchFunctionSubclass():
            if there == here:
                return x.to(*rest, **kwargs) if rest or kwargs else x
            machine.wait(f"copy from {here.type} to {there.type}")
            moved = inner.detach().to(*rest, **kwargs).clone() if rest or kwargs else inner.detach().clone()
        return Pretend(moved, there) if there.type == "cuda" else moved


def _placed(device: Any, machine: Machine) -> torch.device:
    device = torch.device(device)
    return torch.device("cuda", machine.current if device.index is None else device.index)


@contextlib.contextmanager
def machine(**settings: Any) -> Iterator[Machine]:
    """A machine with pretend devices, while in it."""
    made = Machine(**settings)

    @contextlib.contextmanager
    def current(device: Any) -> Any:
        before, made.current = made.current, _placed(device, made).index
        yield
        made.current = before

    @contextlib.contextmanager
    def streaming(stream: Stream) -> Any:
        before, made.stream = made.stream, stream
        yield
        made.stream = before

    # classes, as other packages use their names in annotations

    class NewStream(Stream):
        def __init__(self, device: Any = None):
            made.streams += 1
            super().__init__(_placed(device or "cuda", made))

    class CUDAGraph(Graph):
        def __init__(self) -> None:
            super().__init__(made)

    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: made.devices,
        "device": current,
        "stream": streaming,
        "Stream": NewStream,
        "current_stream": lambda device=None: Stream(_placed(device or "cuda", made)),
        "CUDAGraph": CUDAGraph,
        "mem_get_info": lambda device=None: (made.free, 80 << 30),
        "memory_reserved": lambda device=None: made.reserved,
        "memory_allocated": lambda device=None: made.allocated,
        "empty_cache": lambda: None,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "get_device_name": lambda device=None: "pretend",
        "synchronize": lambda device=None: made.wait("synchronize"),
    }
    inference = torch.autograd.grad_mode.inference_mode
    convert = torch.__future__
    with contextlib.ExitStack() as patches:
        for name, value in cuda.items():
            patches.enter_context(mock.patch.object(torch.cuda, name, value))
        # tensors of a subclass cannot be inference tensors, nor can parameters become them in place
        patches.enter_context(mock.patch.object(inference, "__enter__", return_value=None))
        patches.enter_context(mock.patch.object(inference, "__exit__", return_value=None))
        patches.callback(
            convert.set_overwrite_module_params_on_conversion, convert.get_overwrite_module_params_on_conversion()
        )
        convert.set_overwrite_module_params_on_conversion(True)
        MACHINE.append(made)
        patches.callback(MACHINE.pop)
        with torch.no_grad(), _Functions():
            yield made
