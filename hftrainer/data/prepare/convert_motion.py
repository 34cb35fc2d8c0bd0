"""One motion file to a clip: read, retarget to SMPL-22, look whether it is a person's motion, encode."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hftrainer.motion
from hftrainer.motion.examine import examine
from hftrainer.motion.io.read import read_motion
from hftrainer.motion.io.source import MotionFileError
from hftrainer.motion.representation.base import DEFAULT, Body, get_representation
from hftrainer.motion.retarget import RetargetOptions, retarget
from hftrainer.motion.skeleton_map import SkeletonMap


@dataclass(frozen=True)
class ImportSettings:
    """How files become clips. `recorded_fps` is the rate of single clips by name where their files are wrong.

    `accept` takes clips as they are that would be refused as no person's motion.
    """

    skeleton: SkeletonMap
    options: RetargetOptions = field(default_factory=RetargetOptions)
    recorded_fps: dict[str, float] = field(default_factory=dict)
    accept: bool = False

    def options_for(self, clip: str) -> RetargetOptions:
        """What holds for one clip."""
        return replace(self.options, recorded_fps=self.recorded_fps.get(clip, self.options.recorded_fps))

    def key(self, clip: str) -> str:
        """Hash of everything but the file that a clip depends on: the map, the options and this package's code."""
        parts = [_code(), self.skeleton.fingerprint(), asdict(self.options_for(clip)), self.accept]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass
class Converted:
    """A clip (frames, width) of motion272; `notes`: what was put right, `doubts`: what is odd, `measures`: numbers."""

    motion: NDArray[np.float32]
    notes: list[str]
    doubts: list[str]
    measures: dict[str, float]
    faces: str


def convert_motion(path: str | os.PathLike[str], settings: ImportSettings, clip: str = "") -> Converted:
    """One file as motion272. Raises `MotionFileError` for files that cannot be used or hold no person's motion."""
    source = read_motion(path)
    made = retarget(source, settings.skeleton, settings.options_for(clip), source=str(path))
    joints = made.joints
    found = examine(made.rotations, made.root, made.offsets, joints, made.fps, made.turns)
    doubts = list(found.doubts)
    if found.refused:
        if not settings.accept:
            raise MotionFileError(f"{path}: {'; '.join(found.refused)} (--accept imports it anyway)")
        doubts = [*found.refused, *doubts]
    body = Body(joints, made.fps, made.rotations, made.root)
    motion = get_representation(DEFAULT).from_body(body).astype(np.float32)
    if not np.isfinite(motion).all():
        raise MotionFileError(f"{path}: the result has numbers that are not finite")
    measures = {"frames": float(source.frames), "fps": settings.options_for(clip).recorded_fps or source.fps}
    measures |= {"skipped": float(made.skipped), **found.measures}
    return Converted(motion, made.notes, doubts, {k: round(v, 4) for k, v in measures.items()}, made.faces)


@cache
def _code() -> str:
    """Hash of the modules that turn files into clips, so that clips of other code are made again."""
    folder = Path(hftrainer.motion.__file__).parent
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def as_record(made: Converted) -> dict[str, Any]:
    """What import.jsonl says of a clip beside where it came from."""
    return {
        "frames": len(made.motion), "faces": made.faces, "notes": made.notes, "doubts": made.doubts,
        "measures": made.measures,
    }  # fmt: skip
