"""What an import would make of files, measured and printed as one table; nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hftrainer.data.prepare.convert_motion import ImportSettings, as_record, convert_motion
from hftrainer.data.prepare.motion_import import clip_names
from hftrainer.data.prepare.workers import run_all

COLUMNS = (
    ("frames", "frames", "{:.0f}"), ("fps", "fps", "{:.4g}"), ("height m", "height", "{:.2f}"), ("up", "up", "{:+.2f}"),
    ("T-pose off", "t_pose_off", "{:.0f}"), ("spine off", "spine_tilt", "{:.0f}"), ("toes off", "toes_aside", "{:.0f}"),
    ("knees wrong", "knees_forward", "{:.0%}"), ("walk m/s", "walking_speed", "{:.1f}"),
    ("fall m/s2", "gravity", "{:.0f}"), ("skipped", "skipped", "{:.0f}"), ("first m/s", "first_step", "{:.1f}"),
    ("fastest", "fastest", "{:.1f}"), ("above 15", "glitches", "{:.0f}"), ("off floor m", "above_floor", "{:.2f}"),
)  # fmt: skip


def check_import(
    source: str | os.PathLike[str],
    settings: ImportSettings,
    *,
    prefix: str = "",
    workers: int = 1,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> dict[str, dict[str, Any] | str]:
    """By file, what `import_motions` would record, or why the file would be refused."""
    names, clashes = clip_names(Path(source), prefix)
    results = run_all(partial(_look, settings), list(names.items()), workers, _died)
    found: dict[str, dict[str, Any] | str] = dict(clashes)
    for (path, _), result in progress(results, len(names)) if progress else results:
        found[str(path)] = result
    return dict(sorted(found.items()))


def table(found: dict[str, dict[str, Any] | str]) -> Iterator[str]:
    """The lines of a table: a row a file, and below it what is refused, odd, or was put right."""
    width = max((len(_short(path)) for path in found), default=4)
    yield "  ".join(["file".ljust(width), "rest faces", *(title.rjust(9) for title, _, _ in COLUMNS)]).rstrip()
    for path, record in found.items():
        if isinstance(record, str):
            yield f"{_short(path).ljust(width)}  REFUSED: {record.removeprefix(f'{path}: ')}"
            continue
        measures = record["measures"]
        cells = [shape.format(measures[key]) if key in measures else "-" for _, key, shape in COLUMNS]
        faces = str(record["faces"]).center(10)
        yield "  ".join([_short(path).ljust(width), faces, *(cell.rjust(9) for cell in cells)]).rstrip()
        for doubt in record["doubts"]:
            yield f"{' ' * width}  doubt: {doubt}"
        for note in record["notes"]:
            yield f"{' ' * width}  note: {note}"


def _short(path: str) -> str:
    return Path(path).name[-40:]


def _look(settings: ImportSettings, item: tuple[Path, str]) -> dict[str, Any] | str:
    path, clip = item
    try:
        return as_record(convert_motion(path, settings, clip))
    except (ValueError, OSError, ImportError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - one bad file must not hide the others
        return f"{path}: cannot be read ({type(error).__name__}: {error})"


def _died(item: tuple[Path, str]) -> str:
    return f"{item[0]}: the process that read it died; is the file too large for memory?"
