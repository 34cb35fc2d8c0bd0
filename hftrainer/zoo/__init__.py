"""The models that have short names: a YAML card each, found by name."""

from hftrainer.zoo.collection import all_problems, cards, find_card, problems
from hftrainer.zoo.schema import ModelCard, memory, read_card

__all__ = ["ModelCard", "all_problems", "cards", "find_card", "memory", "problems", "read_card"]
