"""Every model card there is: the package's, those of installed plug-ins, and the user's own folders of them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from hftrainer.config import ConfigError
from hftrainer.plugins import GROUP, load_plugins, plugin_failures
from hftrainer.registry import EVALUATORS, PIPELINES, REPRESENTATIONS
from hftrainer.zoo.schema import ModelCard, read_card

BUILT_IN = Path(__file__).parent / "models"
ENVIRONMENT = "HFTRAINER_ZOO"
PLUGIN_FOLDER = "cards"


@dataclass
class Zoo:
    """Cards by name, every file that claims a name or alias, and what is wrong with the others."""

    cards: dict[str, ModelCard] = field(default_factory=dict)
    claims: dict[str, list[ModelCard]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def cards() -> dict[str, ModelCard]:
    """Every card by name, sorted."""
    return dict(_zoo().cards)


def problems() -> list[str]:
    """A sentence for each card, or folder of cards, that cannot be used."""
    return list(_zoo().problems)


def find_card(name: str) -> ModelCard:
    """The card called `name`, or one that has it as an alias.

    `ConfigError`: an unknown name (lists the near ones), or one that two files claim (names both).
    """
    zoo = _zoo()
    claims = zoo.claims.get(name, [])
    if len(claims) == 1:
        return claims[0]
    if claims:
        raise ConfigError(_contested(name, claims))
    near = get_close_matches(name, zoo.claims, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    unread = [problem for problem in zoo.problems if f"{name}.yaml" in problem]
    broken = f" Its card cannot be used: {unread[0]}." if unread else ""
    if zoo.problems and not unread:
        broken = " Some cards cannot be used; `hftrainer zoo list` says why."
    raise ConfigError(
        f"there is no model called {name!r}.{hint}{broken} Known: {', '.join(zoo.cards)}; "
        "or give a model's folder, or owner/repository on the hub"
    )


def all_problems() -> list[str]:
    """`problems`, plug-ins that cannot be loaded, and cards whose pipeline, evaluator or representation is unknown.

    Loads every plug-in.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a plug-in's failure warns of is in the list
        load_plugins()
    homeless = [
        f"{card.file}: the {registry.kind} {name!r} of {card.name} is not installed; known: "
        f"{', '.join(registry.names())}"
        for card in _zoo().cards.values()
        for registry, name in ((PIPELINES, card.pipeline), (EVALUATORS, card.evaluator))
        if name is not None and ":" not in name and name not in registry.names()
    ]
    strange = [
        f"{card.file}: there is no representation {card.representation!r}; known: {', '.join(REPRESENTATIONS.names())}"
        for card in _zoo().cards.values()
        if card.representation is not None and card.representation not in REPRESENTATIONS.names()
    ]
    return [*problems(), *plugin_failures().values(), *homeless, *strange]


def card_folders() -> Iterator[Path]:
    """Where cards are: the package's folder, ``cards/`` in every plug-in's package, the folders of HFTRAINER_ZOO.

    A plug-in's package is found without importing it, so a plug-in that cannot be imported still shows its models.
    """
    seen = set()
    plugins = (folder for point in entry_points(group=GROUP) for folder in _plugin_folders(point.value))
    for folder in (BUILT_IN, *sorted(plugins), *_user_folders()):
        if folder.resolve() not in seen:
            seen.add(folder.resolve())
            yield folder


def _user_folders() -> list[Path]:
    texts = [text for text in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if text.strip()]
    return [Path(os.path.expanduser(text)) for text in texts]  # which does not fail for a user without a home


def _plugin_folders(entry_point: str) -> list[Path]:
    package = entry_point.partition(":")[0].partition(".")[0].strip()
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):  # a broken installation; loading the plug-in says so
        return []
    places = (spec.submodule_search_locations or []) if spec is not None else []
    return [folder for place in places if (folder := Path(place) / PLUGIN_FOLDER).is_dir()]


def _zoo() -> Zoo:
    return _collect(os.environ.get(ENVIRONMENT, ""), tuple(sys.path))


@lru_cache(maxsize=4)
def _collect(_environment: str, _path: tuple[str, ...]) -> Zoo:
    """Read all cards; the arguments are what decides where they are."""
    zoo = Zoo()
    found: list[ModelCard] = []
    for folder in card_folders():
        if not folder.is_dir():
            zoo.problems.append(f"{ENVIRONMENT} names {str(folder)!r}, which is not a folder")
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
            try:
                found.append(read_card(path))
            except ConfigError as error:
                zoo.problems.append(str(error))
    for card in found:
        for name in dict.fromkeys(card.names):
            zoo.claims.setdefault(name, []).append(card)
    for name, claims in zoo.claims.items():
        if len(claims) > 1:
            zoo.problems.append(_contested(name, claims))
            zoo.claims[name] = [card for card in claims if _is_built_in(card)] or claims
    named = {card.name: card for card in found if zoo.claims[card.name] == [card]}
    zoo.cards = dict(sorted(named.items()))
    return zoo


def _is_built_in(card: ModelCard) -> bool:
    return card.file is not None and card.file.parent == BUILT_IN


def _contested(name: str, claims: list[ModelCard]) -> str:
    first, *others = [str(card.file) for card in claims]
    files = f"{first} and {' and '.join(others)}"
    if _is_built_in(claims[0]):
        return f"the name {name!r} of the package's own card cannot be overridden: {files} both use it; rename yours"
    return f"the name {name!r} is used by {files}; rename one of them"
