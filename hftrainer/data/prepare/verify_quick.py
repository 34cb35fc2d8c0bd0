"""The quick part of `hftrainer data verify`: a sample of clips and codes, looked at before work is spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.verify import Report
from hftrainer.data.prepare.verify_clips import check_records
from hftrainer.motion.statistics import RunningStatistics

_CLIPS = 32
_ENTRIES = 256
# A few clips say less than all of them: only statistics of other units, or of another representation, are that far off
# in half of the dimensions.
_OFF, _RATIO = 3.0, 5.0


def quick_problem(source: Any, *, codes: bool) -> str | None:
    """What is wrong with a few training clips of a data source: stale, codes outside of the codebook, other statistics.

    Without `codes` they are left to training, which counts bad samples.
    """
    folder, split = getattr(source, "folder", None), getattr(source.config, "train_split", None)
    tokens, statistics = getattr(source, "tokens", None), getattr(source, "statistics", None)
    problem = wrong_codes(tokens) if codes and hasattr(tokens, "__getitem__") else None
    if problem is not None or split is None or not isinstance(folder, DatasetFolder):
        return problem
    names = folder.names(split)
    problem = stale_clips(folder, names)
    if problem is None and statistics is not None:
        problem = other_statistics(folder, names, statistics)
    return problem


def stale_clips(folder: DatasetFolder, names: Sequence[str]) -> str | None:
    """What a few of these clips say against the records of their import; None if nothing, or if there are none."""
    report = Report()
    check_records(report, folder, [name for name in _sample(names, _CLIPS) if folder.motion_path(name).is_file()])
    for problem, cases in report.problems.items():
        return f"{problem}: {cases[0]} ({len(cases)} of the clips looked at)"
    return None


def wrong_codes(tokens: Any) -> str | None:
    """Codes outside of the codebook among a few entries of a set of tokens (`__len__`, `__getitem__`)."""
    for entry in _sample(range(len(tokens)), _ENTRIES):
        codes = tokens[entry]
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < tokens.codebook_size:
            found, last = f"{codes.min()}..{codes.max()}", tokens.codebook_size - 1
            return f"entry {entry} has codes in {found}, the codebook has 0..{last}; tokenize again"
    return None


def other_statistics(
    folder: DatasetFolder, names: Sequence[str], statistics: tuple[np.ndarray, np.ndarray]
) -> str | None:
    """Whether mean and standard deviation are far from those of a few of these clips; clips that cannot be read are
    left to training, which names them."""
    sums = RunningStatistics(folder.motion_format)
    for name in _sample(names, _CLIPS):
        try:
            sums.add(folder.motion(name))
        except ValueError:
            continue
    if not sums.count:
        return None
    own_mean, own_std = sums.result(grouped=True)
    off = float(np.median(np.abs(statistics[0] - own_mean) / own_std))
    ratio = float(np.median(statistics[1] / own_std))
    if off <= _OFF and 1 / _RATIO <= ratio <= _RATIO:
        return None
    return (
        f"mean_std/ does not describe the motions: the mean is off by {off:.1f} standard deviations, std is "
        f"{ratio:.2g} times theirs; make it again with: hftrainer data stats {folder.root}"
    )


def _sample(items: Sequence[Any], count: int) -> list[Any]:
    """At most so many, spread evenly."""
    return list(items[:: max(1, len(items) // count)][:count])
