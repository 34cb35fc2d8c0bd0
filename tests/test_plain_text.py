"""Text as the programs of the world write it."""

from __future__ import annotations

import pytest

from hftrainer.plain_text import read_lines, read_text

SAID = "a café walk\nzweitens"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path, encoding, end):
    (tmp_path / "x.txt").write_bytes(SAID.replace("\n", end).encode(encoding))
    assert read_text(tmp_path / "x.txt") == SAID
    assert read_lines(tmp_path / "x.txt") == SAID.split("\n")


def test_separators_inside_a_sentence_stay(tmp_path):
    (tmp_path / "x.txt").write_text("one\u2028still one\ntwo\n", encoding="utf-8")
    assert read_lines(tmp_path / "x.txt") == ["one\u2028still one", "two"]


@pytest.mark.parametrize("data", [b"good\nb\x00d", b"good\n\x81\xff\xfe", b"\xff\xfea\x00b\x00\n\x00\x00\xd8"])
def test_what_is_not_text_is_named_with_its_line(tmp_path, data):
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.txt: line \d is not text"):
        read_text(tmp_path / "x.txt")
