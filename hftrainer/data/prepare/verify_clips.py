"""What `verify` says of clips beside their numbers: bodies that are none, the same motion twice, and import records."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.import_records import NAME, ImportRecords
from hftrainer.data.prepare.splits import original_of
from hftrainer.files import sha256
from hftrainer.motion.examine import examine
from hftrainer.motion.representation import motion272
from hftrainer.motion.representation.base import DEFAULT, Representation
from hftrainer.motion.skeleton import bone_offsets

if TYPE_CHECKING:
    from hftrainer.data.prepare.verify import Report

_HELD = ("val", "test")
_MIRROR_OFF = 0.01  # mean difference of features; conversion between representations costs less


def check_body(report: Report, name: str, motion: np.ndarray, motion_format: Representation) -> None:
    """What an import would have refused or doubted, of a motion that has rotations."""
    if motion_format.name != DEFAULT or len(motion) < 2:
        return
    wide = motion.astype(np.float64)
    joints = motion272.to_joints(wide)
    rotations, root = motion272.to_rotations(wide)
    found = examine(rotations, root, bone_offsets(joints, rotations), joints, motion_format.fps)
    for text in found.refused:
        report.add("implausible motion", f"{name}: {text}")
    for text in found.doubts:
        report.doubt("implausible for human motion", f"{name}: {text}")


class SameMotions:
    """Clips whose numbers are equal: one in a held-out split and one in training is a leak."""

    def __init__(self) -> None:
        self.names: dict[bytes, list[str]] = {}

    def add(self, name: str, motion: np.ndarray) -> None:
        """Note a clip."""
        self.names.setdefault(hashlib.sha256(np.ascontiguousarray(motion).tobytes()).digest(), []).append(name)

    def check(self, report: Report, dataset: DatasetFolder) -> None:
        """Say which are the same."""
        splits = {split: set(dataset.names(split)) for split in dataset.splits()}
        for names in self.names.values():
            if len(names) < 2:
                continue
            leak = _leak(names, splits)
            if leak is not None:
                report.add("the same motion in held-out and training splits", f"{' = '.join(names[:4])} in {leak}")
            else:
                report.doubt("the same motion twice", " = ".join(names[:4]))


def _leak(names: list[str], splits: dict[str, set[str]]) -> str | None:
    """The two splits of one folder between which the names of one motion leak."""
    for held, members in splits.items():
        folder, _, part = held.rpartition("/")
        if part not in _HELD or not members & set(names):
            continue
        for split, others in splits.items():
            beside, _, other = split.rpartition("/")
            if beside == folder and other not in (*_HELD, "all") and others & set(names):
                return f"{held} and {split}"
    return None


def check_mirrored(report: Report, dataset: DatasetFolder, name: str, motion: np.ndarray, names: set[str]) -> None:
    """A mirror image whose original is gone or is another motion now; `names` are all clips of the set."""
    original = original_of(name)
    if original is None:
        return
    if original not in names:
        report.add("mirrored clip without its original; remove it, or restore the original", name)
        return
    try:
        want = dataset.motion_format.mirror(dataset.motion(original))
    except ValueError:  # an original that cannot be read is reported as such; some representations have no mirror image
        return
    if len(want) != len(motion) or np.abs(want - motion).mean() > _MIRROR_OFF:
        report.add("not the mirror image of its original; run hftrainer data mirror again", f"{name} of {original}")


def check_records(report: Report, dataset: DatasetFolder, names: list[str]) -> None:
    """Imported clips that are not what their import wrote, or that a killed import did not finish."""
    if not (dataset.root / NAME).is_file():
        return
    try:
        records = ImportRecords(dataset.root).clips
    except ValueError as error:
        report.add("import records", str(error))
        return
    count = sum("key" in record for record in records.values())
    report.facts["imported"] = f"{count} clips; their sources are in {NAME}"
    for name in sorted(records.keys() - set(dataset.names())):
        report.add("imported, but without a motion file; import again", name)
    for name in names:
        record = records.get(name)
        if record is None:
            continue
        if "motion_sha256" not in record:
            report.add("an import was interrupted; run it again", name)
        elif record["motion_sha256"] != sha256(dataset.motion_path(name)):
            report.add("changed since it was imported", name)
