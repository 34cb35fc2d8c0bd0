"""A machine that runs pickles as data: it knows no import, no call but those of a `World`, and has budgets.

``pickletools`` takes a pickle apart into operations without running any. Here they build plain containers. What a
pickle may name, and what its calls mean, is the `World`'s; an object of anything else cannot come about. Sharing and
nesting cost a file nothing and a reader everything, so operations, bytes, time and depth are limited, and keys have to
be numbers or short text, whose hashes do not walk through what is nested.
"""

from __future__ import annotations

import io
import pickletools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from hftrainer.models.checkpoint.errors import CheckpointError
from hftrainer.models.checkpoint.pickle_keys import check_key, short

_MARK = object()
_LOOK = 4096  # operations between two looks at the clock


@dataclass(frozen=True)
class Budget:
    """What reading one pickle may take."""

    operations: int = 2_000_000
    bytes: int = 128 << 20
    seconds: float = 6.0
    depth: int = 100


class World(Protocol):
    """What the names, calls and places of a pickle mean."""

    def find(self, module: str, name: str) -> Any:
        """What a name stands for."""

    def call(self, function: Any, arguments: Any) -> Any:
        """What calling it makes."""

    def state(self, made: Any, state: Any) -> None:
        """Give a made object its state."""

    def item(self, made: Any, key: Any, value: Any) -> None:
        """Put an item into a made object; `key` is None for list-like ones."""

    def place(self, pid: Any) -> Any:
        """What a persistent id stands for."""


class _Limited:
    """The bytes of a stream, no more than a budget of them; lengths that cannot be there are not allocated."""

    def __init__(self, stream: io.BufferedIOBase, limit: int):
        self._stream, self._left = stream, limit

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._left:
            raise CheckpointError("its pickle is damaged, or larger than a structure of tensors is")
        data = self._stream.read(size)
        self._left -= len(data)
        return data

    def readline(self) -> bytes:
        data = self._stream.readline(1 << 16)
        self._left -= len(data)
        if self._left < 0 or not data.endswith(b"\n"):
            raise CheckpointError("its pickle is damaged: a line has no end")
        return data


def run(stream: io.BufferedIOBase, world: World, budget: Budget) -> Any:
    """The value of the pickle that begins here; the stream is left behind its end. Raises `CheckpointError`, and what
    `pickletools` raises for damage."""
    machine = _Machine(world)
    limited: Any = _Limited(stream, budget.bytes)
    end = time.monotonic() + budget.seconds
    for number, (operation, argument, _) in enumerate(pickletools.genops(limited)):
        if number >= budget.operations:
            raise CheckpointError(f"its pickle takes more than {budget.operations} operations")
        if number % _LOOK == 0 and time.monotonic() > end:
            raise CheckpointError(f"its pickle takes longer than {budget.seconds:g} s")
        if operation.name == "STOP":
            value = machine.pop()
            check_depth(value, budget.depth)
            return value
        machine.step(operation.name, argument)
    raise CheckpointError("its pickle is damaged: it has no end")


def check_depth(value: Any, limit: int) -> None:
    """Raise `CheckpointError` if containers nest deeper than `limit`, or in themselves. Each is looked at once."""
    inside: set[int] = set()
    done: dict[int, int] = {}  # id of a container to the depth below it
    stack: list[tuple[Any, bool]] = [(value, False)]
    while stack:
        held, leaving = stack.pop()
        key = id(held)
        if leaving:
            inside.discard(key)
            done[key] = 1 + max((done.get(id(child), 0) for child in _children(held)), default=0)
            if done[key] > limit:
                raise CheckpointError(f"its pickle is nested deeper than {limit}, too deeply to be a checkpoint")
        elif key in inside:
            raise CheckpointError("its pickle holds a container that is in itself")
        elif key not in done and isinstance(held, (dict, list, tuple, set, frozenset)):
            inside.add(key)
            stack.append((held, True))
            stack.extend((child, False) for child in _children(held))


def _children(held: Any) -> list[Any]:
    found = held.values() if isinstance(held, dict) else held if isinstance(held, (list, tuple, set, frozenset)) else ()
    return [child for child in found if isinstance(child, (dict, list, tuple, set, frozenset))]


class _Machine:
    def __init__(self, world: World):
        self.world = world
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise CheckpointError("its pickle is damaged: it takes from an empty stack")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise CheckpointError("its pickle is damaged: it takes to a mark that is not there")

    @property
    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise CheckpointError("its pickle is damaged: it looks at an empty stack")
        return self.stack[-1]

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _PLAIN:
            self.stack.append(_plain(name, argument))
        else:
            action = _ACTIONS.get(name)
            if action is None:
                raise CheckpointError(f"its pickle has the operation {name}, which no weight file needs")
            action(self, argument)

    # --- stack and memo -------------------------------------------------------------------------------------------

    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def drop(self, _: Any) -> None:
        if not self.stack:
            raise CheckpointError("its pickle is damaged: it takes from an empty stack")
        self.stack.pop()

    def drop_mark(self, _: Any) -> None:
        self.pop_mark()

    def repeat(self, _: Any) -> None:
        self.stack.append(self.top)

    def get(self, index: Any) -> None:
        try:
            self.stack.append(self.memo[int(index)])
        except KeyError:
            raise CheckpointError(
                f"its pickle is damaged: it asks for number {index} of its memo, which is not there"
            ) from None

    def put(self, index: Any) -> None:
        self.memo[int(index)] = self.top

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.top

    def nothing(self, _: Any) -> None:
        """Protocol number and frames: what is in them comes as operations anyway."""

    # --- containers -----------------------------------------------------------------------------------------------

    def some_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.pop_mark()))

    def tuple_of(self, size: int) -> None:
        items = [self.pop() for _ in range(size)]
        self.stack.append(tuple(reversed(items)))

    def some_list(self, _: Any) -> None:
        self.stack.append(self.pop_mark())

    def some_dict(self, _: Any) -> None:
        items = self.pop_mark()
        made: dict[Any, Any] = {}
        self._set(made, items)
        self.stack.append(made)

    def some_frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(map(check_key, self.pop_mark())))

    def append_one(self, _: Any) -> None:
        item = self.pop()
        self._extend(self.top, [item])

    def append_many(self, _: Any) -> None:
        items = self.pop_mark()
        self._extend(self.top, items)

    def set_one(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._set(self.top, [key, value])

    def set_many(self, _: Any) -> None:
        items = self.pop_mark()
        self._set(self.top, items)

    def add_many(self, _: Any) -> None:
        items, made = self.pop_mark(), self.top
        if type(made) is not set:
            raise CheckpointError(f"its pickle adds to {short(made)}, which is no set")
        made.update(map(check_key, items))

    def _extend(self, made: Any, items: list[Any]) -> None:
        if type(made) is list:
            made.extend(items)
        else:
            for item in items:
                self.world.item(made, None, item)

    def _set(self, made: Any, items: list[Any]) -> None:
        if len(items) % 2:
            raise CheckpointError("its pickle is damaged: it has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(made) is dict:
                made[check_key(key)] = value
            else:
                self.world.item(made, check_key(key), value)

    # --- names, calls, places -------------------------------------------------------------------------------------

    def name(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self.stack.append(self.world.find(module, name))

    def name_from_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise CheckpointError("its pickle is damaged: it asks for a name that is no text")
        self.stack.append(self.world.find(module, name))

    def call(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        self._call(function, arguments)

    def call_with_names(self, _: Any) -> None:
        self.pop()  # keyword arguments, which nothing here takes
        self.call(None)

    def call_marked(self, argument: Any) -> None:
        items = self.pop_mark()
        if argument is None:  # OBJ: the class is the first item
            if not items:
                raise CheckpointError("its pickle is damaged: it makes an object of no class")
            self._call(items[0], tuple(items[1:]))
        else:  # INST: the class is the operation's argument
            module, _, name = str(argument).partition(" ")
            self._call(self.world.find(module, name), tuple(items))

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple):
            raise CheckpointError(f"its pickle calls with {short(arguments)}, no tuple of arguments")
        self.stack.append(self.world.call(function, arguments))

    def build(self, _: Any) -> None:
        state, made = self.pop(), self.top
        self.world.state(made, state)

    def place(self, argument: Any) -> None:
        self.stack.append(self.world.place(argument))

    def place_from_stack(self, _: Any) -> None:
        self.stack.append(self.world.place(self.pop()))


def _plain(name: str, argument: Any) -> Any:
    if name in _TEXTS_OF_PYTHON_2:
        return argument.encode("latin-1").decode("utf-8", "replace") if isinstance(argument, str) else argument
    if isinstance(argument, int) and argument.bit_length() > 128:
        raise CheckpointError("its pickle holds a number of more than 128 bits")
    return argument


_TEXTS_OF_PYTHON_2 = ("STRING", "BINSTRING", "SHORT_BINSTRING")
_PLAIN = {
    *_TEXTS_OF_PYTHON_2, "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple, "EMPTY_LIST": list,
    "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.nothing, "FRAME": _Machine.nothing, "MARK": _Machine.mark, "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_mark, "DUP": _Machine.repeat, "GET": _Machine.get, "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get, "PUT": _Machine.put, "BINPUT": _Machine.put, "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize, "TUPLE": _Machine.some_tuple, "LIST": _Machine.some_list, "DICT": _Machine.some_dict,
    "FROZENSET": _Machine.some_frozenset, "APPEND": _Machine.append_one, "APPENDS": _Machine.append_many,
    "SETITEM": _Machine.set_one, "SETITEMS": _Machine.set_many, "ADDITEMS": _Machine.add_many, "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_from_stack, "REDUCE": _Machine.call, "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_names, "INST": _Machine.call_marked, "OBJ": _Machine.call_marked,
    "BUILD": _Machine.build, "PERSID": _Machine.place, "BINPERSID": _Machine.place_from_stack,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
}  # fmt: skip
