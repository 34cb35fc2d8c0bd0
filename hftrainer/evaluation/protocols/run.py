"""A protocol from beginning to end: clips, predictions and an evaluator in, a report out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from typing import Protocol as Structure

import numpy as np

from hftrainer.evaluation.protocols.measures import Row
from hftrainer.evaluation.protocols.plan import (
    SECOND_PASS,
    CaptionLine,
    Entry,
    Item,
    cut_to_common,
    draw,
    entries,
    prediction_frames,
)
from hftrainer.evaluation.protocols.schema import Protocol
from hftrainer.evaluation.protocols.scoring import Figures, Floats, add_multimodality, score

_BLOCK = 256  # clips held at a time
_SHOWN = 5


class Encoder(Structure):
    """What is needed of an evaluator."""

    def encode_motions(self, motions: Sequence[np.ndarray], lengths: Any = None, batch_size: int = 32) -> Floats:
        """(n, d) of clips (frames, features)."""

    def encode_texts(self, captions: Sequence[str], batch_size: int = 32) -> Floats:
        """(n, d) of captions."""


@dataclass
class Clips:
    """What is judged, all of one representation, and frame rate, the protocol's.

    `frames`: lengths of the real clips. `real(id)` loads one. `predicted(id)` loads a prediction: None if there is
    none, ``ValueError`` if it is broken. `references`: other versions of the real clips, by name ("refk",
    "hml263_roundtrip"), that FID is measured against too. `others`: further generations of the same captions, for
    multimodality. `by_key`: predictions are asked for by an entry's key ("000021#1", "000021@0"), one for each caption
    or part, not by the clip's id.
    """

    ids: Sequence[str]
    captions: Mapping[str, Sequence[CaptionLine]]
    frames: Mapping[str, int]
    real: Callable[[str], np.ndarray]
    predicted: Callable[[str], np.ndarray | None] | None = None
    references: Mapping[str, Callable[[str], np.ndarray]] = field(default_factory=dict)
    others: Sequence[Callable[[str], np.ndarray | None]] = ()
    by_key: bool = False

    def named(self, entry: Entry | Item) -> str:
        """What predictions of it are called."""
        return entry.key if self.by_key else entry.id


@dataclass
class Judged:
    """What the first drawing came to, item by item: embeddings (n, d), NaN rows for predictions that failed."""

    items: list[Item]
    text: Floats
    real: Floats
    predicted: Floats | None


@dataclass
class Report:
    """`rows`: figures by row and metric; `counts` and `dropped`, `missing`, `broken` names: what they were made of."""

    protocol: dict[str, Any]
    rows: dict[str, dict[str, dict[str, float]]]
    counts: dict[str, int]
    dropped: dict[str, list[str]]
    missing: list[str]
    broken: dict[str, str]
    judged: Judged

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; without `judged`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "judged"}


def evaluate(
    protocol: Protocol,
    clips: Clips,
    encoder: Encoder,
    *,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Report:
    """Judge predictions (or, without any, the real clips alone) by a protocol.

    Missing and broken predictions are an error, dropped, or failures, as ``protocol.missing`` says; the report names
    them in any case.
    """
    found = entries(protocol, clips.ids, clips.captions, clips.frames)
    lengths, missing, broken = _look_at_predictions(protocol, clips, found.kept)
    kept = found.kept
    if missing or broken:
        _complain(protocol, missing, broken, len(kept))
        if protocol.missing == "drop":
            kept = [entry for entry in kept if clips.named(entry) in lengths]
    if not kept:
        raise ValueError(f"protocol {protocol.name}: no clip is left to judge; dropped: {_counted(found.dropped)}")
    texts = _Texts(encoder)
    drawings = protocol.repeats if protocol.redraw else 1
    figures: dict[str, Figures] = {}
    judged: Judged | None = None
    for repeat in range(drawings):
        drawn = _drawing(protocol, clips, kept, lengths, encoder, texts, repeat, progress)
        second = _second(protocol, clips, kept, encoder, repeat, progress) if protocol.second_pass else None
        once = score(
            protocol, drawn.real, drawn.predicted, references=drawn.references, second=second,
            repeats=protocol.repeats // drawings, first_repeat=repeat,
        )  # fmt: skip
        _merge(figures, once)
        judged = judged or Judged(drawn.items, drawn.real.text, drawn.real.motion, _motion(drawn.predicted))
    if clips.others:
        _multimodality(figures["predicted"], protocol, clips, kept, lengths, encoder, progress)
    counts = {"ids": len(clips.ids), "items": len(kept), "missing": len(missing), "broken": len(broken)}
    if protocol.ids.expected is not None:
        counts["ids_expected"] = protocol.ids.expected
    counts |= figures["predicted" if "predicted" in figures else "real"].counts
    rows = {name: row.summary() for name, row in figures.items()}
    assert judged is not None
    return Report(asdict(protocol), rows, counts, found.dropped, missing, broken, judged)


# --- predictions ------------------------------------------------------------------------------------------------------


def _look_at_predictions(
    protocol: Protocol, clips: Clips, kept: Sequence[Entry]
) -> tuple[dict[str, int], list[str], dict[str, str]]:
    """Lengths of usable predictions by name, names without one, and what is wrong with others."""
    lengths: dict[str, int] = {}
    missing: list[str] = []
    broken: dict[str, str] = {}
    if clips.predicted is None:
        return lengths, missing, broken
    unit = protocol.crop.unit
    for name, wanted in _wanted(clips, kept).items():
        try:
            motion = clips.predicted(name)
        except ValueError as error:
            broken[name] = str(error)
            continue
        if motion is None:
            missing.append(name)
        elif not np.isfinite(motion).all():
            broken[name] = "holds NaN or infinite values"
        elif len(motion) < unit:
            broken[name] = f"{len(motion)} frames, at least {unit} are needed"
        elif protocol.prediction.crop == "own" and not protocol.lengths.allows(len(motion)):
            broken[name] = f"{len(motion)} frames are outside the protocol's range"
        elif protocol.prediction.exact_length and not _as_long(protocol, len(motion), wanted):
            broken[name] = f"{len(motion)} frames, its clip has {wanted}"
        else:
            lengths[name] = len(motion)
    return lengths, missing, broken


def _wanted(clips: Clips, kept: Sequence[Entry]) -> dict[str, int]:
    """Frames of what each prediction stands for: a whole clip, or the part that its caption is about."""
    if clips.by_key:
        return {entry.key: entry.end - entry.start for entry in kept}
    return {entry.id: clips.frames[entry.id] for entry in kept}


def _as_long(protocol: Protocol, frames: int, wanted: int) -> bool:
    """Whether a prediction has its clip's frames; of a clip longer than what is seen, those that are seen suffice."""
    return frames == wanted or (wanted > protocol.crop.max_frames and frames >= protocol.crop.max_frames)


def _complain(protocol: Protocol, missing: Sequence[str], broken: Mapping[str, str], total: int) -> None:
    if protocol.missing != "error":
        return
    parts = []
    if missing:
        parts.append(f"{len(missing)} have no prediction ({_some(missing)})")
    if broken:
        parts.append(f"{len(broken)} are broken ({_some([f'{k}: {v}' for k, v in broken.items()], '; ')})")
    ways = "missing=drop to judge the others alone"
    if protocol.metrics.positives == "same_caption":
        ways += ", or missing=failure to count them as wrong"
    raise ValueError(
        f"of {total} items of protocol {protocol.name}, {' and '.join(parts)}; generate them, or give {ways}"
    )


def _some(names: Sequence[str], between: str = ", ") -> str:
    return between.join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")


def _counted(dropped: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{reason}: {len(names)}" for reason, names in dropped.items()) or "none"


# --- embeddings -------------------------------------------------------------------------------------------------------


class _Texts:
    """Embeddings of captions, each computed once."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.known = encoder, dict[str, Floats]()

    def __call__(self, captions: Sequence[str]) -> Floats:
        new = [caption for caption in dict.fromkeys(captions) if caption not in self.known]
        if new:
            self.known |= dict(zip(new, self.encoder.encode_texts(new), strict=True))
        return np.stack([self.known[caption] for caption in captions])


@dataclass
class _Drawing:
    items: list[Item]
    real: Row
    predicted: Row | None
    references: dict[str, Floats]


def _drawing(
    protocol: Protocol, clips: Clips, kept: Sequence[Entry], lengths: Mapping[str, int], encoder: Encoder,
    texts: _Texts, repeat: int, progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> _Drawing:  # fmt: skip
    """Embeddings of one drawing of captions and crops."""
    items = draw(protocol, kept, repeat)
    if clips.predicted is not None:
        items = cut_to_common(protocol, items, [lengths.get(clips.named(item)) for item in items])
    captions = [item.caption for item in items]
    text = texts(captions)
    spans = [(item.start, item.frames) for item in items]
    real = _embed(encoder, clips.real, items, spans, progress)
    predicted = None
    if clips.predicted is not None:
        usable = [item for item in items if clips.named(item) in lengths]
        cuts = prediction_frames(protocol, usable, [lengths[clips.named(item)] for item in usable], repeat)
        embedded = _embed(encoder, clips.predicted, usable, cuts, progress, clips.named)
        values = np.full((len(items), embedded.shape[1]), np.nan)
        values[[clips.named(item) in lengths for item in items]] = embedded
        predicted = Row(text, values, captions)
    references = {name: _embed(encoder, load, items, spans, progress) for name, load in clips.references.items()}
    return _Drawing(items, Row(text, real, captions), predicted, references)


def _second(
    protocol: Protocol, clips: Clips, kept: Sequence[Entry], encoder: Encoder, repeat: int,
    progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> Floats:  # fmt: skip
    items = draw(protocol, kept, SECOND_PASS + repeat)
    return _embed(encoder, clips.real, items, [(item.start, item.frames) for item in items], progress)


def _embed(
    encoder: Encoder, load: Callable[[str], np.ndarray | None], items: Sequence[Item], spans: Sequence[tuple[int, int]],
    progress: Callable[[Iterable[Any]], Iterable[Any]], named: Callable[[Item], str] = lambda item: item.id,
) -> Floats:  # fmt: skip
    """Embeddings (n, d) of the spans (start, frames) of the items' clips, a block of clips in memory at a time."""
    out = []
    for at in progress(range(0, len(items), _BLOCK)):
        motions = []
        for item, (start, frames) in zip(items[at : at + _BLOCK], spans[at : at + _BLOCK], strict=True):
            motion = load(named(item))
            if motion is None or len(motion) < start + frames:
                have = "none" if motion is None else f"{len(motion)} frames"
                raise ValueError(f"clip {named(item)}: frames {start} to {start + frames} are needed, there are {have}")
            motions.append(motion[start : start + frames])
        out.append(np.asarray(encoder.encode_motions(motions)))
    return np.concatenate(out)


def _motion(row: Row | None) -> Floats | None:
    return None if row is None else row.motion


def _multimodality(
    figures: Figures, protocol: Protocol, clips: Clips, kept: Sequence[Entry], lengths: Mapping[str, int],
    encoder: Encoder, progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> None:  # fmt: skip
    """Spread of the generations of one caption, over the first clips that have all of them."""
    assert clips.predicted is not None
    loaders = [clips.predicted, *clips.others][: protocol.metrics.multimodality_motions]
    sets = [item for item in draw(protocol, kept) if clips.named(item) in lengths]
    complete: list[Item] = []
    found: dict[str, list[int]] = {}
    for item in sets:
        if len(complete) < protocol.metrics.multimodality_clips:
            loaded = [load(clips.named(item)) for load in loaders]
            if all(m is not None and len(m) >= protocol.crop.unit and np.isfinite(m).all() for m in loaded):
                complete.append(item)
                found[item.key] = [len(m) for m in loaded if m is not None]
    if not complete:
        raise ValueError(f"no clip has all {len(loaders)} generations; multimodality needs them of the same clips")
    embedded = []
    for number, load in enumerate(loaders):
        cuts = prediction_frames(protocol, complete, [found[item.key][number] for item in complete])
        embedded.append(_embed(encoder, load, complete, cuts, progress, clips.named))
    add_multimodality(figures, protocol, np.stack(embedded, axis=1))


def _merge(into: dict[str, Figures], once: Mapping[str, Figures]) -> None:
    for name, figures in once.items():
        row = into.setdefault(name, Figures())
        for metric, values in figures.values.items():
            row.values.setdefault(metric, []).extend(values)
        row.counts |= figures.counts
