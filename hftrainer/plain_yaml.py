"""PyYAML's loader of plain data, with a limit on numbers; `hftrainer.readers.read_yaml` is what reads files."""

from __future__ import annotations

from typing import Any

import yaml
from yaml import YAMLError

__all__ = ["YAMLError", "load"]
_SAME_HASH = (1 << 61) - 1  # whole numbers from here on have the hashes of smaller ones


MAX_NODES = 50_000  # of the text; a million lines would take a minute
_MAX_MERGED = 50_000  # keys that `<<` copies
_MAX_DIGITS = 100  # 1:1:1:... counts by sixties, in time that grows with the square of its length


class Loader(yaml.SafeLoader):
    """Refuses what takes time or memory out of proportion to the text, such as numbers that, as keys, would take a
    dictionary time that grows with the square of their number."""

    def __init__(self, text: str):
        super().__init__(text)
        self._nodes = self._merged = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node more."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_NODES} items", self.get_mark())
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: Any) -> None:
        """Keys that `<<` copies are counted: lists of the same mapping, of lists of it, grow without end."""
        super().flatten_mapping(node)
        self._merged += len(node.value)
        if self._merged > MAX_NODES + _MAX_MERGED:
            raise yaml.constructor.ConstructorError(
                None, None, f"<< copies more than {_MAX_MERGED} keys", node.start_mark
            )

    def construct_yaml_int(self, node: Any) -> int:
        """A whole number of at most 61 bits."""
        _check_digits(node)
        value = int(super().construct_yaml_int(node))
        if abs(value) >= _SAME_HASH:
            raise yaml.constructor.ConstructorError(None, None, "a number of more than 61 bits", node.start_mark)
        return value

    def construct_yaml_float(self, node: Any) -> float:
        """A number."""
        _check_digits(node)
        return float(super().construct_yaml_float(node))


def _check_digits(node: Any) -> None:
    if len(node.value) > _MAX_DIGITS:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of more than {_MAX_DIGITS} letters", node.start_mark
        )


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_yaml_float)


def load(text: str) -> Any:
    """The value of a YAML text. Raises `YAMLError`."""
    try:
        return yaml.load(text, Loader=Loader)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # what conversions meet in values that are not of their tag: !!int '', !!bool x, !!timestamp x, 2001-99-99
        raise YAMLError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error
