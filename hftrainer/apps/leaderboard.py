"""Several runs of one protocol in one table, with intervals, and the published rows of the zoo's cards beside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hftrainer.config import ConfigError, read_yaml, typed
from hftrainer.evaluation.compare import Run, common_items, common_protocol, half_widths, read_run
from hftrainer.evaluation.report import Table, aligned, pipe_table
from hftrainer.evaluation.vocabulary import current_name, in_order, label_of
from hftrainer.files import check_writable, write_json, write_text
from hftrainer.readers import FileError
from hftrainer.shown import as_markdown
from hftrainer.zoo.collection import cards, find_card

_FEWEST_COMMON = 0.99  # fraction of items that all runs must have in common
_PUBLISHED = Path(__file__).parent / "published.yaml"
_ROUNDING = 1e-9  # an interval that is smaller, in proportion, is none
_PHYSICAL = ("Slide", "Float", "Jitter", "Dynamic")


@dataclass
class Row:
    """One line: `values` by metric, and `half` of their 95 % intervals where there are items to draw from. `origin`:
    "real" clips, "measured" here, or "published" by others."""

    name: str
    origin: str
    items: int | None
    values: dict[str, float]
    half: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class PublishedRow:
    """A row of published.yaml."""

    name: str
    protocol: str
    source: str
    values: dict[str, float]
    clips: int | None = None


@dataclass
class Leaderboard:
    """`rows` of one `protocol`: real clips, the runs from the best FID on, published rows. `notes` on all of them."""

    protocol: str
    evaluator: str
    rows: list[Row]
    notes: list[str]

    def table(self) -> Table:
        """The header first; a metric a column, value ± half the 95 % interval."""
        ordered = in_order({name for row in self.rows for name in row.values})
        table = [["", "items", *(label_of(name) for name in ordered)]]
        for row in self.rows:
            mark = " (published)" if row.origin == "published" else ""
            count = "" if row.items is None else str(row.items)
            table.append([f"{row.name}{mark}", count, *(_cell(row, name) for name in ordered)])
        return table

    def __str__(self) -> str:
        return "\n".join([*self._lines(), "", aligned(self.table())])

    def markdown(self) -> str:
        """A page."""
        notes = "\n".join(f"* {as_markdown(line)}" for line in self._lines())
        return f"# {as_markdown(self.protocol)}\n\n{notes}\n\n{pipe_table(self.table())}\n"

    def write(self, folder: str | os.PathLike[str]) -> None:
        """leaderboard.md and leaderboard.json."""
        folder = check_writable(folder)
        write_text(folder / "leaderboard.md", self.markdown())
        write_json(folder / "leaderboard.json", asdict(self))

    def _lines(self) -> list[str]:
        said: dict[str, list[str]] = {}
        for row in self.rows:
            for note in row.notes:
                said.setdefault(note, []).append(row.name)
        own = [f"{', '.join(names)}: {note}" for note, names in said.items()]
        return [f"protocol {self.protocol}, evaluator {self.evaluator}", *self.notes, *own]


def leaderboard(
    runs: Sequence[str | os.PathLike[str]], *, published: bool = True, resamples: int = 1000, seed: int = 0
) -> Leaderboard:
    """The table of runs that `hftrainer evaluate run --out` left in folders.

    Raises ``ValueError`` for runs of different protocols, evaluators or clips, which are not comparable. Intervals are
    those of a bootstrap over items. `published`: also the rows that model cards give for this protocol.
    """
    read = [read_run(folder) for folder in runs]
    if not read:
        raise ValueError("a leaderboard needs at least one run")
    first = read[0]
    protocol = common_protocol(first, first)
    for other in read[1:]:
        common_protocol(first, other)
        shared = len(common_items(first, other)[0])
        most = max(len(run.items["keys"]) for run in (first, other))
        if shared < _FEWEST_COMMON * most:
            raise FileError(
                f"{first.folder} and {other.folder} have {shared} of {most} items in common; they were evaluated on "
                "different clips"
            )
    made = [_run_row(run, half_widths(protocol, run, resamples=resamples, seed=seed)) for run in read]
    _tell_apart(made, read)
    made.sort(key=lambda row: next((row.values[name] for name in ("FID", "FID-unit") if name in row.values), 0.0))
    rows = [_real_row(first), *made]
    notes = ["± is half the 95 % interval of a bootstrap over clips"]
    expected, evaluated = (first.result["counts"].get(key) for key in ("ids_expected", "ids"))
    if published:
        others = published_rows(protocol.name)
        rows += others
        if others and expected not in (None, evaluated):
            notes.append(
                f"published rows are over {expected} clips, these over {evaluated}: not comparable, only for scale"
            )
        elif others:
            notes.append(
                "published rows are as reported by their authors, without intervals, with the released evaluator"
            )
    return Leaderboard(protocol.name, str(first.result["evaluator"]["name"]), rows, notes)


def published_rows(protocol: str) -> list[Row]:
    """What model cards and published.yaml say was published for a protocol, each with its source."""
    rows: list[Row] = []
    for card in cards().values():
        results = [result for result in card.results if result.origin == "published"]
        physical = next((result.values for result in results if result.protocol == "physical"), {})
        for result in results:
            if result.protocol != protocol:
                continue
            note = [f"from {result.source}"] + ([_not_eligible(card)] if not card.leaderboard.eligible else [])
            values = {current_name(name): value for name, value in result.values.items()}
            rows.append(Row(card.name, "published", result.clips, {**values, **physical}, notes=note))
            real = {current_name(name): value for name, value in result.real.items()}
            if real and not any(row.name == "real clips" for row in rows):
                rows.insert(0, Row("real clips", "published", result.clips, real))
    content = read_yaml(_PUBLISHED)
    for number, fields in enumerate(content["rows"]):
        entry = typed(PublishedRow, fields, path=f"{_PUBLISHED.name}.rows[{number}]")
        if entry.protocol == protocol:
            rows.append(Row(entry.name, "published", entry.clips, entry.values, notes=[f"from {entry.source}"]))
    return rows


def _run_row(run: Run, half: dict[str, float]) -> Row:
    result = run.result
    physical = (result.get("physical", {}).get("predicted") or {}).get("published", {})
    values = {name: figure["mean"] for name, figure in result["rows"]["predicted"].items() if name != "ties"}
    values |= {name: physical[name] for name in _PHYSICAL if name in physical}
    spread = {name: figure["ci95"] for name, figure in result["rows"]["predicted"].items() if figure["ci95"]}
    notes = [f"{word}: {len(result[word])}" for word in ("missing", "broken", "implausible") if result.get(word)]
    try:
        card = find_card(run.name)
        notes += [] if card.leaderboard.eligible else [_not_eligible(card)]
    except ConfigError:
        pass  # a model that has no card: whether it may be on a board is its author's to say
    return Row(run.name, "measured", result["counts"]["items"], values, {**spread, **half}, notes)


def _not_eligible(card: Any) -> str:
    return f"not eligible for leaderboards: {card.leaderboard.reason}"


def _real_row(run: Run) -> Row:
    physical = (run.result.get("physical", {}).get("real") or {}).get("published", {})
    figures = run.result["rows"]["real"]
    values = {name: figure["mean"] for name, figure in figures.items() if name != "ties"}
    values |= {name: physical[name] for name in _PHYSICAL if name in physical}
    half = {name: figure["ci95"] for name, figure in figures.items() if figure["ci95"]}
    return Row("real clips", "real", run.result["counts"]["items"], values, half)


def _tell_apart(rows: Sequence[Row], runs: Sequence[Run]) -> None:
    """Rows of one model get their folders' names."""
    names = [row.name for row in rows]
    for row, run in zip(rows, runs, strict=True):
        if names.count(row.name) > 1:
            row.name = f"{row.name} [{Path(run.folder).name}]"


def _cell(row: Row, name: str) -> str:
    if name not in row.values:
        return ""
    value, half = row.values[name], row.half.get(name, 0.0)
    return f"{value:.4g}" + (f" ± {half:.2g}" if half > _ROUNDING * abs(value) else "")
