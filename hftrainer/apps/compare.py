"""Two evaluations of the same clips, item by item: the library behind ``hftrainer evaluate run --compare``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from hftrainer.evaluation.compare import Difference, as_dicts, compare, difference_table, read_run
from hftrainer.evaluation.report import aligned, pipe_table
from hftrainer.files import check_writable, write_json, write_text
from hftrainer.shown import as_markdown


@dataclass
class Comparison:
    """`differences` of run b against run a over the items of both; `left_out`: items of only one of them."""

    a: str
    b: str
    protocol: str
    differences: list[Difference]
    left_out: tuple[int, int]

    def __str__(self) -> str:
        lines = [f"{self.b} against {self.a}, {self.differences[0].n} items of {self.protocol}, compared item by item"]
        if any(self.left_out):
            lines.append(f"excluded, because they exist in only one run: {self.left_out[0]} and {self.left_out[1]}")
        return "\n".join([*lines, "", aligned(difference_table(self.differences, self.a, self.b))])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"a": self.a, "b": self.b, "differences": as_dicts(self.differences)}

    def write(self, folder: str | os.PathLike[str]) -> None:
        """comparison.json and comparison.md."""
        folder = check_writable(folder)
        write_json(folder / "comparison.json", self.as_dict())
        table = pipe_table(difference_table(self.differences, self.a, self.b))
        title = as_markdown(f"{self.b} against {self.a}")
        write_text(folder / "comparison.md", f"# {title}\n\n{table}\n")


def compare_runs(
    first: str | os.PathLike[str], second: str | os.PathLike[str], *, resamples: int = 1000, seed: int = 0
) -> Comparison:
    """The runs in two folders; ``ValueError`` if they used different protocols, evaluators or clips."""
    a, b = read_run(first), read_run(second)
    differences = compare(a, b, resamples=resamples, seed=seed)
    names = (a.name, b.name) if a.name != b.name else (str(a.folder), str(b.folder))
    left_out = [len(run.items["keys"]) - differences[0].n for run in (a, b)]
    return Comparison(*names, str(a.result["protocol"]["name"]), differences, (left_out[0], left_out[1]))
