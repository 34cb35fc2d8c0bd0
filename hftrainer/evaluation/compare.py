"""Two evaluations of the same clips, item by item: differences with intervals, which tell a model from noise.

Both models answer the same captions, so what is hard for one is hard for the other; differences of pairs vary much less
than the two figures do. Intervals are those of a bootstrap over items: clips are drawn with replacement, both models'
answers with them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import Wanted, read_npz
from hftrainer.config import typed
from hftrainer.evaluation import physical
from hftrainer.evaluation.protocols.measures import FID, build_metrics
from hftrainer.evaluation.protocols.plan import stream
from hftrainer.evaluation.protocols.retrieval import TOP, caption_groups, chances, pools
from hftrainer.evaluation.protocols.run import ProtocolResult
from hftrainer.evaluation.protocols.schema import Protocol
from hftrainer.evaluation.report import Table
from hftrainer.evaluation.vocabulary import arrow_of, current_result, label_of
from hftrainer.files import atomic_path
from hftrainer.readers import FileError, json_fields, read_json

Floats = NDArray[np.floating[Any]]
PER_ITEM, RESULT = "per_item.npz", "report.json"
_OLD_PER_ITEM = "judged.npz"  # of earlier versions
_ARRAYS = {
    **dict.fromkeys(("keys", "ids", "captions"), Wanted("text", (None,))),
    **dict.fromkeys(("text", "real", "predicted"), Wanted(shape=(None, None))),
    **dict.fromkeys(("physical_real", "physical_predicted"), Wanted(shape=(None, None))),
}


@dataclass
class Run:
    """What an evaluation left in a folder: its result, and its items' captions, embeddings and physical metrics."""

    folder: Path
    result: dict[str, Any]
    items: dict[str, NDArray[Any]]

    @property
    def name(self) -> str:
        """Names of the two runs."""
        return str((self.result.get("predictions") or {}).get("name", self.folder.name))


@dataclass
class Difference:
    """`b` - `a` of a metric, the 95 % interval of that, and over how many items."""

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    n: int

    @property
    def seen(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def items_of(result: ProtocolResult) -> dict[str, NDArray[Any]]:
    """What a run keeps of each item, in the result's order: names, captions, embeddings."""
    embedded = result.embedded
    assert embedded.predicted is not None
    return {
        "keys": np.array([item.key for item in embedded.items]),
        "ids": np.array([item.id for item in embedded.items]),
        "captions": np.array([item.caption for item in embedded.items]),
        "text": embedded.text.astype(np.float32),
        "real": embedded.real.astype(np.float32),
        "predicted": embedded.predicted.astype(np.float32),
    }


def write_items(folder: Path, result: ProtocolResult, physical_real: Floats, physical_predicted: Floats) -> None:
    """Write `per_item.npz`, which `compare`, the leaderboard and the page read."""
    arrays: dict[str, Any] = {
        **items_of(result),
        "physical_real": physical_real.astype(np.float32),
        "physical_predicted": physical_predicted.astype(np.float32),
    }
    with atomic_path(folder / PER_ITEM) as temporary, open(temporary, "wb") as stream_:
        np.savez_compressed(stream_, **arrays)


def read_run(folder: str | os.PathLike[str]) -> Run:
    """A folder that `hftrainer evaluate run --out` wrote, in this version or an earlier one."""
    folder = Path(folder)
    per_item = folder / PER_ITEM if (folder / PER_ITEM).is_file() else folder / _OLD_PER_ITEM
    for path in (folder / RESULT, per_item):
        if not path.is_file():
            name = RESULT if path.name == RESULT else PER_ITEM
            raise FileError(
                f"{folder} has no {name}: it is not the result of `hftrainer evaluate run --out` on predictions"
            )
    items = read_npz(per_item, _ARRAYS)
    sizes = {name: len(array) for name, array in items.items()}
    if len(set(sizes.values())) != 1:
        raise FileError(f"{per_item}: per-item arrays have different lengths: {sizes}")
    result = read_json(folder / RESULT)
    rows = result.get("rows", {})
    json_fields(result, folder / RESULT, {"protocol": dict}, dict.fromkeys(("rows", "evaluator", "counts"), dict))
    json_fields(rows, folder / RESULT, optional=dict.fromkeys(rows, dict))
    return Run(folder, current_result(result), items)


def compare(a: Run, b: Run, *, resamples: int = 1000, fid_resamples: int = 200, seed: int = 0) -> list[Difference]:
    """Differences `b` - `a` in retrieval, matching, FID and the published physical metrics.

    Retrieval asks every item once in each of the protocol's shuffles, the same for both. Runs of different protocols,
    evaluators or clips are an error; of clips that only one run kept, both are left out.
    """
    protocol = common_protocol(a, b)
    rows_a, rows_b = common_items(a, b)
    first, second = ({name: array[rows] for name, array in r.items.items()} for r, rows in ((a, rows_a), (b, rows_b)))
    n, rng = len(rows_a), np.random.default_rng(seed)
    picks = rng.integers(n, size=(resamples, n))
    out = []
    per_item = [_per_item(protocol, items) for items in (first, second)]
    for metric in per_item[0]:
        out.append(_paired(metric, per_item[0][metric], per_item[1][metric], picks))
    for metric in build_metrics(protocol):
        if isinstance(metric, FID):
            out.append(_fid(metric, first, second, picks[:fid_resamples]))
    return out


def half_widths(
    protocol: Protocol, run: Run, *, resamples: int = 1000, fid_resamples: int = 200, seed: int = 0
) -> dict[str, float]:
    """Half of the 95 % interval of each figure of a run, by a bootstrap over its items.

    For FID, whose resamples repeat clips and so are all too large, of the resamples about their own mean.
    """
    n, rng = len(run.items["keys"]), np.random.default_rng(seed)
    picks = rng.integers(n, size=(resamples, n))
    out = {}
    for metric, values in _per_item(protocol, run.items).items():
        known = np.isfinite(values)
        counted = np.maximum(known[picks].sum(axis=1), 1)
        out[metric] = _half(np.where(known, values, 0.0)[picks].sum(axis=1) / counted)
    made = np.isfinite(run.items["predicted"]).all(axis=1)
    real, predicted = run.items["real"][made], run.items["predicted"][made]
    for fid in build_metrics(protocol):
        if isinstance(fid, FID):
            rows = (pick % len(real) for pick in picks[:fid_resamples, : len(real)])
            out[fid.name] = _half(np.array([fid.distance(real[row], predicted[row]) for row in rows]))
    return out


def _half(values: Floats) -> float:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(high - low) / 2


def difference_table(differences: list[Difference], a: str, b: str) -> Table:
    """For terminals and Markdown; the last column says which is better where the interval leaves zero out."""
    table = [["", a, b, "difference", "95 % interval", "better"]]
    for d in differences:
        interval = f"{d.low:+.4g} ... {d.high:+.4g}"
        table.append(
            [label_of(d.metric), f"{d.a:.4g}", f"{d.b:.4g}", f"{d.difference:+.4g}", interval, _better(d, a, b)]
        )
    return table


def as_dicts(differences: list[Difference]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(d) for d in differences]


# --- inside -----------------------------------------------------------------------------------------------------------


def _per_item(protocol: Protocol, items: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """Values (n,) by metric; NaN where a failed prediction has none (retrieval is 0 there)."""
    text, motion = items["text"].astype(np.float64), items["predicted"].astype(np.float64)
    n = len(text)
    same = protocol.metrics.positives == "same_caption"
    groups = caption_groups(items["captions"].tolist()) if same else np.arange(n)
    hits = np.zeros((TOP, n))
    for repeat in range(protocol.repeats):
        order = stream(protocol, repeat).permutation(n)
        for queries, candidates in pools(order, min(protocol.batches.size, n), "refill"):
            hits[:, queries] += chances(text, motion, groups, queries, candidates).chances
    out = {f"R@{k + 1}": hits[k] / protocol.repeats for k in range(TOP)}
    out["MM-Dist"] = np.linalg.norm(text - motion, axis=1)
    scale = physical.table_scaled_physical_metrics(dict.fromkeys(physical.KEYS, 1.0))
    for column, key in enumerate(physical.KEYS):
        if key != "Penet":  # 0 by construction
            out[key] = items["physical_predicted"][:, column].astype(np.float64) * scale[key]
    return out


def _paired(metric: str, a: Floats, b: Floats, picks: NDArray[np.int64]) -> Difference:
    """Over the items that both have."""
    both = np.isfinite(a) & np.isfinite(b)
    apart = np.where(both, b - a, 0.0)
    counted = both[picks].sum(axis=1)
    means = apart[picks].sum(axis=1) / np.maximum(counted, 1)
    low, high = np.percentile(means, [2.5, 97.5])
    n = int(both.sum())
    if n == 0:
        raise ValueError(f"{metric}: no item has a value in both runs")
    return Difference(metric, float(a[both].mean()), float(b[both].mean()), float(apart.sum() / n), low, high, n)


def _fid(
    fid: FID, a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]], picks: NDArray[np.int64]
) -> Difference:
    """Of the items that both made. Resamples repeat clips, which raises both FIDs alike; the difference is centred."""
    both = np.isfinite(a["predicted"]).all(axis=1) & np.isfinite(b["predicted"]).all(axis=1)
    real, one, other = a["real"][both], a["predicted"][both], b["predicted"][both]
    n = len(real)

    def distances(rows: Any) -> tuple[float, float]:
        return fid.distance(real[rows], one[rows]), fid.distance(real[rows], other[rows])

    value_a, value_b = distances(slice(None))
    drawn = np.array([np.subtract(*distances(rows % n)[::-1]) for rows in picks])
    centred = drawn - drawn.mean() + (value_b - value_a)
    low, high = np.percentile(centred, [2.5, 97.5])
    return Difference(fid.name, value_a, value_b, value_b - value_a, float(low), float(high), n)


def common_protocol(a: Run, b: Run) -> Protocol:
    """The protocol of two runs; ``ValueError`` if they differ in it, or in the evaluator."""
    first, second = (dict(run.result["protocol"]) for run in (a, b))
    for key in sorted({*first, *second} - {"missing", "name", "summary", "source"}):
        if first.get(key) != second.get(key):
            raise FileError(
                f"{a.folder} and {b.folder} were evaluated differently: {key} is {first.get(key)!r} in one and "
                f"{second.get(key)!r} in the other"
            )
    theirs = [run.result["evaluator"]["identity"] for run in (a, b)]
    if theirs[0] != theirs[1]:
        raise FileError(
            f"{a.folder} and {b.folder} were evaluated by different evaluators: {theirs[0]} and {theirs[1]}"
        )
    return typed(Protocol, first, path=str(a.folder / RESULT))


def common_items(a: Run, b: Run) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the items of both runs, in either; ``ValueError`` if clips of one name are not the same."""
    places = {key: row for row, key in enumerate(b.items["keys"].tolist())}
    rows = [(row, places[key]) for row, key in enumerate(a.items["keys"].tolist()) if key in places]
    if len(rows) < TOP:
        raise FileError(
            f"{a.folder} and {b.folder} have {len(rows)} items in common; they were evaluated on different clips"
        )
    left, right = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    if not np.array_equal(a.items["captions"][left], b.items["captions"][right]) or not np.allclose(
        a.items["real"][left], b.items["real"][right], atol=1e-4
    ):
        raise FileError(f"{a.folder} and {b.folder} have clips with the same names but different captions or frames")
    return left, right


def _better(d: Difference, a: str, b: str) -> str:
    if not d.seen:
        return "not seen"
    arrow = arrow_of(d.metric)
    if arrow not in ("↑", "↓"):
        return ""
    return b if (d.difference < 0) == (arrow == "↓") else a
