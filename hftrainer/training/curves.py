"""The curves of a run as one picture, from its CSV logs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftrainer.evaluation.physical import KEYS, table_scaled_physical_metrics
from hftrainer.evaluation.vocabulary import current_name
from hftrainer.extras import need
from hftrainer.files import atomic_path
from hftrainer.readers import FileError

Curve = list[tuple[int, float]]

_COLORS = ("#3470c4", "#d65442", "#3f9c5a", "#8b5fbf", "#c98a1b", "#4aa6b5")
_INK, _GRID, _PAPER = "#2c3038", "#e0e3e8", "#ffffff"
_SCALE = 2  # drawn larger, shrunk afterwards, which smooths every edge


def read_curves(run: Path) -> dict[str, Curve]:
    """Every logged value by name, as (step, value) in the order of steps; what a resumed run logged again counts."""
    curves: dict[str, dict[int, float]] = {}
    files = sorted(run.glob("logs/version_*/metrics.csv"), key=lambda path: int(path.parent.name[8:]))
    if not files:
        raise FileError(f"{run} has no logs/version_*/metrics.csv; give the output_dir of a run")
    for path in files:
        with path.open(newline="", encoding="utf-8") as stream:
            try:
                for row in csv.DictReader(stream):
                    step = int(float(row["step"]))
                    for name, text in row.items():
                        if name not in ("step", "epoch") and text:
                            today, value = _in_todays_terms(name, float(text))
                            curves.setdefault(today, {})[step] = value
            except (KeyError, TypeError, AttributeError, ValueError, OverflowError, csv.Error) as error:
                raise FileError(f"{path} is not a log of a run ({type(error).__name__}: {error})") from error
    return {name: sorted(points.items()) for name, points in sorted(curves.items())}


def _in_todays_terms(name: str, value: float) -> tuple[str, float]:
    """Name and value of a scalar that a run of an earlier version may have logged, physical metrics without units."""
    today = current_name(name)
    metric = today.rpartition("/")[2]
    if today != name and metric in KEYS:
        value = table_scaled_physical_metrics({metric: value})[metric]
    return today, value


def choose_panels(names: Sequence[str]) -> list[list[str]]:
    """One panel a value; training and validation together, and generated together with real."""
    panels: dict[str, list[str]] = {}
    for name in names:
        kind, _, rest = name.partition("/")
        key = rest.removeprefix("real/") or kind
        panels.setdefault(key, []).append(name)
    return [sorted(group, key=lambda name: ("/real/" in name, name)) for group in panels.values()]


def draw_curves(
    run: Path, out: Path, *, names: Sequence[str] | None = None, columns: int = 3, title: str | None = None
) -> Path:
    """Write a PNG with a panel for each value (`names`; all that have two points without), and return its path.

    A training value is drawn faintly as logged, and as a running mean. Needs Pillow (the extra "viz").
    """
    need("PIL", "drawing curves")
    curves = read_curves(run)
    names = None if names is None else [current_name(name) for name in names]
    unknown = [name for name in names or [] if name not in curves]
    if unknown:
        raise FileError(f"{run} did not log {unknown}; it logged {list(curves)}")
    wanted = list(names) if names else [name for name, points in curves.items() if len(points) > 1]
    panels = choose_panels(wanted)
    if not panels:
        raise FileError(f"{run} has no value that was logged twice; no curve to draw")
    canvas = Canvas(columns=min(columns, len(panels)), panels=len(panels), title=title or run.name)
    for number, panel in enumerate(panels):
        canvas.panel(number, {name: curves[name] for name in panel})
    canvas.save(out)
    return out


def running_mean(points: Curve, share: float = 0.02) -> Curve:
    """Each value with those before it, over a window of a fraction of all points; NaN is excluded."""
    width = max(1, round(len(points) * share))
    smooth = []
    for i, (step, _) in enumerate(points):
        window = [value for _, value in points[max(0, i - width + 1) : i + 1] if math.isfinite(value)]
        if window:
            smooth.append((step, sum(window) / len(window)))
    return smooth


@dataclass
class Axis:
    """A range and round numbers in it."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> Axis:
        """A little wider than the values; of many, the largest hundredth (a start) is cut off."""
        finite = sorted(value for value in values if math.isfinite(value)) or [0.0, 1.0]
        high = finite[min(len(finite) - 1, math.floor(0.99 * len(finite)))] if len(finite) > 50 else finite[-1]
        low = finite[0]
        margin = 0.06 * (high - low) or abs(high) * 0.1 or 0.5
        return cls(low - margin, high + margin)

    def ticks(self, count: int = 4) -> list[float]:
        """About `count` multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= 0.7 * rough)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]

    def share(self, value: float) -> float:
        """0 at `low`, 1 at `high`, not beyond."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


class Canvas:
    """Panels of 400 x 260 pixels in rows."""

    width, height, head = 400, 260, 44
    left, right, top, bottom = 58, 16, 34, 30

    def __init__(self, *, columns: int, panels: int, title: str):
        from PIL import Image, ImageDraw, ImageFont

        rows = -(-panels // columns)
        self.columns = columns
        self.size = (columns * self.width, rows * self.height + self.head)
        self.image = Image.new("RGB", (_SCALE * self.size[0], _SCALE * self.size[1]), _PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.fonts: dict[int, Any] = {size: ImageFont.load_default(size * _SCALE) for size in (11, 13, 18)}
        self.text((16, 12), title, 18)

    def text(self, at: tuple[float, float], text: str, size: int, color: str = _INK, anchor: str = "la") -> None:
        """Text at a place in pixels of the finished picture."""
        self.draw.text((at[0] * _SCALE, at[1] * _SCALE), text, fill=color, font=self.fonts[size], anchor=anchor)

    def line(self, points: Sequence[tuple[float, float]], color: str, width: float) -> None:
        """A line through places."""
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self.draw.line(scaled, fill=color, width=max(1, round(width * _SCALE)), joint="curve")

    def panel(self, number: int, curves: Mapping[str, Curve]) -> None:
        """Axes, lines and names of one panel."""
        x0 = number % self.columns * self.width + self.left
        y0 = self.head + number // self.columns * self.height + self.top
        x1, y1 = x0 + self.width - self.left - self.right, y0 + self.height - self.top - self.bottom
        steps = Axis(0, max(step for points in curves.values() for step, _ in points) or 1)
        values = Axis.around([value for points in curves.values() for _, value in points])
        for value in values.ticks():
            y = y1 - values.share(value) * (y1 - y0)
            self.line([(x0, y), (x1, y)], _GRID, 1)
            self.text((x0 - 6, y), f"{value:.4g}", 11, anchor="rm")
        for step in steps.ticks():
            x = x0 + steps.share(step) * (x1 - x0)
            self.text((x, y1 + 5), f"{step:.6g}", 11, anchor="ma")
        at = float(x0)
        for (name, points), color in zip(curves.items(), _COLORS * 9, strict=False):
            smooth = running_mean(points) if len(points) > 100 else points
            for line, paint, width in ((points, _faint(color), 1.0), (smooth, color, 2.0)):
                places = [
                    (x0 + steps.share(step) * (x1 - x0), y1 - values.share(value) * (y1 - y0))
                    for step, value in line
                    if math.isfinite(value)
                ]
                if len(places) > 1:
                    self.line(places, paint, width)
            self.text((at, y0 - 20), name, 13, color)
            at += self.draw.textlength(name + "   ", font=self.fonts[13]) / _SCALE

    def save(self, out: Path) -> None:
        """Shrink and write."""
        from PIL import Image

        with atomic_path(out) as temporary:
            self.image.resize(self.size, Image.Resampling.LANCZOS).save(temporary, format="PNG", optimize=True)


def _faint(color: str) -> str:
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - 0.35 * (255 - value)):02x}" for value in channels)
