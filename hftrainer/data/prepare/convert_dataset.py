"""A data set with its motions in another representation: captions, splits and labels stay, statistics are computed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.representation import ConversionReport, convert_folder
from hftrainer.data.prepare.statistics import write_statistics
from hftrainer.files import check_writable
from hftrainer.motion.representation.convert import check_route
from hftrainer.readers import FileError


def is_dataset(folder: str | os.PathLike[str]) -> bool:
    """The folder is laid out as a data set, not only a folder of motion files."""
    return Path(folder).is_dir() and DatasetFolder(folder).motions.is_dir()


def convert_dataset(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    target: str,
    *,
    source_name: str | None = None,
    layout: str = "columns_interleaved",
    skeleton: str | os.PathLike[str] | None = None,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> ConversionReport:
    """Write a data set folder of `target` to `out`; a second run makes what changed, as `convert_folder` does.

    Clips that cannot be converted are reported and left out of the splits. Statistics are those of the train split, or
    of all clips without one, by the rule of `target`. Codes are not taken over: they belong to the source's motions.
    """
    taken = DatasetFolder(source)
    if source_name not in (None, taken.representation):
        raise FileError(f"{source} is a dataset of {taken.representation}, not of {source_name}; remove --from")
    check_route(taken.representation, target)
    if Path(out).resolve() == taken.root.resolve():
        raise ValueError(f"--out is the dataset {str(source)!r} itself; choose another folder")
    check_writable(Path(out))
    made = DatasetFolder(out, create=True)
    made.write_representation(target)
    report = convert_folder(
        taken.motions, made.root / "motion_data", taken.representation, target,
        fps=taken.motion_format.fps, layout=layout, skeleton=skeleton, flat=True, progress=progress,
    )  # fmt: skip
    made = DatasetFolder(out)
    if taken.texts.is_dir():
        shutil.copytree(taken.texts, made.texts, dirs_exist_ok=True)
    if labels := taken.labels():
        made.write_labels(labels)
    for split in taken.splits():
        made.write_split(split, (name for name in taken.names(split) if name not in report.failed))
    if report.made or not (made.root / "mean_std").is_dir():
        train = "train" if "train" in made.splits() else None
        write_statistics(made, train, grouped=True, with_mirrored=False)
    return report
