"""The models that have short names: a YAML card each, found by name."""

from hftrainer.zoo.collection import cards, find_card, problems, without_class
from hftrainer.zoo.schema import ModelCard, memory, read_card

__all__ = ["ModelCard", "cards", "find_card", "memory", "problems", "read_card", "without_class"]
