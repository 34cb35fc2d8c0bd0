"""From names to items: which caption and which frames of which clip are evaluated. No file is opened.

`entries` are what a protocol's rules leave of a data set; `draw` makes the choices that chance decides, the same ones
for the same seed. Generation for a protocol with random captions or crops calls `draw` first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from typing import Protocol as Structure

import numpy as np

from hftrainer.evaluation.protocols.schema import CropRule, Protocol

SECOND_PASS = 100_003  # repeats are counted from here for a second drawing


class CaptionLine(Structure):
    """A caption, as `hftrainer.data.folder.Caption` is one: about the full clip where start and end are 0."""

    @property
    def text(self) -> str:
        """The sentence."""

    @property
    def start(self) -> float:
        """Seconds."""

    @property
    def end(self) -> float:
        """Seconds."""


@dataclass(frozen=True)
class Entry:
    """Captions that mean the frames `start` to `end` of clip `id`; `key` is its name in reports."""

    key: str
    id: str
    captions: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Item:
    """One caption and the `frames` frames of clip `id`, from `start` on, that are evaluated with it."""

    key: str
    id: str
    caption: str
    start: int
    frames: int


@dataclass
class Entries:
    """The items, in order, and dropped names by reason."""

    kept: list[Entry] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def entries(
    protocol: Protocol,
    ids: Iterable[str],
    captions: Mapping[str, Sequence[CaptionLine]],
    frames: Mapping[str, int],
) -> Entries:
    """Apply the caption rule and the length filter to clips, in the order of `ids`.

    The length of the full clip is looked at first: parts of a clip that is filtered out are left out too. A clip of
    less than one unit is dropped. Nothing is dropped without a reason in the result.
    """
    out = Entries()
    for name in ids:
        if name not in frames:
            raise ValueError(f"clip {name} has no length, but {protocol.name} needs it; is its motion missing?")
        if not protocol.lengths.allows(frames[name]):
            out.dropped[f"length outside {_range(protocol)}"].append(name)
        elif protocol.crop.length != "full" and frames[name] < protocol.crop.unit:
            out.dropped[f"shorter than {protocol.crop.unit} frames"].append(name)
        else:
            _add(out, protocol, name, captions.get(name, ()), frames[name])
    out.dropped = dict(out.dropped)
    return out


def _add(out: Entries, protocol: Protocol, name: str, lines: Sequence[Any], frames: int) -> None:
    rule = protocol.captions
    read = [(getattr(line, rule.read), line.start, line.end) for line in lines]
    if any(not text for text, _, _ in read):
        raise ValueError(f"clip {name}: a caption has no {rule.read}, which {protocol.name} requires")
    full = [text for text, start, end in read if start == 0 and end == 0]
    if rule.rule == "only" and len(full) != 1:
        raise ValueError(f"clip {name} has {len(full)} captions of the full clip; {protocol.name} needs exactly one")
    if not full and not rule.subclips:
        out.dropped["no caption of the full clip"].append(name)
        return
    if rule.rule == "each":
        out.kept += [Entry(f"{name}#{i}", name, (text,), 0, frames) for i, text in enumerate(full)]
    elif full:
        kept = full[:1] if rule.rule == "first" else full
        out.kept.append(Entry(name, name, tuple(kept), 0, frames))
    if not rule.subclips:
        return
    parts = [(text, int(start * protocol.fps), int(end * protocol.fps)) for text, start, end in read if start or end]
    for number, (text, start, end) in enumerate(parts):
        end = min(end, frames)
        key = f"{name}@{number}"
        if protocol.lengths.allows(end - start):
            out.kept.append(Entry(key, name, (text,), start, end))
        else:
            out.dropped[f"segment with a length outside {_range(protocol)}"].append(key)


def draw(protocol: Protocol, kept: Sequence[Entry], repeat: int = 0) -> list[Item]:
    """The items of one repeat: a caption, then a crop, drawn entry by entry from one stream of ``seed + repeat``."""
    rng = stream(protocol, repeat)
    items = []
    for entry in kept:
        caption = entry.captions[0]
        if protocol.captions.rule == "random":
            caption = entry.captions[int(rng.choice(len(entry.captions)))]
        start, frames = _crop(protocol.crop, entry.end - entry.start, rng)
        items.append(Item(entry.key, entry.id, caption, entry.start + start, frames))
    return items


def prediction_frames(
    protocol: Protocol, items: Sequence[Item], lengths: Sequence[int], repeat: int = 0
) -> list[tuple[int, int]]:
    """Start and number of frames that are seen of each prediction, given how many it has (at least one unit)."""
    rule = protocol.prediction
    capped = [min(n, rule.max_frames or n) for n in lengths]
    if rule.crop == "own":
        rng = stream(protocol, repeat)
        return [_crop(protocol.crop, n, rng) for n in capped]
    unit = protocol.crop.unit
    if rule.crop == "full":
        return [(0, min(n, protocol.crop.max_frames)) for n in capped]
    return [(0, min(n, item.frames) // unit * unit) for n, item in zip(capped, items, strict=True)]


def cut_to_common(protocol: Protocol, items: Sequence[Item], lengths: Sequence[int | None]) -> list[Item]:
    """Items shortened to their predictions where the protocol evaluates both sides at their common length."""
    if protocol.prediction.crop != "common":
        return list(items)
    unit = protocol.crop.unit
    return [
        item if n is None else replace(item, frames=min(item.frames, n) // unit * unit)
        for item, n in zip(items, lengths, strict=True)
    ]


def stream(protocol: Protocol, repeat: int) -> Any:
    """The random stream of ``seed + repeat``: numpy's RandomState for a "legacy" protocol, its Generator otherwise."""
    seed = protocol.seed + repeat
    return np.random.RandomState(seed) if protocol.generator == "legacy" else np.random.default_rng(seed)


def _crop(rule: CropRule, frames: int, rng: Any) -> tuple[int, int]:
    """Start and length of a crop; the coin is drawn before the start."""
    if rule.length == "full":
        length = min(frames, rule.max_frames)
    else:
        units = min(frames, rule.max_frames) // rule.unit
        if rule.length == "coin" and int(rng.choice(3)) == 2:
            units -= units > 1  # a clip of a single unit cannot lose it
        length = units * rule.unit
    if rule.start == "first":
        return 0, length
    integers = rng.randint if hasattr(rng, "randint") else rng.integers
    return int(integers(0, frames - length + 1)), length


def _range(protocol: Protocol) -> str:
    return f"{protocol.lengths.min} to {protocol.lengths.max}{'' if protocol.lengths.max_included else ' (excluded)'}"
