"""The result of an evaluation as people read it: a table for terminals, Markdown, flat numbers for a logger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hftrainer.evaluation.vocabulary import ARROWS, in_order, label_of
from hftrainer.shown import as_markdown

ROWS = {"predicted": "predicted", "real": "real", "split_half": "split half", "random_caption": "random caption"}
_SHOWN = 5

Table = list[list[str]]


def metric_table(result: Mapping[str, Any]) -> Table:
    """Metrics by row, the header first: mean ± half the 95 % interval."""
    rows = [name for name in ROWS if name in result["rows"]]
    table = [["", *(ROWS[row] for row in rows)]]
    for name in in_order({name for row in rows for name in result["rows"][row]}):
        table.append([label_of(name), *(_estimate(result["rows"][row].get(name)) for row in rows)])
    return table


def physical_rows(result: Mapping[str, Any]) -> Table:
    """Physical metrics of predicted and real clips, the published ones first."""
    found = {row: result.get("physical", {}).get(row) or {} for row in ("predicted", "real")}
    kept = [row for row, values in found.items() if values]
    if not kept:
        return []
    table = [["physical", *kept]]
    for part in ("published", "in_units"):
        for key in found[kept[0]][part]:
            if key in ARROWS:
                table.append([label_of(key), *(f"{found[row][part][key]:.4g}" for row in kept)])
    return table


def notes(result: Mapping[str, Any]) -> list[str]:
    """What was evaluated and what was not, one line each."""
    counts, about = result["counts"], result.get("predictions") or {}
    lines = [f"protocol {result['protocol']['name']}, evaluator {result['evaluator']['name']}"]
    lines.append(
        f"{counts['items']} items of {counts['ids']} clips; {counts.get('retrieval_items', 0)} queries in pools"
    )
    expected = counts.get("ids_expected")
    if expected is not None and expected != counts["ids"]:
        lines.append(f"the full set of this protocol has {expected} clips: not comparable with published results")
    for reason, names in result["dropped"].items():
        lines.append(f"excluded, {reason}: {len(names)} ({_some(names)})")
    for word, names in (("missing", result["missing"]), ("broken", list(result["broken"]))):
        if names:
            lines.append(f"{word}: {len(names)} ({_some(names)})")
    for kind, cases in (result.get("implausible") or {}).items():
        lines.append(f"implausible, {kind}: {len(cases)} ({_some(list(cases))}), e.g. {next(iter(cases.values()))}")
    if counts.get("failures"):
        lines.append(f"{counts['failures']} failures count as wrong answers; FID and distances are over the others")
    if about.get("padded_clips"):
        lines.append(
            f"{about['padded_clips']} predictions ended early; padded with {about['padded_frames']} rest frames"
        )
    if result.get("physical_note"):
        lines.append(str(result["physical_note"]))
    return lines


def terminal(result: Mapping[str, Any]) -> str:
    """Aligned columns."""
    parts = ["\n".join(notes(result)), aligned(metric_table(result))]
    physical = physical_rows(result)
    return "\n\n".join([*parts, *([aligned(physical)] if physical else [])])


def markdown(result: Mapping[str, Any]) -> str:
    """A Markdown page."""
    title = f"{result['protocol']['name']}: {(result.get('predictions') or {}).get('name', 'real clips')}"
    lines = "\n".join(f"* {as_markdown(line)}" for line in notes(result))
    blocks = [f"# {as_markdown(title)}", lines, pipe_table(metric_table(result))]
    physical = physical_rows(result)
    if physical:
        blocks += [pipe_table(physical)]
    blocks.append(
        "mean ± half the 95 % interval over repeats. *split half*: one half of the real clips against the other. "
        "*random caption*: real clips with captions of others."
    )
    return "\n\n".join(blocks) + "\n"


def flat(result: Mapping[str, Any]) -> dict[str, float]:
    """``predicted/FID`` and so on, for loggers."""
    out = {f"{row}/{name}": value["mean"] for row, values in result["rows"].items() for name, value in values.items()}
    for row, found in result.get("physical", {}).items():
        for part, values in (found or {}).items():
            out |= {f"{row}/{part}/{name}": value for name, value in values.items()}
    return out | {f"counts/{name}": float(value) for name, value in result["counts"].items()}


def pipe_table(table: Table) -> str:
    """Rows of a Markdown table; the first is the header."""
    lines = ["| " + " | ".join(map(as_markdown, row)) + " |" for row in table]
    return "\n".join([lines[0], "|---" + "|---:" * (len(table[0]) - 1) + "|", *lines[1:]])


def _estimate(value: Mapping[str, float] | None) -> str:
    if value is None:
        return ""
    return f"{value['mean']:.4g}" + (f" ± {value['ci95']:.2g}" if value["ci95"] > 1e-9 * abs(value["mean"]) else "")


def aligned(table: Table) -> str:
    """Rows with their columns one below the other."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(cells)).rstrip()
        for cells in (list(zip(row, widths, strict=True)) for row in table)
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
