"""Model cards: what a model is, where its files are, what it may be used for."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import yaml

from hftrainer.config import ConfigError, typed

_FOLDER = Path(__file__).parent / "models"


@dataclass
class ModelCard:
    """One model. `folders` are tried in order below the working directory and the repository, then `hub`.

    A model that generates names its `pipeline`, one that judges its `evaluator`.
    """

    name: str
    summary: str
    parameters: str
    license: str
    pipeline: str = ""
    evaluator: str = ""
    folders: list[str] = field(default_factory=list)
    hub: str | None = None
    aliases: list[str] = field(default_factory=list)
    leaderboard: bool = True
    notes: str = ""


@lru_cache
def cards() -> dict[str, ModelCard]:
    """Every card by name."""
    found = {}
    for path in sorted(_FOLDER.glob("*.yaml")):
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        found[path.stem] = typed(ModelCard, {"name": path.stem, **fields}, path=path.name)
    return found


def find_card(name: str) -> ModelCard:
    """The card called `name`, or one that has it as an alias; an unknown name lists the near ones."""
    by_alias = {alias: card for card in cards().values() for alias in card.aliases}
    if name in cards():
        return cards()[name]
    if name in by_alias:
        return by_alias[name]
    names = [*cards(), *by_alias]
    near = get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ConfigError(
        f"there is no model called {name!r}.{hint} Known: {', '.join(cards())}; "
        "or give a model's folder, or owner/repository on the hub"
    )
