"""Representations as objects: mirrors, rest, statistics rules, implausible data, and conversions of a stranger's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from hftrainer.data.synthetic.motions import CAPTIONS, make_motion
from hftrainer.motion.plausible import problem_of_most
from hftrainer.motion.representation import hml263, motion272
from hftrainer.motion.representation.base import Body, Representation, get_representation
from hftrainer.motion.representation.convert import convert, motion272_to_hml263, targets
from hftrainer.motion.representation.motion135 import CANON272_OFFSETS
from hftrainer.motion.representation.spec import Block, RepresentationSpec
from hftrainer.motion.resample import resample_body
from hftrainer.motion.skeleton import MIRROR
from hftrainer.registry import REPRESENTATIONS

BUILT_IN = ("motion272", "hml263", "motion135", "joints", "joints66")
SIDE = np.array([-1.0, 1.0, 1.0])


def clip(name: str, content: str = "turn-left", frames: int = 70, seed: int = 0) -> np.ndarray:
    motion = make_motion(content, frames, seed)
    return motion if name == "motion272" else np.asarray(convert(motion, "motion272", name).values)


def clips(name: str) -> Iterator[tuple[str, np.ndarray]]:
    for seed, content in enumerate(sorted(CAPTIONS) * 2):
        yield f"{content}_{seed}", clip(name, content, 60 + seed, seed)


def test_names_widths_rates_and_units():
    assert {name: (get_representation(name).width, get_representation(name).fps) for name in BUILT_IN} == {
        "motion272": (272, 30), "hml263": (263, 20), "motion135": (135, 30), "joints": (66, 30), "joints66": (66, 30),
    }  # fmt: skip
    assert set(BUILT_IN) <= set(REPRESENTATIONS.names())
    for name in BUILT_IN:
        found = get_representation(name)
        assert found.name == name
        assert get_representation(name) is found
        assert all(block.unit in ("1", "m", "m/frame", "rad/frame") for block in found.blocks)
    assert get_representation("hml263").root_features() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="Did you mean 'motion272'"):
        get_representation("motion273")


@pytest.mark.parametrize("name", BUILT_IN)
def test_mirrored_features_decode_to_mirrored_joints(name):
    representation, motion = get_representation(name), clip(name)
    joints = representation.to_joints(motion)
    mirrored = representation.mirror(motion)
    # motion135 stores no bones, so its mirrored body is said
    bones = {"offsets": np.array(CANON272_OFFSETS)[list(MIRROR)] * SIDE} if name == "motion135" else {}
    # float64 throughout; sums over 70 frames
    np.testing.assert_allclose(
        representation.to_joints(mirrored, **bones), joints[..., list(MIRROR), :] * SIDE, atol=1e-9, rtol=0
    )
    np.testing.assert_allclose(representation.mirror(mirrored), motion, atol=1e-12)
    assert np.abs(mirrored - motion).max() > 0.1
    as_tensor = representation.mirror(torch.from_numpy(motion))
    np.testing.assert_allclose(as_tensor.numpy(), mirrored, atol=1e-12)


def test_every_feature_of_a_mirrored_263_is_the_one_of_mirrored_joints():
    """Also bone rotations, velocities and contacts, which decoding does not read."""
    joints = motion272.to_joints(make_motion("turn-left", 60, 1))
    own = hml263.from_joints(joints, bone_lengths=None)
    wanted = hml263.from_joints(joints[:, list(MIRROR)] * SIDE, bone_lengths=None)
    np.testing.assert_allclose(get_representation("hml263").mirror(own), wanted, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", BUILT_IN)
def test_padding_holds_the_last_pose_still(name):
    representation, motion = get_representation(name), clip(name)
    given = len(motion)
    padded = representation.pad_at_rest(motion, given + 9)
    assert len(padded) == given + 9
    np.testing.assert_array_equal(padded[:given], motion)
    joints = representation.to_joints(padded)
    np.testing.assert_allclose(joints[given + 1 :], joints[given : given + 1].repeat(8, 0), atol=1e-9)
    pose = joints - joints[:, :1] * np.array([1.0, 0, 1.0])
    np.testing.assert_allclose(
        np.sort(np.linalg.norm(pose[-1], axis=-1)), np.sort(np.linalg.norm(pose[given - 1], axis=-1)), atol=1e-9
    )
    np.testing.assert_array_equal(representation.pad_at_rest(motion, 5), motion)


def test_the_standard_deviation_is_the_mean_of_its_block():
    found = get_representation("hml263")
    std = np.arange(263, dtype=np.float64)
    scaled = found.scale(std)
    for start, stop in ((0, 1), (1, 3), (3, 4), (4, 67), (67, 193), (193, 259), (259, 263)):
        np.testing.assert_allclose(scaled[start:stop], np.full(stop - start, (start + stop - 1) / 2))


@pytest.mark.parametrize("name", BUILT_IN)
def test_real_motion_has_no_problem(name):
    for label, motion in clips(name):
        assert get_representation(name).problems(motion) == [], label
    assert problem_of_most(get_representation(name), clips(name)) is None


def z_scored(name: str) -> Iterator[tuple[str, np.ndarray]]:
    every = np.concatenate([motion for _, motion in clips(name)])
    flat = every.reshape(len(every), -1)
    std = get_representation(name).scale(flat.std(axis=0))
    for label, motion in clips(name):
        yield label, ((motion.reshape(len(motion), -1) - flat.mean(axis=0)) / std).reshape(motion.shape)


def in_centimetres(name: str) -> Iterator[tuple[str, np.ndarray]]:
    representation = get_representation(name)
    for label, motion in clips(name):
        large = motion.copy()
        if large.ndim == 3:
            yield label, 100 * large
            continue
        for block in representation.blocks:
            large[:, representation[block.name]] *= 100 if block.unit in ("m", "m/frame") else 1
        yield label, large


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize(
    ("spoil", "kinds"),
    [
        (z_scored, ("normalized", "units", "not a body")),
        (in_centimetres, ("units",)),
        (lambda name: ((label, -motion) for label, motion in clips(name)), ("upside down",)),
        (lambda name: ((label, motion[:1].repeat(40, 0)) for label, motion in clips(name)), ("frozen",)),
    ],
    ids=["z-scored", "centimetres", "sign", "frozen"],
)
def test_what_is_wrong_with_a_set_is_named(name, spoil, kinds):
    representation = get_representation(name)
    said = problem_of_most(representation, spoil(name))
    assert said is not None
    assert f"not {name} in physical units" in said
    assert any(f"({kind})" in said for kind in kinds), said


def test_one_bad_clip_condemns_no_set():
    some = list(clips("motion272"))
    some[0] = ("bad", -some[0][1])
    assert problem_of_most(get_representation("motion272"), some) is None


class Pelvis(Representation):
    """A plug-in's: it is made from joints, and read as a body that is one point."""

    spec = RepresentationSpec("pelvis", 10.0, (Block("place", 3, "m"),))

    def to_joints(self, motion, **options):
        return np.broadcast_to(motion[..., None, :], (*motion.shape[:-1], 22, 3))

    def from_body(self, body, **options):
        return resample_body(Body(body.joints, body.fps), self.fps).joints[..., 0, :]


class ReadOnly(Representation):
    """A plug-in's that cannot be made."""

    spec = RepresentationSpec("read_only", 30.0, (Block("joint_positions", 66, "m"),))

    def to_joints(self, motion, **options):
        return motion.reshape(*motion.shape[:-1], 22, 3)


@pytest.fixture
def strangers(monkeypatch):
    monkeypatch.setattr(REPRESENTATIONS, "_targets", dict(REPRESENTATIONS._targets))
    REPRESENTATIONS.register("pelvis")(Pelvis)
    REPRESENTATIONS.register("read_only")(ReadOnly)
    yield
    get_representation.cache_clear()


def test_a_strangers_representation_is_converted_both_ways(strangers):
    motion = make_motion("walk", 61, 0)
    made = convert(motion, "motion272", "pelvis")
    assert made.fps == 10
    np.testing.assert_allclose(made.values, motion272.to_joints(motion)[::3, 0], atol=1e-12)
    back = convert(made.values, "pelvis", "joints")
    assert back.fps == 10
    assert back.values.shape == (21, 22, 3)
    assert "pelvis" in targets("hml263")
    with pytest.raises(ValueError, match="a body cannot be posed to joints whose bones are 0 to 0 m long"):
        convert(made.values, "pelvis", "motion272")
    with pytest.raises(ValueError, match="read_only can be read, but cannot be made; motion272 can be converted to"):
        convert(motion, "motion272", "read_only")
    features = convert(motion272.to_joints(motion).reshape(61, 66), "read_only", "hml263")
    np.testing.assert_allclose(features.values, motion272_to_hml263(motion), atol=1e-9)
    with pytest.raises(ValueError, match="pelvis cannot be mirrored"):
        get_representation("pelvis").mirror(made.values)


def test_rotations_at_another_rate_are_interpolated():
    """60 fps made of a 30 fps clip, encoded at 30 fps, is the clip."""
    motion = make_motion("wave", 50, 3)
    found = get_representation("motion272")
    fast = resample_body(found.to_body(motion), 60.0)
    assert fast.rotations.shape[0] == 99
    np.testing.assert_allclose(found.from_body(fast), motion, atol=1e-6)
