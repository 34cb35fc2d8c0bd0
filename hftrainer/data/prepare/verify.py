"""Is a dataset folder what it should be? Every file is looked at; everything found wrong is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.verify_clips import SameMotions, check_body, check_mirrored, check_records
from hftrainer.motion.plausible import WRONG
from hftrainer.motion.representation.base import Representation
from hftrainer.motion.statistics import RunningStatistics
from hftrainer.readers import read_json

_SHOWN = 5
_ENOUGH = 500  # motions of a sample that statistics are compared with
_JOINED_SPLITS = {"val": ("all", "train_val", "trainval"), "test": ("all",)}  # hold others on purpose
_WITHOUT_CAPTIONS = "unlabelled"  # the split of clips that are meant to have none


@dataclass
class Report:
    """`facts` to print, `problems`: what is wrong, with the clips that it is wrong with, and `doubts`: what is odd."""

    facts: dict[str, str] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)
    doubts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    def add(self, problem: str, what: str) -> None:
        """Note one more case of a problem."""
        self.problems.setdefault(problem, []).append(what)

    def doubt(self, oddity: str, what: str) -> None:
        """Note one more case of something odd, which a clip may well be."""
        self.doubts.setdefault(oddity, []).append(what)

    def lines(self) -> list[str]:
        """The report as text."""
        out = [f"{key:20} {value}" for key, value in self.facts.items()]
        for word, found in (("doubt", self.doubts), ("WRONG", self.problems)):
            for problem, cases in found.items():
                more = f" and {len(cases) - _SHOWN} more" if len(cases) > _SHOWN else ""
                out.append(f"{word}: {problem} ({len(cases)}): {', '.join(cases[:_SHOWN])}{more}")
        return [*out, "ok" if self.good else f"{len(self.problems)} kinds of problems"]


def verify(
    dataset: DatasetFolder,
    *,
    sample: int | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Report:
    """Check motions, captions, splits and statistics; with `sample`, so many motions drawn at random, and all names."""
    report = Report()
    everything = names = dataset.names()
    if not names:
        report.add("no motions", str(dataset.motions))
        return report
    if sample is not None and sample < len(names):
        report.facts["sample"] = f"{sample} of {len(names)} motions were read"
        names = [names[i] for i in sorted(np.random.default_rng(0).choice(len(names), sample, replace=False).tolist())]
    lengths, sums, motion_format = [], RunningStatistics(dataset.motion_format), dataset.motion_format
    doubtful: dict[str, list[str]] = {}
    train = set(dataset.names("train")) if "train" in dataset.splits() else set(names)
    silent = set(dataset.names(_WITHOUT_CAPTIONS)) if _WITHOUT_CAPTIONS in dataset.splits() else set()
    present = set(everything)
    mirrored, bodies = _made_with_mirrored(dataset), SameMotions()
    for name in progress(names):
        try:
            motion = dataset.motion(name)
        except ValueError as error:
            report.add("unreadable, NaN or wrong shape", str(error))
            continue
        lengths.append(len(motion))
        _check_motion(report, name, motion, motion_format, doubtful)
        check_body(report, name, motion, motion_format)
        check_mirrored(report, dataset, name, motion, present)
        bodies.add(name, motion)
        if name in train:
            sums.add(motion)
            if mirrored:
                sums.add(motion_format.mirror(motion))
        if dataset.texts.is_dir() and name not in silent and not dataset.captions(name):
            report.add("no caption", name)
    for problem, cases in doubtful.items():
        if len(cases) > len(lengths) / 2:  # a clip may be a handstand; most of a set are not
            report.problems.setdefault(problem, []).extend(cases)
    minutes = sum(lengths) / motion_format.fps / 60
    report.facts["motions"] = f"{len(names)} of {motion_format.name} ({sum(lengths)} frames, {minutes:.1f} min)"
    if lengths:
        low, middle, high = np.percentile(lengths, [0, 50, 100]).astype(int)
        report.facts["frames a clip"] = f"{low} to {high}, median {middle}"
    if not dataset.texts.is_dir():
        report.facts["captions"] = "none"
    _check_splits(report, dataset, present)
    bodies.check(report, dataset)
    check_records(report, dataset, names)
    if len(names) == len(everything) or len(names) >= _ENOUGH:
        _check_statistics(report, dataset, sums)
    else:
        report.facts["statistics"] = f"not compared: needs a sample of at least {_ENOUGH} motions"
    return report


def _check_motion(
    report: Report, name: str, motion: np.ndarray, motion_format: Representation, doubtful: dict[str, list[str]]
) -> None:
    if len(motion) < 2:
        report.add("fewer than 2 frames", name)
    for problem in motion_format.problems(motion):
        case = f"{name}: {problem.text}"
        if problem.certain:
            report.add(WRONG[problem.kind], case)
        else:
            doubtful.setdefault(WRONG[problem.kind], []).append(case)


def _check_splits(report: Report, dataset: DatasetFolder, names: set[str]) -> None:
    splits = {split: dataset.names(split) for split in dataset.splits()}
    for split, members in splits.items():
        report.facts[f"split {split}"] = str(len(members))
        for name in sorted(set(members) - names):
            report.add(f"in split {split} without a motion file", name)
        if len(set(members)) < len(members):
            report.add("split has duplicate names", split)
    for held, members in splits.items():
        folder, _, part = held.rpartition("/")
        if part not in ("val", "test"):
            continue
        for split in splits.keys() - {held}:
            # splits in another folder divide the clips for another purpose
            beside, _, other = split.rpartition("/")
            if beside == folder and other not in _JOINED_SPLITS.get(part, ()):
                for name in sorted(set(members) & set(splits[split])):
                    report.add(f"in both {held} and {split}", name)


def _made_with_mirrored(dataset: DatasetFolder) -> bool:
    note = dataset.root / "mean_std" / "made_from.json"
    return note.is_file() and bool(read_json(note).get("with_mirrored"))


def _check_statistics(report: Report, dataset: DatasetFolder, sums: RunningStatistics) -> None:
    if not (dataset.root / "mean_std").is_dir():
        report.facts["statistics"] = "none"
        return
    try:
        mean, std = dataset.statistics()
    except ValueError as error:
        report.add("statistics", str(error))
        return
    if not sums.count:
        return
    own_mean, own_std = sums.result(grouped=True)
    off = np.abs(mean - own_mean) / own_std
    ratio = std / own_std
    report.facts["statistics"] = f"mean off by up to {off.max():.2f} std, std x {ratio.min():.2f} to {ratio.max():.2f}"
    if off.max() > 1.5 or ratio.max() > 3 or ratio.min() < 1 / 3:
        report.add("statistics do not describe these motions", report.facts["statistics"])
