"""PyYAML's loader of plain data, with a limit on numbers; `hftrainer.readers.read_yaml` is what reads files."""

from __future__ import annotations

from typing import Any

import yaml
from yaml import YAMLError

__all__ = ["YAMLError", "load"]
_SAME_HASH = (1 << 61) - 1  # whole numbers from here on have the hashes of smaller ones


class Loader(yaml.SafeLoader):
    """Refuses numbers that, as keys, would take a dictionary time that grows with the square of their number."""

    def construct_yaml_int(self, node: Any) -> int:
        """A whole number of at most 61 bits."""
        value = int(super().construct_yaml_int(node))
        if abs(value) >= _SAME_HASH:
            raise yaml.constructor.ConstructorError(None, None, "a number of more than 61 bits", node.start_mark)
        return value


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)


def load(text: str) -> Any:
    """The value of a YAML text. Raises `YAMLError`, and what conversions of damaged values raise."""
    return yaml.load(text, Loader=Loader)
