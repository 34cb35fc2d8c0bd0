"""The models that have short names: a YAML card each, found by name."""

from hftrainer.zoo.cards import ModelCard, cards, find_card

__all__ = ["ModelCard", "cards", "find_card"]
