"""Captions and splits from tables of labels."""

from __future__ import annotations

import json

import pytest

from hftrainer.data.folder import Caption, DatasetFolder
from hftrainer.data.prepare.caption_table import load_table, shipped_tables, split_from_tables, write_table_captions
from hftrainer.data.synthetic.motions import make_motion

LINES = [
    {"about": "made up"},
    {"label": "walk", "captions": ["walks", "a person walks"], "content": "walk", "single": True},
    {"clip": "a", "label": "walk", "split": "train", "same_as": ["copy of a"]},
    {"clip": "b", "captions": [{"text": "jumps", "start": 1.0, "end": 2.0}], "split": "val", "recorded_fps": 60},
    {"clip": "c", "split": "unlabelled"},
]


def table(tmp_path, lines=LINES, encoding="utf-8"):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding=encoding)
    return load_table(path)


def test_captions_labels_and_splits_come_from_the_table(tmp_path):
    made = table(tmp_path, encoding="utf-8-sig")
    dataset = DatasetFolder(tmp_path / "set", create=True)
    for name in ("a", "b", "c", "copy of a", "unknown"):
        dataset.write_motion(name, make_motion("walk", 40, 0))
    written, left = write_table_captions(dataset, [made])
    assert (written, left) == (2, ["c", "copy of a", "unknown"])
    assert [c.text for c in dataset.captions("a")] == ["walks", "a person walks"]
    assert dataset.captions("b") == [Caption("jumps", 1.0, 2.0)]
    assert dataset.labels()["a"] == {"content": "walk", "style": "", "label": "walk", "single": True}
    assert made.recorded_fps() == {"b": 60.0}
    parts = split_from_tables(dataset.names(), [made])
    assert parts == {
        "train": ["a"], "unlabelled": ["c", "unknown"], "val": ["b"], "motions": ["a", "c", "unknown"],
        "all": ["a", "b", "c", "unknown"],
    }  # fmt: skip


def test_a_copy_takes_the_place_of_a_clip_that_is_not_there(tmp_path):
    assert split_from_tables(["copy of a", "b"], [table(tmp_path)])["unlabelled"] == ["copy of a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"clip": "a"', "mine.jsonl, line 2 is not a JSON file"),
        ('["a"]', "line 2: expected an object"),
        ('{"label": "x", "captions": "walks"}', "line 2, captions: expected a list"),
        ('{"clip": "z", "captions": [{"text": "x", "from": 1}]}', "line 2: a caption is a sentence, or has text"),
        ('{"clip": "z", "captions": ["x\\ny"]}', "line 2: a caption must be one line"),
        ('{"clip": "z", "split": "../../x"}', "line 2, split: '../../x' is not a valid file name"),
        ('{"clip": "z", "recorded_fps": -1}', "recorded_fps is -1"),
        ('{"clip": "z", "label": ["x"]}', "line 2, label: expected a string, got a list"),
        ('{"clip": "z", "label": "nowhere"}', "no sentences for 1 labels of clips, e.g. 'nowhere'"),
        ('{"label": "walk", "captions": []}\n{"label": "walk", "captions": []}', "line 3: label 'walk' is duplicated"),
    ],
)
def test_broken_tables_say_where(tmp_path, line, message):
    (tmp_path / "mine.jsonl").write_text('{"about": "x"}\n' + line)
    with pytest.raises(ValueError, match=message):
        load_table(tmp_path / "mine.jsonl")


def test_shipped_tables_load_and_name_their_sources():
    assert {"cmu-index", "100style", "cmu-humanml3d-test"} <= set(shipped_tables())
    for name in shipped_tables():
        shipped = load_table(name)
        assert shipped.clips
        assert shipped.about.keys() >= {"sources", "licence"}
    assert load_table("cmu-humanml3d-test").about["use"] == "evaluation"
    cmu = load_table("cmu-index")
    assert {line["split"] for line in cmu.clips.values()} == {"train", "val", "unlabelled"}
    for name, line in cmu.clips.items():
        assert bool(cmu.captions(name)) == (line["split"] != "unlabelled"), name
    with pytest.raises(ValueError, match="included: 100style, cmu-humanml3d-test, cmu-index"):
        load_table("cmu")
