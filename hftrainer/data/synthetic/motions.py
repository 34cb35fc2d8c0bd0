"""A small procedural dataset: a body that walks, turns, waves, squats or stands. Free of anyone's rights.

For debugging and tests, where it stands in for motion capture: real layout, real statistics, captions that fit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.splits import split_names
from hftrainer.data.prepare.statistics import write_statistics
from hftrainer.data.tokens.folder import write_token_set
from hftrainer.files import atomic_folder, is_temporary
from hftrainer.motion.representation.base import DEFAULT, Body, get_representation
from hftrainer.motion.rotation import axis_angle_to_matrix
from hftrainer.motion.skeleton import JOINTS, forward_kinematics
from hftrainer.readers import FileError

Float = NDArray[np.float64]

# A plain skeleton of about 1.7 m in a T-pose, metres from parent to joint.
OFFSETS = np.array(
    [
        [0, 0, 0], [0.07, -0.09, 0], [-0.07, -0.09, 0], [0, 0.12, -0.02], [0.03, -0.38, 0], [-0.03, -0.38, 0],
        [0, 0.14, 0.01], [-0.01, -0.40, -0.03], [0.01, -0.40, -0.03], [0, 0.06, 0.02], [0.02, -0.06, 0.12],
        [-0.02, -0.06, 0.12], [0, 0.20, -0.03], [0.08, 0.11, -0.02], [-0.08, 0.11, -0.02], [0, 0.12, 0.05],
        [0.10, 0.03, -0.01], [-0.10, 0.03, -0.01], [0.26, 0, -0.02], [-0.26, 0, -0.02], [0.25, 0, 0], [-0.25, 0, 0],
    ]
)  # fmt: skip

CAPTIONS = {
    "walk": ["a person walks forward", "someone is walking ahead", "walk"],
    "turn-left": ["a person walks in a curve to the left", "turn left while walking"],
    "wave": ["a person waves the right hand", "someone is waving with the right arm"],
    "squat": ["a person squats down and stands up", "do a squat"],
    "stand": ["a person stands still", "someone is standing"],
}


@dataclass
class _Pose:
    """Rotation vectors (T, 22, 3) and pelvis path (T, 3), to be filled in by joint names."""

    vectors: Float
    root: Float

    def set(self, joint: str, axis: int, angle: Float | float) -> None:
        self.vectors[:, JOINTS.index(joint), axis] += angle


def make_motion(content: str, frames: int, seed: int, representation: str = DEFAULT) -> Float:
    """One clip of so many frames of joints, encoded (frames, width); the seed varies speed, size and phase."""
    motion_format = get_representation(representation)
    return np.asarray(motion_format.from_body(make_body(content, frames, seed, motion_format.fps)))


def make_body(content: str, frames: int, seed: int, fps: float) -> Body:
    """Joints and rotations of a clip; the seed varies speed, size and phase."""
    rng = np.random.default_rng([seed, *content.encode()])
    t = np.arange(frames) / fps
    speed, phase, size = rng.uniform(0.8, 1.2), rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.1)
    pose = _Pose(np.zeros((frames, len(JOINTS), 3)), np.zeros((frames, 3)))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        pose.set(f"{side}_shoulder", 2, -sign * 1.25)  # arms hang down
    pose.set("spine2", 0, 0.02 * np.sin(2 * np.pi * 0.3 * t + phase))  # breath
    if content in ("walk", "turn-left"):
        _walk(pose, t, speed, phase, fps, turning=0.6 if content == "turn-left" else 0.0)
    elif content == "wave":
        lift = np.clip(t / 0.5, 0, 1) * np.clip((t[-1] - t) / 0.5, 0, 1)
        pose.set("right_shoulder", 2, -2.3 * lift)
        pose.set("right_elbow", 2, -lift * (0.4 + 0.5 * np.sin(2 * np.pi * 1.8 * speed * t)))
    elif content == "squat":
        depth = 0.5 * (1 - np.cos(2 * np.pi * 0.4 * speed * t)) * 0.9
        for side in ("left", "right"):
            pose.set(f"{side}_hip", 0, -depth)
            pose.set(f"{side}_knee", 0, 2 * depth)
            pose.set(f"{side}_ankle", 0, -depth)
        pose.root[:, 1] -= 0.78 * (1 - np.cos(depth))
    elif content != "stand":
        raise ValueError(f"no synthetic motion {content!r}; known: {', '.join(CAPTIONS)}")
    rotations = axis_angle_to_matrix(pose.vectors)
    joints = forward_kinematics(rotations, pose.root * size, OFFSETS * size)
    return Body(joints, fps, rotations, joints[:, 0])


def _walk(pose: _Pose, t: Float, speed: float, phase: float, fps: float, turning: float) -> None:
    swing = np.sin(2 * np.pi * 0.9 * speed * t + phase)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        pose.set(f"{side}_hip", 0, -0.45 * sign * swing)
        pose.set(f"{side}_knee", 0, 0.5 * np.clip(sign * np.cos(2 * np.pi * 0.9 * speed * t + phase), 0, None))
        pose.set(f"{side}_shoulder", 0, 0.3 * sign * swing)
    heading = turning * t
    pose.vectors[:, 0, 1] += heading
    step = 1.2 * speed / fps
    pose.root[:, 0] = np.cumsum(step * np.sin(heading))
    pose.root[:, 2] = np.cumsum(step * np.cos(heading))
    pose.root[:, 1] += 0.02 * np.cos(4 * np.pi * 0.9 * speed * t + 2 * phase)


def fake_codes(content: str, frames: int, codebook_size: int, seed: int) -> NDArray[np.int64]:
    """Codes that depend on the content as real ones do, for training a transformer without a tokenizer."""
    rng = np.random.default_rng([1, *content.encode()])
    cycle = rng.integers(0, codebook_size, size=12)
    start = int(np.random.default_rng(seed).integers(12))
    return np.asarray(cycle[(start + np.arange(frames // 2)) % 12])


def write_tokens(dataset: DatasetFolder, *, codebook_size: int, seed: int = 0) -> None:
    """Write tokens/ with `fake_codes` for every clip."""
    labels = dataset.labels()
    rows = (
        (name, fake_codes(labels[name]["content"], dataset.frames(name), codebook_size, seed + i))
        for i, name in enumerate(dataset.names())
    )
    about = {
        "tokenizer_sha256": "synthetic", "codebook_size": codebook_size, "frames_per_code": 2,
        "dataset": dataset.root.name, "clips": len(labels), "both_phases": False,
    }  # fmt: skip
    write_token_set(dataset.root / "tokens", rows, about)


def write_dataset(
    root: str | os.PathLike[str], *, clips: int = 48, seed: int = 0, representation: str = DEFAULT
) -> DatasetFolder:
    """Write `clips` clips of 2 to 5 s with captions, labels, splits and statistics; the same for the same seed.

    All of it or nothing: a synthetic dataset that is there is replaced. ``ValueError`` for a folder of anything else.
    """
    root = Path(root)
    _check_replaceable(root)
    with atomic_folder(root) as staging:
        _fill(DatasetFolder(staging, create=True), clips, seed, representation)
    return DatasetFolder(root)


_PARTS = {"motion_data", "texts", "split", "mean_std", "labels.json", "representation.json"}


def _check_replaceable(root: Path) -> None:
    """A command that is given the wrong folder must not take somebody's dataset for one of ours."""
    if not root.exists():
        return
    there = {path.name for path in root.iterdir() if not is_temporary(path.name)} if root.is_dir() else {""}
    names = DatasetFolder(root).names() if there & _PARTS else []
    if not there <= _PARTS or not all(name.startswith("synthetic_") for name in names):
        raise FileError(f"{root} holds more than a synthetic dataset; choose another --out, or remove it")


def _fill(dataset: DatasetFolder, clips: int, seed: int, representation: str) -> None:
    dataset.write_representation(representation)
    contents, labels = sorted(CAPTIONS), {}
    for number in range(clips):
        content = contents[number % len(contents)]
        frames = int(np.random.default_rng([seed, number]).integers(60, 151))
        name = f"synthetic_{content}_{number:04d}"
        dataset.write_motion(name, make_motion(content, frames, seed + number, representation))
        dataset.write_captions(name, CAPTIONS[content])
        labels[name] = {"content": content, "style": "normal", "set": "synthetic"}
    dataset.write_labels(labels)
    groups = {name: label["content"] for name, label in labels.items()}
    for split, names in split_names(list(labels), groups, val=0.15, test=0.15, seed=seed).items():
        dataset.write_split(split, names)
    write_statistics(dataset, "train", grouped=True, with_mirrored=False)
