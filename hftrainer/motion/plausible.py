"""What shows that numbers are not the motion of a body in metres: normalized, in centimetres, upside down, frozen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.skeleton import JOINTS, PARENTS

Float64 = NDArray[np.float64]

BODY = (1.5, 8.0)  # metres of all 21 bones together; an adult's are 4 to 5, a small child's 2
STRETCH = 0.25  # share of its length by which a bone may vary on average; decoded motion stays far below
# Share of all bone length that lies in other bones than in `_BONES`: 0.02 for SMPL bodies, 0.04 to 0.12 for those of
# other capture systems (CMU's spine and collar joints lie elsewhere), 0.2 and more for random lengths.
DISPROPORTION = 0.17
FASTEST = 15.0  # metres a second in the world; nothing a body does
BELOW_FLOOR = 0.05  # metres
FROZEN = 1e-6  # metres that no joint moves further, over a clip of at least `FEW` frames
FEW = 10
_UNIT_LENGTH = 0.2  # by which the rows of a rotation may differ from unit length in the median frame
_UNITS = {100.0: "centimetres", 1000.0: "millimetres", 0.01: "hundreds of metres"}
# HumanML3D's body (joints 1 to 21), as shares of its length
_BONES = np.array(
    [103, 110, 132, 394, 390, 143, 432, 426, 57, 143, 149, 219, 137, 143, 103, 132, 123, 257, 263, 266, 270]
)
_FEET = [JOINTS.index(name) for name in ("left_foot", "right_foot")]
_HEAD = JOINTS.index("head")


WRONG = {
    "normalized": "normalized (z-scores), or another representation",
    "root": "root not at the origin of its own frame",
    "velocities": "velocities that do not belong to the positions",
    "units": "bones that are too long or too short for a body in metres",
    "not a body": "implausible bone proportions",
    "frozen": "nothing moves",
    "upside down": "upside down",
    "lying": "as low as it is long in every frame",
    "speed": f"a joint moves more than {FASTEST:g} m in a second",
    "floor": f"a joint more than {100 * BELOW_FLOOR:g} cm below the floor",
}


class Problem(NamedTuple):
    """A kind of problem (of `WRONG`), a sentence, and whether one clip is enough to be sure of it."""

    kind: str
    text: str
    certain: bool = True


def joint_problems(joints: Float64, fps: float) -> list[Problem]:
    """Problems of one clip (T, 22, 3) in metres, Y up; the first one found explains the others, so that it ends there.

    How high the floor is is not known here; see `below_floor`.
    """
    bones = np.linalg.norm(joints[:, 1:] - joints[:, list(PARENTS[1:])], axis=-1)
    lengths = np.median(bones, axis=0)
    total = float(lengths.sum())
    if not BODY[0] <= total <= BODY[1]:
        unit = next((name for factor, name in _UNITS.items() if BODY[0] <= total / factor <= BODY[1]), None)
        what = f"is it in {unit}?" if unit is not None else "is it normalized, or another representation?"
        return [Problem("units", f"the bones of the body measure {total:.3g} m together, a body's about 4.5 m; {what}")]
    stretch = float((np.abs(bones - lengths) / np.maximum(lengths, 0.02)).mean())
    if stretch > STRETCH:
        text = f"bones change their length by {stretch:.0%} on average; is it normalized, or another representation?"
        return [Problem("not a body", text)]
    if len(joints) >= FEW and float(np.abs(joints - joints[:1]).max()) < FROZEN:
        return [Problem("frozen", "no joint moves in any frame")]
    other = disproportion(lengths)
    if other > DISPROPORTION:
        text = f"its bones have other proportions than a body's ({other:.0%} of their length lies elsewhere)"
        return [Problem("not a body", f"{text}; is it normalized, or another representation?", False)]
    upright = joints[:, _HEAD, 1] - joints[:, _FEET, 1].mean(axis=-1)
    if float(np.mean(upright < -0.3)) > 0.95:
        return [Problem("upside down", "the head is below the feet in every frame; is the sign of Y wrong?", False)]
    if float(np.mean(np.abs(upright) < 0.15)) > 0.95:
        return [Problem("lying", "the head is as low as the feet in every frame; is another axis than Y up?", False)]
    fastest = float(np.linalg.norm(np.diff(joints, axis=0), axis=-1).max()) * fps if len(joints) > 1 else 0.0
    if fastest > FASTEST:
        return [Problem("speed", f"a joint moves at {fastest:.3g} m/s, more than {FASTEST:g} m/s")]
    return []


def disproportion(lengths: Float64) -> float:
    """Share of the length of the 21 bones (21,) that lies in other bones than a body's; see `DISPROPORTION`."""
    return float(np.abs(lengths / lengths.sum() - _BONES / _BONES.sum()).sum() / 2)


def below_floor(joints: Float64) -> list[Problem]:
    """Problems of one clip (T, 22, 3) of a representation whose floor is at height 0."""
    if float(np.median(joints[:, 0, 1])) < -BELOW_FLOOR:
        return [Problem("upside down", "the pelvis is below the floor; is the sign wrong?")]
    if (depth := float(-joints[..., 1].min())) > BELOW_FLOOR:
        return [
            Problem("floor", f"a joint is {100 * depth:.0f} cm below the floor, more than {100 * BELOW_FLOOR:g} cm")
        ]
    return []


def unit_length_problem(vectors: Float64) -> list[Problem]:
    """Problems of vectors (..., 3) that are rows or columns of rotations."""
    off = float(np.median(np.abs(np.linalg.norm(vectors, axis=-1) - 1.0)))
    if off <= _UNIT_LENGTH:
        return []
    text = f"its rotations are invalid (their rows are {off:.2g} off unit length); is it normalized (z-scores)?"
    return [Problem("normalized", text)]


def frozen_problem(motion: Float64) -> list[Problem]:
    """Problems of features (T, width) that hold one frame over and over; decoded, such a body may still glide."""
    if len(motion) >= FEW and float(np.abs(motion - motion[:1]).max()) < FROZEN:
        return [Problem("frozen", "all frames are identical")]
    return []


def problem_of_most(
    representation: Any, clips: Iterable[tuple[str, NDArray[Any]]], *, share: float = 0.5
) -> str | None:
    """One sentence about a set of named clips (T, width) of which more than `share` have a `Problem`; else None.

    A motion that some model made may be bad without being wrongly written; a set of which most clips have problems is
    not what it is taken for.
    """
    number = bad = 0
    seen = Counter[str]()
    examples: dict[str, str] = {}
    for name, motion in clips:
        number += 1
        found = [problem for problem in representation.problems(motion) if problem.kind not in ("speed", "floor")]
        bad += bool(found)
        for problem in found:
            seen[problem.kind] += 1
            examples.setdefault(problem.kind, f"{name}: {problem.text}")
    if bad <= share * number:
        return None
    kind = seen.most_common(1)[0][0]
    return (
        f"{bad} of {number} motions looked at are not {representation.name} in physical units ({kind}); "
        f"for example {examples[kind]}"
    )
