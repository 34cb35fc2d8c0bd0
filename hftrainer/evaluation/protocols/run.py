"""A protocol from beginning to end: clips, predictions and an evaluator in, a report out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from hftrainer.evaluation.protocols.clips import (
    EvaluationSet,
    Found,
    Load,
    look_at_predictions,
    refuse_implausible,
    refuse_unusable,
)
from hftrainer.evaluation.protocols.measures import Row
from hftrainer.evaluation.protocols.plan import (
    SECOND_PASS,
    Entries,
    Entry,
    Item,
    cut_to_common,
    draw,
    entries,
    prediction_frames,
)
from hftrainer.evaluation.protocols.schema import Protocol
from hftrainer.evaluation.protocols.scoring import Figures, Floats, add_multimodality, check_enough, score
from hftrainer.interfaces import Evaluator

_BLOCK = 256  # clips encoded at a time


@dataclass
class EmbeddedItems:
    """Embeddings (n, d) of the first draw, item by item; NaN rows for failed predictions."""

    items: list[Item]
    text: Floats
    real: Floats
    predicted: Floats | None


@dataclass
class ProtocolResult:
    """`rows`: figures by row and metric; `counts` and names by what became of them: `dropped`, `missing`, `broken`,
    `implausible` (by kind, then name)."""

    protocol: dict[str, Any]
    rows: dict[str, dict[str, dict[str, float]]]
    counts: dict[str, int]
    dropped: dict[str, list[str]]
    missing: list[str]
    broken: dict[str, str]
    implausible: dict[str, dict[str, str]]
    embedded: EmbeddedItems

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; without `embedded`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "embedded"}


def plan_items(protocol: Protocol, clips: EvaluationSet, *, enough: bool = True) -> Entries:
    """What the protocol evaluates of a set; ``ValueError``, before work is spent, if it is empty, or not `enough` for
    one pool."""
    found = entries(protocol, clips.ids, clips.captions, clips.frames)
    if not found.kept:
        raise ValueError(f"protocol {protocol.name}: no clip is left to evaluate; dropped: {_counted(found.dropped)}")
    if enough:
        check_enough(protocol, len(found.kept), f"protocol {protocol.name}")
    return found


def run_protocol(
    protocol: Protocol,
    clips: EvaluationSet,
    evaluator: Evaluator,
    *,
    planned: Entries | None = None,
    any_values: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> ProtocolResult:
    """Judge predictions (or, without any, only the real clips) by a protocol.

    `planned`: what `plan_items` gave, where that was asked already. Missing and broken predictions are an error,
    dropped, or failures, as ``protocol.missing`` says; the result names them in any case. Predictions most of which are
    in other units, frozen or upside down are refused unless `any_values`.
    """
    planned = planned or plan_items(protocol, clips)
    found = look_at_predictions(protocol, clips, planned.kept, progress)
    refuse_unusable(protocol, found, len(planned.kept))
    if not any_values:
        refuse_implausible(protocol, found)
    kept = planned.kept
    if protocol.missing == "drop" and (found.missing or found.broken):
        kept = [entry for entry in kept if clips.named(entry) in found.lengths]
        check_enough(protocol, len(kept), f"protocol {protocol.name}")
    texts = _Texts(evaluator)
    drawings = protocol.repeats if protocol.redraw else 1
    figures: dict[str, Figures] = {}
    embedded: EmbeddedItems | None = None
    for repeat in range(drawings):
        drawn = _drawing(protocol, clips, kept, found.lengths, evaluator, texts, repeat, progress)
        second = _second(protocol, clips, kept, evaluator, repeat, progress) if protocol.second_pass else None
        once = score(
            protocol, drawn.real, drawn.predicted, references=drawn.references, second=second,
            repeats=protocol.repeats // drawings, first_repeat=repeat,
        )  # fmt: skip
        _merge(figures, once)
        motion = None if drawn.predicted is None else drawn.predicted.motion
        embedded = embedded or EmbeddedItems(drawn.items, drawn.real.text, drawn.real.motion, motion)
    if clips.others:
        _multimodality(figures["predicted"], protocol, clips, kept, found.lengths, evaluator, progress)
    assert embedded is not None
    return ProtocolResult(
        asdict(protocol), {name: row.summary() for name, row in figures.items()},
        _counts(protocol, clips, kept, found, figures), planned.dropped, found.missing, found.broken,
        found.implausible, embedded,
    )  # fmt: skip


def _counts(
    protocol: Protocol, clips: EvaluationSet, kept: Sequence[Entry], found: Found, figures: Mapping[str, Figures]
) -> dict[str, int]:
    counts = {
        "ids": len(clips.ids), "items": len(kept), "missing": len(found.missing), "broken": len(found.broken),
        "implausible": len(found.odd),
    }  # fmt: skip
    if protocol.ids.expected is not None:
        counts["ids_expected"] = protocol.ids.expected
    return counts | figures["predicted" if "predicted" in figures else "real"].counts


def _counted(dropped: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{reason}: {len(names)}" for reason, names in dropped.items()) or "none"


# --- embeddings -------------------------------------------------------------------------------------------------------


class _Texts:
    """Embeddings of captions, each computed once."""

    def __init__(self, encoder: Evaluator) -> None:
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
    protocol: Protocol, clips: EvaluationSet, kept: Sequence[Entry], lengths: Mapping[str, int], encoder: Evaluator,
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
    protocol: Protocol, clips: EvaluationSet, kept: Sequence[Entry], encoder: Evaluator, repeat: int,
    progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> Floats:  # fmt: skip
    items = draw(protocol, kept, SECOND_PASS + repeat)
    return _embed(encoder, clips.real, items, [(item.start, item.frames) for item in items], progress)


def _embed(
    encoder: Evaluator, load: Load, items: Sequence[Item], spans: Sequence[tuple[int, int]],
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
                raise ValueError(
                    f"clip {named(item)}: frames {start} to {start + frames} are needed, but it has {have}"
                )
            motions.append(motion[start : start + frames])
        out.append(np.asarray(encoder.encode_motions(motions)))
    return np.concatenate(out)


def _multimodality(
    figures: Figures, protocol: Protocol, clips: EvaluationSet, kept: Sequence[Entry], lengths: Mapping[str, int],
    encoder: Evaluator, progress: Callable[[Iterable[Any]], Iterable[Any]],
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
