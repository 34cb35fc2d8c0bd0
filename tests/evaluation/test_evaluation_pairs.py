"""What is generated for an evaluation: annotation files of every known form, official splits, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.text_motion.evaluation import (
    Pair,
    UnusablePairs,
    annotation_pairs,
    captions_hash,
    first_caption,
    official_pairs,
)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_an_annotation_file_in_its_order(tmp_path):
    write(tmp_path / "captions" / "b.json", {"macro": ["a man bows"], "meso": ["other"], "micro": []})
    entries = {
        "b": {"hierarchical_caption_path": "captions/b.json", "num_frames": 61, "caption": "not this one"},
        "x": {"motion_id": "a", "caption": " a man walks ", "duration": 2.5},
        "c": {"text": "a man runs", "duration": 3, "fps": 20, "num_frames": None},
    }
    path = write(tmp_path / "anno.json", {"meta": {}, "data_list": entries})
    want = [Pair("b", "a man bows", 61), Pair("a", "a man walks", 75), Pair("c", "a man runs", 60)]
    assert annotation_pairs(path, root=tmp_path) == want
    assert annotation_pairs(write(tmp_path / "bare.json", entries), root=tmp_path) == want
    listed = [{"id": "b", "caption": "x", "num_frames": 5}, {"caption": "y", "num_frames": 6}]
    assert annotation_pairs(write(tmp_path / "list.json", listed)) == [Pair("b", "x", 5), Pair("1", "y", 6)]


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        ({"macro": [], "meso": ["meso"], "micro": ["micro"]}, "meso"),
        ({"result": [{"short caption_rewritten": ["rewritten"], "short_caption": "short"}]}, "rewritten"),
        ({"result": [{}, {"short caption": "short", "caption": "long"}]}, "short"),
        ({"result": [{"text": "flat in a row"}]}, "flat in a row"),
        ({"caption": "", "text": "flat"}, "flat"),
        ({"macro": [" "], "result": None}, None),
        (["a list"], None),
    ],
)
def test_caption_files_of_every_form(content, caption):
    assert first_caption(content) == caption


def test_no_caption_is_ever_taken_in_place_of_a_missing_one(tmp_path):
    with pytest.raises(ValueError, match=r"no annotation file .*only on request .--pair-source official_split"):
        annotation_pairs(tmp_path / "none.json")
    entry = {"hierarchical_caption_path": "gone.json", "caption": "the raw one", "num_frames": 40}
    path = write(tmp_path / "anno.json", {"a": entry})
    with pytest.raises(UnusablePairs, match=r"gone.json.*No other caption is used instead"):
        annotation_pairs(path, root=tmp_path)
    write(tmp_path / "gone.json", {"macro": []})
    with pytest.raises(UnusablePairs, match=r"1 of 1 entries cannot be generated: a .no caption."):
        annotation_pairs(path, root=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": {"caption": "x", "num_frames": 0}}, "a length of 0 frames"),
        ({"a": {"motion_id": "../a", "caption": "x", "num_frames": 9}}, "not a valid file name"),
        (
            {"a": {"caption": "x", "num_frames": 9}, "b": {"motion_id": "a", "caption": "x", "num_frames": 9}},
            "'a' occurs",
        ),
        ({"a": 3}, "entry 'a' is int"),
        ("{", "is not a JSON file"),
        ("3", "expected an object or a list"),
        ("[]", "has no usable entries"),
    ],
)
def test_unusable_annotations_say_what_is_wrong(tmp_path, content, message):
    with pytest.raises(UnusablePairs, match=message):
        annotation_pairs(write(tmp_path / "anno.json", content))


def test_unusable_entries_can_be_left_out(tmp_path):
    path = write(tmp_path / "anno.json", {"a": {"caption": "x"}, "b": {"caption": "y", "num_frames": 9}})
    assert annotation_pairs(path, skip_unusable=True) == [Pair("b", "y", 9)]


def test_an_official_split(tmp_path):
    folder = DatasetFolder(tmp_path, create=True)
    for name, frames in (("one", 50), ("two", 41)):
        folder.write_motion(name, np.zeros((frames, 272)))
    write(folder.texts / "one.txt", "a part#a/DET part/NOUN#1.0#2.0\nthe whole#the/DET#0.0#0.0\nagain#x/Y#0.0#0.0\n")
    write(folder.texts / "two.txt", "plain\n")
    folder.write_split("test", ["two", "one"])
    assert official_pairs(tmp_path) == [Pair("two", "plain", 41), Pair("one", "the whole", 50)]
    corrected = tmp_path / "corrected"
    write(corrected / "one.txt", "corrected#x/Y#0.0#0.0\n")
    with pytest.raises(UnusablePairs, match=r"two .no caption of the full clip."):
        official_pairs(tmp_path, texts=corrected)
    write(corrected / "two.txt", "first\nsecond\n")
    with pytest.raises(UnusablePairs, match="has 2 captions; a folder of corrected captions has one"):
        official_pairs(tmp_path, texts=corrected)
    folder.motion_path("two").unlink()
    assert official_pairs(tmp_path, skip_unusable=True) == [Pair("one", "the whole", 50)]


def test_the_hash_of_captions_sees_everything():
    pairs = [Pair("a", "x", 1), Pair("b", "y", 2)]
    others = [pairs[::-1], pairs[:1], [Pair("a", "x", 1), Pair("b", "y", 3)], [Pair("a", "z", 1), Pair("b", "y", 2)]]
    assert len({captions_hash(p) for p in [pairs, *others]}) == 5
