"""An HTML report in one file: the figures, and the worst and best retrievals playing in 3D beside the real clips."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.evaluation.physical_table import joints_of_clip
from hftrainer.evaluation.protocols.retrieval import caption_groups
from hftrainer.evaluation.report import Table, metric_table, notes, physical_rows
from hftrainer.files import write_text
from hftrainer.motion.representation.base import get_representation
from hftrainer.render.viewer import ViewerClip, script_json, viewer_frame, viewer_motions

Floats = NDArray[np.floating[Any]]
_BLOCK = 512
_MADE, _REAL = "#1d7fc4", "#7a7f87"


@dataclass
class Case:
    """Item `row` and how its retrieval went among all motions: `rank` wrong ones are nearer to its caption than its
    own, of which that of item `nearest` is the nearest (None if none is)."""

    row: int
    rank: int
    distance: float
    nearest: int | None


def retrieval_cases(text: Floats, predicted: Floats, captions: Sequence[str]) -> list[Case]:
    """Every item that did not fail, from worst to best; motions of the same caption are no wrong ones."""
    groups = caption_groups(captions)
    there = np.flatnonzero(np.isfinite(predicted).all(axis=1))
    motions, out = predicted[there].astype(np.float64), []
    for start in range(0, len(there), _BLOCK):
        rows = there[start : start + _BLOCK]
        a = text[rows].astype(np.float64)
        squares = (a * a).sum(1)[:, None] + (motions * motions).sum(1)[None] - 2 * a @ motions.T
        distances = np.sqrt(np.maximum(squares, 0))
        own = distances[np.arange(len(rows)), np.arange(start, start + len(rows))]
        wrong = np.where(groups[rows][:, None] == groups[there][None], np.inf, distances)
        for row, mine, others in zip(rows.tolist(), own.tolist(), wrong, strict=True):
            first = int(others.argmin())
            nearest = int(there[first]) if others[first] < mine else None
            out.append(Case(row, int((others < mine).sum()), mine, nearest))
    return sorted(out, key=lambda case: (-case.rank, -case.distance))


def write_page(
    path: Path,
    result: Mapping[str, Any],
    items: Mapping[str, Any],
    real: Callable[[int], Any],
    predicted: Callable[[int], Any],
    *,
    count: int = 8,
) -> None:
    """Write the report page, atomically.

    `items` are arrays by item as in `per_item.npz` ("text", "predicted", "captions", "keys"); `real` and `predicted`
    load the motion of item number i, as evaluated. `count` worst and as many best retrievals are shown.
    """
    captions = [str(caption) for caption in items["captions"]]
    cases = retrieval_cases(items["text"], items["predicted"], captions)
    shown = {"worst": cases[:count], "best": cases[max(count, len(cases) - count) :][::-1]}
    representation = result["protocol"]["representation"]
    listed = [
        _case(kind, case, items, captions, len(cases), representation, real, predicted)
        for kind, part in shown.items()
        for case in part
    ]
    name = str((result.get("predictions") or {}).get("name", "predictions"))
    title = f"{name} by {result['protocol']['name']}"
    parts = {
        "title": html.escape(title),
        "notes": "".join(f"<li>{html.escape(line)}</li>" for line in notes(result)),
        "tables": "".join(html_table(table) for table in (metric_table(result), physical_rows(result)) if table),
        "cases": script_json(listed),
        "frame": script_json(list(viewer_frame("motions"))),
    }
    write_text(path, re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _template()))


def html_table(table: Table) -> str:
    """A table element; the first row is the header."""

    def row(cells: list[str], element: str) -> str:
        return "<tr>" + "".join(f"<{element}>{html.escape(cell)}</{element}>" for cell in cells) + "</tr>"

    body = "".join(row(cells, "td") for cells in table[1:])
    return f"<table><thead>{row(table[0], 'th')}</thead><tbody>{body}</tbody></table>"


def _case(
    kind: str, case: Case, items: Mapping[str, Any], captions: Sequence[str], total: int, representation: str,
    real: Callable[[int], Any], predicted: Callable[[int], Any],
) -> dict[str, Any]:  # fmt: skip
    fps, caption = get_representation(representation).fps, captions[case.row]
    clips = [
        ViewerClip(joints_of_clip(load(case.row), representation), f"{who}: {caption}", {"clip": key}, fps, color)
        for load, who, color in ((predicted, "generated", _MADE), (real, "real", _REAL))
        for key in (str(items["keys"][case.row]),)
    ]
    return {
        "kind": kind,
        "caption": caption,
        "key": str(items["keys"][case.row]),
        "rank": case.rank + 1,
        "of": total,
        "distance": round(case.distance, 3),
        "nearest": None if case.nearest is None else captions[case.nearest],
        "motions": viewer_motions(clips, title=caption),
    }


@cache
def _template() -> str:
    return (Path(__file__).parent / "report_page.html").read_text(encoding="utf-8")
