"""A data set with its motions in another representation: captions, splits and labels stay, statistics are computed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.representation import (
    MANIFEST,
    ConversionReport,
    claim,
    conversion_settings,
    convert_folder,
)
from hftrainer.data.prepare.statistics import write_statistics
from hftrainer.files import atomic_path, check_writable, only_writer, write_json
from hftrainer.motion.representation.convert import check_route
from hftrainer.readers import FileError, check_list, inside, read_json


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
    out = Path(out)
    if out.resolve() == taken.root.resolve():
        raise ValueError(f"--out is the dataset {str(source)!r} itself; choose another folder")
    motions, fps = out / "motion_data", taken.motion_format.fps
    if not (motions / MANIFEST).is_file() and any((out / name).exists() for name in _OF_A_DATASET):
        raise ValueError(f"{out} is another dataset, whose files would be overwritten; choose another --out")
    check_writable(out)
    with only_writer(out):
        claim(taken.motions, motions, conversion_settings(taken.representation, target, fps, layout, skeleton))
        made = DatasetFolder(out)
        made.write_representation(target)
        report = convert_folder(
            taken.motions, motions, taken.representation, target,
            fps=fps, layout=layout, skeleton=skeleton, flat=True, progress=progress,
        )  # fmt: skip
        _copy_words(taken, made, report)
        _complete_statistics(made)
    return report


_OF_A_DATASET = ("texts", "split", "labels.json", "mean_std", "import.jsonl")


def _copy_words(taken: DatasetFolder, made: DatasetFolder, report: ConversionReport) -> None:
    """Captions, labels and splits; those that an earlier run copied and that are gone now leave, others stay."""
    path = made.motions / MANIFEST
    manifest = read_json(path, max_bytes=1 << 30)
    texts = sorted(p.relative_to(taken.texts).as_posix()[:-4] for p in taken.texts.rglob("*.txt") if p.name[0] != ".")
    now = {"texts": texts, "split": taken.splits()}
    before = {kind: check_list(manifest.get(kind, []), str, f"{path}, {kind}") for kind in now}
    both = {kind: sorted({*before[kind], *now[kind]}) for kind in now}
    if both != before:
        write_json(path, {**manifest, **both})  # a run after a kill has to know of them
    for name in texts:
        target = inside(made.texts, name, suffix=".txt", what=str(taken.texts))
        with atomic_path(target) as temporary:
            shutil.copyfile(taken.texts / f"{name}.txt", temporary)
    if labels := taken.labels():
        made.write_labels(labels)
    for split in now["split"]:
        made.write_split(split, (name for name in taken.names(split) if name not in report.failed))
    for kind in now:
        for name in set(before[kind]) - set(now[kind]):
            inside(made.root / kind, name, suffix=".txt", what=f"{path}, {kind}").unlink(missing_ok=True)
    if now != both:
        write_json(path, {**manifest, **now})


def _complete_statistics(made: DatasetFolder) -> None:
    """Statistics, where they are missing, or their clips are not those that they were computed from."""
    path, train = made.motions / MANIFEST, "train" if "train" in made.splits() else None
    manifest = read_json(path, max_bytes=1 << 30)
    hashes = [manifest["clips"].get(name, {}).get("sha256") for name in made.names(train)]
    of = hashlib.sha256(json.dumps([train, hashes]).encode()).hexdigest()
    if manifest.get("statistics_of") != of or not (made.root / "mean_std").is_dir():
        write_statistics(made, train, grouped=True, with_mirrored=False)
        write_json(path, {**manifest, "statistics_of": of})
