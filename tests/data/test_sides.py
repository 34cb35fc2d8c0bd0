"""Left and right in captions of mirror images, and mirror images of data sets without labels."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.data.folder import Caption, DatasetFolder
from hftrainer.data.prepare.augment import mirror_split
from hftrainer.data.prepare.captions import load_templates
from hftrainer.data.prepare.sides import exchange_sides
from hftrainer.data.prepare.splits import split_dataset
from hftrainer.data.prepare.verify import verify
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.representation import motion272

BANDAI = load_templates("bandai-namco")


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("turns left, then right", "turns right, then left"),
        ("Left arm, RIGHT arm, left-handed", "Right arm, LEFT arm, right-handed"),
        ("walks clockwise and counter-clockwise", "walks counterclockwise and clockwise"),
        ("turns anti clockwise", "turns clockwise"),
        ("steps leftwards to the leftmost spot", "steps rightwards to the rightmost spot"),
        ("lifts the lefthand", "lifts the righthand"),
        ("sits down right away and stands upright", "sits down right away and stands upright"),
        ("the man left the room to the left", "the man left the room to the right"),
        ("the right way to hold what is left over", "the right way to hold what is left over"),
        ("at right angles", "at right angles"),
        ("left/NOUN right/ADJ", "right/NOUN left/ADJ"),
        ("a person walks", "a person walks"),
    ],
)
def test_sides_are_exchanged(text, mirrored):
    assert exchange_sides(text) == mirrored


@pytest.fixture
def dataset(tmp_path):
    dataset = DatasetFolder(tmp_path / "set", create=True)
    for name in ("a", "b", "c"):
        dataset.write_motion(name, make_motion("turn-left", 40, ord(name)))
    dataset.write_captions("a", [Caption("turns left", 0.5, 1.0, "turns/VERB left/ADV"), "walks to his left side"])
    dataset.write_captions("b", ["is #1 to turn right"])
    dataset.write_split("train", ["a", "b", "c"])
    return dataset


def test_a_captioned_set_without_labels_is_mirrored(dataset):
    made, without = mirror_split(dataset, BANDAI, "train", "aug")
    assert made == ["M_a", "M_b"]
    assert "neither captions nor labels" in without["c"]
    assert dataset.captions("M_a") == [Caption("turns right", 0.5, 1.0), Caption("walks to his right side")]
    assert dataset.captions("M_a")[0].tokens == "turns/VERB right/ADV"
    assert dataset.captions("M_b")[0].text == "is #1 to turn left"
    np.testing.assert_allclose(dataset.motion("M_a"), motion272.mirror(dataset.motion("a")), atol=1e-6)
    assert dataset.names("aug") == ["a", "b", "c", "M_a", "M_b"]


def test_labels_that_the_templates_do_not_know_are_exchanged(dataset):
    dataset.write_labels({"a": {"content": "turn", "style": "", "label": "turn left", "steps": ["left foot"]}})
    mirror_split(dataset, BANDAI, "train", "aug")
    assert dataset.labels()["M_a"] == {"content": "turn", "style": "", "label": "turn right", "steps": ["right foot"]}


def test_splits_leave_out_what_was_made_from_other_clips_and_keep_copies_together(tmp_path):
    dataset = DatasetFolder(tmp_path / "set", create=True)
    for number in range(30):
        dataset.write_motion(f"clip{number:02d}", make_motion("walk", 40, number))
        dataset.write_motion(f"copy{number:02d}", make_motion("walk", 40, number))
    dataset.write_motion("M_clip00", make_motion("walk", 40, 99))
    parts = split_dataset(dataset, ["content"], val=0.2, test=0.2, seed=0)
    assert "M_clip00" not in parts["all"]
    for part in ("train", "val", "test"):
        members = set(parts[part])
        assert members
        for name in members:
            assert {name.replace("clip", "copy"), name.replace("copy", "clip")} <= members


def test_verify_sees_leaks_and_bodies_that_are_none(dataset):
    dataset.write_split("train", ["a", "b"])
    dataset.write_split("val", ["c"])
    dataset.write_captions("c", ["turns"])
    assert verify(dataset).good
    dataset.write_motion("c", dataset.motion("a"))
    report = verify(dataset)
    assert "a = c in val and train" in report.problems["the same motion in held-out and training splits"]
    swapped = dataset.motion("b").copy()
    positions = swapped[:, 8:74].reshape(-1, 22, 3)
    swapped[:, 8:74] = (positions * [-1, 1, 1]).reshape(-1, 66)
    dataset.write_motion("b", swapped)
    assert any("lies to the right" in case for case in verify(dataset).problems["implausible motion"])


def test_clips_that_are_gone_are_not_mirrored_and_leave_the_new_split(dataset):
    dataset.motion_path("a").unlink()
    made, without = mirror_split(dataset, BANDAI, "train", "aug")
    assert made == ["M_b"]
    assert "split train lists it, but it has no motion file" in without["a"]
    assert dataset.names("aug") == ["b", "c", "M_b"]


def test_verify_finds_mirror_images_of_other_motions_and_of_none(dataset):
    def wrong():
        return {problem: cases for problem, cases in verify(dataset).problems.items() if "mirror" in problem}

    mirror_split(dataset, BANDAI, "train", "aug")
    assert wrong() == {}
    dataset.write_motion("a", make_motion("walk", 40, 3))
    assert wrong() == {"not the mirror image of its original; run hftrainer data mirror again": ["M_a of a"]}
    dataset.write_motion("a", make_motion("turn-left", 50, ord("a")))
    dataset.motion_path("b").unlink()
    assert wrong() == {
        "not the mirror image of its original; run hftrainer data mirror again": ["M_a of a"],
        "mirrored clip without its original; remove it, or restore the original": ["M_b"],
    }
