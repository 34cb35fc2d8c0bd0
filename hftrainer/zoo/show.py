"""Cards as text for a terminal and as plain data for JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from hftrainer.config import ConfigError
from hftrainer.zoo.files import local_folder
from hftrainer.zoo.schema import BYTES_PER_VALUE, TASKS, ModelCard, memory

_WIDTH = 110


def select(
    cards: Iterable[ModelCard], *, task: str | None = None, representation: str | None = None
) -> list[ModelCard]:
    """The cards with that task and that representation; `ConfigError` for a task that does not exist."""
    if task is not None and task not in TASKS:
        raise ConfigError(f"there is no task {task!r}; tasks: {', '.join(TASKS)}")
    cards = list(cards)
    known = sorted({card.representation for card in cards if card.representation})
    if representation is not None and representation not in known:
        raise ConfigError(f"no card has the representation {representation!r}; those with cards: {', '.join(known)}")
    return [card for card in cards if task in (None, card.task) and representation in (None, card.representation)]


def table(cards: list[ModelCard]) -> str:
    """A line a card."""
    if not cards:
        return "no model fits"
    head = ("name", "task", "representation", "parameters", "files", "commercial use", "summary")
    rows = [
        (
            card.name, card.task, card.representation or "-", count(card.parameters), where(card),
            yes_or_no(card.licence.commercial), card.summary,
        )
        for card in cards
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]])
        for row in [head, *rows]
    )


def text(card: ModelCard) -> str:
    """All of a card, a field a line."""
    licence, board = card.licence, card.leaderboard
    lines = [("name", card.name), ("aliases", ", ".join(card.aliases)), ("summary", card.summary), ("task", card.task)]
    lines += [("representation", card.representation or ""), ("pipeline", card.pipeline or "")]
    lines += [("evaluator", card.evaluator or ""), ("parameters", parts_text(card)), ("memory", memory_text(card))]
    lines += [("files", files_text(card)), ("licence", licence.name)]
    lines += [
        ("  commercial use", yes_or_no(licence.commercial)),
        ("  redistribution", yes_or_no(licence.redistribution)),
    ]
    lines += [("  attribution", licence.attribution), ("  url", licence.url), ("  notes", licence.notes)]
    lines += [("leaderboard", f"{'eligible' if board.eligible else 'not eligible'}: {board.reason}")]
    for result in card.results:
        values = ", ".join(f"{key} {value:g}" for key, value in result.values.items())
        clips = f", {result.clips} clips" if result.clips else ""
        lines.append((f"{result.protocol}", f"{values} ({result.origin}{clips}; {result.source})"))
    lines += [("guide", card.guide), ("notes", card.notes), ("card", str(card.file or ""))]
    shown = [_field(name, value) for name, value in lines if value]
    return "\n".join([*shown, *(["", card.citation.rstrip()] if card.citation else [])])


def describe(card: ModelCard) -> dict[str, Any]:
    """A card as plain data, with what is computed from it."""
    folder = local_folder(card)
    return {
        **asdict(card),
        "parameters": card.parameters,
        "memory_bytes": {dtype: memory(card, dtype) for dtype in BYTES_PER_VALUE},
        "folder": None if folder is None else str(folder),
        "card": None if card.file is None else str(card.file),
    }


def vocabulary_text(words: Mapping[str, Mapping[str, int]]) -> str:
    """Words by group, the frequent ones first; of all the words in captions only their number."""
    lines = []
    for group, counts in words.items():
        if group == "words":
            lines.append(f"words: {len(counts)} different ones in captions; --json lists them")
            continue
        lines.append(f"{group}:")
        width = max(map(len, counts), default=0)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        lines += [f"  {word:{width}}  {n}" for word, n in ordered]
    return "\n".join(lines)


def parts_text(card: ModelCard) -> str:
    """Parameters, in all and by part."""
    parts = ", ".join(f"{part.name} {count(part.parameters)}" for part in card.parts)
    return f"{count(card.parameters)}: {parts}"


def memory_text(card: ModelCard) -> str:
    """Weights by dtype, and what each motion that is generated at the same time adds."""
    sizes = {dtype: memory(card, dtype) for dtype in ("float32", "bfloat16")}
    if len(set(sizes.values())) == 1:
        return f"{size(sizes['float32'])} of weights"
    weights = ", ".join(f"{size(n)} in {dtype}" for dtype, n in sizes.items())
    more = memory(card, "bfloat16", motions=1) - sizes["bfloat16"]
    return f"weights {weights}" + (f"; {size(more)} more for each motion of a batch in bfloat16" if more else "")


def files_text(card: ModelCard) -> str:
    """Where the files are, and where they come from."""
    folder = local_folder(card)
    places = [str(folder)] if folder is not None else [f"not in {' or '.join(card.folders)}"] if card.folders else []
    if card.hub is not None:
        pinned = f"commit {card.hub.revision}" if card.hub.revision else "not pinned to a commit"
        places.append(f"hub: {card.hub.repository} ({pinned})")
    if card.files:
        places.append(f"{len(card.files)} hashes in the card")
    return "; ".join(places)


def where(card: ModelCard) -> str:
    """One word: "here", "hub" or "-"."""
    return "here" if local_folder(card) is not None else "hub" if card.hub is not None else "-"


def yes_or_no(value: bool | None) -> str:
    """What a licence says."""
    return "not stated" if value is None else "yes" if value else "no"


def count(n: int) -> str:
    """1234567 as "1.2 M"."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if n >= unit:
            return f"{n / unit:.3g} {name}" if n < 1000 * unit else f"{n / unit:.0f} {name}"
    return str(n)


def size(n: int) -> str:
    """Bytes as "15.6 GB" (powers of ten)."""
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"


def _field(name: str, value: str) -> str:
    words, room = " ".join(value.split()), _WIDTH - 26
    first, *rest = textwrap.wrap(words, room, break_on_hyphens=False, break_long_words=False)
    return "\n".join([f"{name:25} {first}", *(f"{'':26}{line}" for line in rest)])
