"""Is an imported clip a person's motion? Measures of a body, and sentences about what is wrong with them.

What no body does is refused; what few do is doubted, with the option that would put it right.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.body_size import LIKELY, POSSIBLE, offsets_length
from hftrainer.motion.gait import airborne_gravity, walking
from hftrainer.motion.plausible import DISPROPORTION, disproportion
from hftrainer.motion.skeleton import JOINTS

Float = NDArray[np.float64]
AT = {joint: index for index, joint in enumerate(JOINTS)}

FASTEST = 15.0  # m/s; nothing a body does
_BENT = np.radians(25.0)  # a knee bent further shows which way it bends
_ENOUGH = 8  # frames that show it
_GRAVITY = 9.81
_TRAVELS = 3.0  # m/s of the pelvis: running
_SLIDES = 0.75  # speed of the slower foot, as a share of the pelvis's; a step's is near 0


@dataclass
class Examination:
    """`measures` by name, and sentences: `refused` for nonsense, `doubts` for what few bodies do."""

    measures: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def examine(
    rotations: Float, root: Float, offsets: Float, joints: Float, fps: float, turns: dict[str, float] | None = None
) -> Examination:
    """Look at a clip: local `rotations` (T, 22, 3, 3), `root` (T, 3), `offsets` (22, 3), world `joints` (T, 22, 3).

    `turns` are by how many degrees the limbs of the file's rest pose are off SMPL's, if that is known.
    """
    out = Examination()
    if len(joints) < 2:
        out.refused.append("has only one frame, which is not a motion")
        return out
    if not (np.isfinite(joints).all() and np.isfinite(rotations).all()):
        out.refused.append("the result has numbers that are not finite")
        return out
    _size(out, offsets)
    if out.refused:  # nothing else can be said of a body of another unit
        return out
    _rest_pose(out, offsets, turns or {})
    _hinges(out, rotations, offsets)
    _stance(out, rotations, joints)
    _movement(out, joints, offsets, fps)
    return out


def _size(out: Examination, offsets: Float) -> None:
    length = offsets_length(offsets)
    out.measures["height"] = length
    limbs = [f"{side}_{joint}" for side in ("left", "right") for joint in ("knee", "ankle", "elbow", "wrist")]
    without = [joint for joint in limbs if np.linalg.norm(offsets[AT[joint]]) < 1e-6]
    if without:
        out.refused.append(f"the bones to {', '.join(without)} have no length")
        return
    other = disproportion(np.linalg.norm(offsets[1:], axis=-1))
    out.measures["disproportion"] = other
    if other > DISPROPORTION:  # what `data verify` says of the result
        text = f"bones have other proportions than a body's ({other:.0%} of their length lies elsewhere)"
        out.doubts.append(f"{text}; does the map name the right joints?")
    if LIKELY[0] <= length <= LIKELY[1]:
        return
    text = f"the body measures {length:.3g} m from ankles to head, a person's 1.3 to 1.7"
    if not POSSIBLE[0] <= length <= POSSIBLE[1]:
        remedy = next((said for factor, said in _FACTORS if LIKELY[0] <= length * factor <= LIKELY[1]), None)
        out.refused.append(f"{text}; {remedy or 'give the true unit with --units'}")
    else:
        out.doubts.append(f"{text}; a child, or another unit (--units)")


# what the centimetres of most maps are really, when bodies come out so much too small or too large
_FACTORS = (
    (100.0, "try --units m"), (0.1, "try --units mm"), (2.54, "try --units in"), (10.0, "try --units dm"),
    (0.01, "try --units cm, if the map says metres"), (5.64444, "try --units cmu"), (30.48, "try --units ft"),
    (0.001, "try --units mm, if the map says metres"),
)  # fmt: skip


def _rest_pose(out: Examination, offsets: Float, turns: dict[str, float]) -> None:
    remedy = _Once("; name a frame that is a T-pose with --rest-frame, or another map")
    spine = sum(offsets[AT[joint]] for joint in ("spine1", "spine2", "spine3", "neck"))
    tilt = _angle(np.asarray(spine), np.array([0.0, 1.0, 0.0]))
    out.measures["spine_tilt"] = tilt
    if tilt > 30:
        _say(out, tilt > 50, f"the spine of the rest pose is {tilt:.0f} degrees off the vertical{remedy}")
    for part in ("hip", "shoulder"):
        across = offsets[AT[f"left_{part}"]] - offsets[AT[f"right_{part}"]]
        if across[0] <= 0:
            out.refused.append(f"the left {part} lies to the right{remedy}")
    for side in ("left", "right"):
        toes = offsets[AT[f"{side}_foot"]]
        aside = _angle(toes * [1, 0, 1], np.array([0.0, 0.0, 1.0])) if np.hypot(toes[0], toes[2]) > 0.01 else 0.0
        out.measures["toes_aside"] = max(aside, out.measures.get("toes_aside", 0.0))
        if aside > 50:
            swapped = "backwards: left and right are exchanged, or the rest pose is not a T-pose"
            where = swapped if aside > 100 else "aside"
            _say(out, aside > 100, f"the {side} toes of the rest pose point {where}{remedy}")
    for joint, turn in turns.items():
        leg = joint.endswith(("hip", "knee"))
        usual, most = (40, 75) if leg else (100, 135)
        if turn > usual:
            _say(out, turn > most, f"the {joint}'s bone of the rest pose is {turn:.0f} degrees off a T-pose{remedy}")
    if turns:
        out.measures["t_pose_off"] = max(turns.values())


def _hinges(out: Examination, rotations: Float, offsets: Float) -> None:
    for side in ("left", "right"):
        wrong = _share_bent(rotations, offsets, f"{side}_knee", f"{side}_ankle")
        out.measures["knees_forward"] = max(wrong, out.measures.get("knees_forward", 0.0))
        if wrong > 0.3:
            text = f"the {side} knee bends forwards in {wrong:.0%} of the frames in which it bends"
            _say(out, wrong > 0.7, f"{text}; the legs of the map are half a turn off, or left and right are exchanged")


def _share_bent(rotations: Float, offsets: Float, joint: str, child: str) -> float:
    """Of the frames in which a knee is bent, the share in which the shin goes forwards."""
    rest = offsets[AT[child]]
    bone = np.einsum("tij,j->ti", rotations[:, AT[joint]], rest)
    length = float(np.linalg.norm(rest))
    bent = np.arccos(np.clip(bone @ rest / length**2, -1, 1)) > _BENT
    if bent.sum() < _ENOUGH:
        return 0.0
    return float(((bone - rest)[bent, 2] > 0).mean())


def _stance(out: Examination, rotations: Float, joints: Float) -> None:
    left = joints[:, AT["left_hip"]] - joints[:, AT["right_hip"]]
    spine = joints[:, AT["neck"]] - joints[:, AT["pelvis"]]
    forward = np.cross(left, spine)
    facing = _angles(rotations[:, 0, :, 2], forward)
    out.measures["facing_off"] = float(np.median(facing))
    if np.median(facing) > 45:
        _say(out, bool(np.median(facing) > 90), f"the pelvis faces {np.median(facing):.0f} degrees away from the body")
    body = joints[:, AT["head"]] - joints[:, [AT["left_ankle"], AT["right_ankle"]]].mean(axis=1)
    up = body / np.maximum(np.linalg.norm(body, axis=-1, keepdims=True), 1e-9)
    out.measures["up"] = float(np.median(up[:, 1]))
    lying = np.abs(up[:, [0, 2]]).max(axis=-1) > 0.9
    if lying.mean() > 0.9:
        out.doubts.append("the body lies in nine of ten frames; if it should stand, give the axis with --up +Z (or -Y)")
    elif (up[:, 1] < -0.8).mean() > 0.9:
        _say(out, len(joints) > 60, "the body stands on its head in nine of ten frames; give the axis with --up -Y")


def _movement(out: Examination, joints: Float, offsets: Float, fps: float) -> None:
    speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=-1) * fps
    fast = speed > FASTEST
    out.measures.update(fastest=float(speed.max()), first_step=float(speed[0]), glitches=float(fast.sum()))
    if fast.any():
        where = f"{int(fast.sum())} frames, first at {np.argmax(fast) / fps:.1f} s"
        _say(out, bool(fast.mean() > 0.2), f"a joint is faster than {FASTEST:g} m/s in {where}")
    if speed.max() < 1e-4:
        out.doubts.append("nothing moves in any frame")
    lowest = joints[..., 1].min(axis=-1)
    out.measures["above_floor"] = float(np.median(lowest) - lowest.min())
    if out.measures["above_floor"] > 0.5:
        out.doubts.append(
            f"the lowest joint is {out.measures['above_floor']:.2f} m above the floor in half of the frames"
        )
    _travel(out, joints, fps)
    _frame_rate(out, joints, offsets, fps)


def _travel(out: Examination, joints: Float, fps: float) -> None:
    """Doubt a root that travels as fast as a runner while neither foot ever stays behind."""
    moved = np.diff(joints[:, [AT["pelvis"], AT["left_ankle"], AT["right_ankle"]]], axis=0)
    speed = np.linalg.norm(moved[..., [0, 2]], axis=-1) * fps
    speed = speed[speed[:, 0] > _TRAVELS]
    if len(speed) < 0.5 * fps:
        return
    out.measures["feet_slide"] = slide = float(np.median(speed[:, 1:].min(axis=-1) / speed[:, 0]))
    if slide > _SLIDES:
        text = f"the feet slide along while the pelvis travels at {np.median(speed[:, 0]):.1f} m/s"
        out.doubts.append(f"{text}; are the positions of the root in another unit than the bones?")


def _frame_rate(out: Examination, joints: Float, offsets: Float, fps: float) -> None:
    """Limits lie above those of 99 in 100 clips of CMU at their true rate; see docs/bvh.md."""
    found, gravity = walking(joints, offsets, fps), airborne_gravity(joints, fps)
    if found is not None:
        out.measures["walking_speed"], out.measures["steps"] = found
    if gravity is not None:
        out.measures["gravity"] = gravity
    if found is not None and (found[0] > 2.0 or found[1] > 2.8):
        walks = f"walks at {found[0]:.1f} m/s with {found[1]:.1f} steps a second, at which people run"
        out.doubts.append(f"{walks}; is the frame rate half as high? try --fps")
    elif gravity is not None and gravity > 2 * _GRAVITY:
        out.doubts.append(f"falls with {gravity:.0f} m/s2, not 9.8; is the frame rate half as high? try --fps")


class _Once(str):
    """Text that is said the first time only."""

    said = False

    def __format__(self, spec: str) -> str:
        text, self.said = ("" if self.said else str(self)), True
        return text


def _say(out: Examination, certain: bool, text: str) -> None:
    (out.refused if certain else out.doubts).append(text)


def _angle(a: Float, b: Float) -> float:
    return float(_angles(a[None], b[None])[0])


def _angles(a: Float, b: Float) -> Float:
    """Degrees (T,) between vectors (T, 3)."""
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosine = (a * b).sum(axis=-1) / np.maximum(length, 1e-12)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
