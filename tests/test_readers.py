"""What comes from elsewhere is compared with what it should be before it is used."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from hftrainer.readers import (
    FileError,
    inside,
    json_field,
    parse_json,
    read_json,
    read_jsonl,
    read_text,
    read_yaml,
)
from hftrainer.shown import visible

HOSTILE = {
    "deep": ("[" * 100_000 + "]" * 100_000, "deeper than 64"),
    "deep objects": ('{"a":' * 70 + "1" + "}" * 70, "deeper than 64"),
    "key twice": ('{"a": 1, "a": 2}', "'a' is duplicated"),
    "key twice within": ('[{"a": {"b": 1, "b": 2}}]', "'b' is duplicated"),
    "half a character": ('{"a": "\\ud800 walks"}', "half of a character"),
    "half a character as a key": ('{"\\uDFFF": 1}', "half of a character"),
    "NaN": ('{"a": NaN}', "NaN is not a valid JSON number"),
    "infinite": ('{"a": -Infinity}', "-Infinity is not"),
    "infinite by size": ('{"a": 1e999}', "1e999 is not finite"),
    "many digits": ('{"a": ' + "9" * 5000 + "}", "more than 64 bits"),
    "65 bits": ('{"a": 36893488147419103232}', "more than 64 bits"),
    "null": ("null", "expected an object, got null"),
    "list": ("[]", "expected an object, got a list"),
    "text": ('"text"', "expected an object, got a string"),
    "number": ("12", "expected an object, got a whole number"),
    "nothing": ("", "not a JSON file"),
    "cut": ('{"a": 1', "not a JSON file"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_json_that_is_refused(name, tmp_path):
    text, why = HOSTILE[name]
    path = tmp_path / "index.json"
    path.write_text(text)
    with pytest.raises(FileError, match=why) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400


def test_json_that_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": [1, 2.5, None, True], "b": {"c": "ü"}}).encode())
    assert read_json(path) == {"a": [1, 2.5, None, True], "b": {"c": "ü"}}
    path.write_text('[{"a": 9223372036854775807}]')
    assert read_json(path, list) == [{"a": 9223372036854775807}]


def test_characters_in_two_escapes_are_read():
    assert parse_json('["\\ud83d\\ude00"]', "x", list) == ["\U0001f600"]


def test_json_is_an_ordinary_file_of_its_size(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
    with pytest.raises(FileError, match="a folder"):
        read_json(tmp_path)
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    with pytest.raises(FileError, match="a device"):
        read_json(tmp_path / "zero.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(FileError, match="pipe"):
        read_json(tmp_path / "pipe.json")
    (tmp_path / "large.json").write_text('{"a": "' + "x" * 100 + '"}')
    with pytest.raises(FileError, match="limit is 50"):
        read_json(tmp_path / "large.json", max_bytes=50)
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xfc"}')
    with pytest.raises(FileError, match="not UTF-8"):
        read_json(tmp_path / "latin.json")
    with pytest.raises(FileError, match="not UTF-8"):
        read_text(tmp_path / "latin.json")


def test_json_of_too_many_items():
    with pytest.raises(FileError, match="more than 10000000 items"):
        parse_json("[" + "[]," * 10_000_001 + "[]]", "many.json", list)


def test_errors_are_of_the_class_that_is_asked_for():
    class Ours(ValueError):
        pass

    with pytest.raises(Ours):
        parse_json("nul", "x.json", error=Ours)
    with pytest.raises(Ours, match="has no 'b'; it holds \\['a'\\]"):
        json_field({"a": 1}, "b", int, "x.json", error=Ours)
    with pytest.raises(Ours, match="expected a whole number, got a boolean"):
        json_field({"a": True}, "a", int, "x.json", error=Ours)
    assert json_field({"a": 1}, "a", float, "x.json") == 1


def test_json_lines(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n{"a": ')
    with pytest.raises(FileError, match="line 4 is not a JSON file"):
        list(read_jsonl(path))
    assert list(read_jsonl(path, ignore_cut_end=True)) == [(1, {"a": 1}), (3, {"a": 2})]
    path.write_text('{"a": 1}\n[]\n')
    with pytest.raises(FileError, match="line 2: expected an object, got a list"):
        list(read_jsonl(path))
    path.write_text('{"a": "' + "x" * (1 << 20) + '"}\n')
    with pytest.raises(FileError, match="line 1 is longer"):
        list(read_jsonl(path))


OUTSIDE = [
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a/..",
    ".",
    "",
    "a//b",
    "a/",
    "a\\b",
    "a\0b",
    "a\x1b[2Jb",
    "x" * 300,
    None,
    3,
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_are_refused(name, tmp_path):
    with pytest.raises(FileError, match="line 3") as caught:
        inside(tmp_path, name, suffix=".npy", what="split/x.txt, line 3")
    assert "\x1b" not in str(caught.value)


def test_names_inside(tmp_path):
    assert inside(tmp_path, "a/b", suffix=".npy") == tmp_path / "a" / "b.npy"
    assert inside(tmp_path, "Bewegung ü..v2") == tmp_path / "Bewegung ü..v2"


def test_what_steers_a_terminal_is_spelt_out():
    assert visible("a\x1b[31mb\x07\x9b\u202ec\rd") == "a\\x1b[31mb\\x07\\x9b\\u202ec\\rd"
    assert visible("plain ü\n\t👩‍🚀") == "plain ü\n\t👩‍🚀"


YAMLS = {
    "typo": ("a: [1, 2\nb: 3\n", "line 2, column 2"),
    "tags": ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
    "aliases": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefghi")),
        "more than 1000000",
    ),
    "itself": ("a: &a [*a]", "deeper than 64"),
    "deep": ("[" * 5000, "not a YAML file"),
    "list": ("[1]", "expected an object, got a list"),
    "nothing": ("", "got null"),
    "unhashable": ("? [a]\n: 1\n", "unhashable"),
    "date": ("a: 2001-99-99", "month"),
    "control": ("a: \x00", "YAML file"),
    "empty number": ("a: !!int ''", "IndexError"),
    "empty fraction": ("a: !!float ''", "IndexError"),
    "no boolean": ("a: !!bool x", "KeyError"),
    "no date": ("a: !!timestamp x", "AttributeError"),
    "fraction by sixties": ("a: 1" + ":1" * 200 + ".5", "a number of more than 100 letters"),
    "number by sixties": ("a: 1" + ":1" * 200_000, "a number of more than 100 letters"),
    "many items": ("[" + "0," * 100_000 + "0]", "more than 50000 items"),
    "copied keys": (
        "a: &a {" + ", ".join(f"x{n}: 1" for n in range(2000)) + "}\n"
        + "".join(f"b{n}: {{<<: *a}}\n" for n in range(100)),
        "copies more than 50000 keys",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_that_is_refused(name, tmp_path):
    text, why = YAMLS[name]
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(FileError, match=why) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_messages_are_one_line_that_can_be_read(tmp_path):
    """A name of megabytes from a file hides what is wrong; one with line ends says what it likes."""
    path = tmp_path / "x.json"
    path.write_text("{}")
    said = str(FileError(f"{path}: the tensor {'é' * 1_000_000} is damaged"))
    assert len(said) < 2100
    assert str(path) in said
    assert said.endswith("is damaged")
    assert str(FileError("x\nhftrainer: all is well\x9b")) == "x\\nhftrainer: all is well\\x9b"
    assert str(FileError("two lines:", "  a\nb")) == "two lines:\n  a\\nb"


def test_yaml_that_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &x {b: 1}\nc: *x\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"b": 1}, "c": {"b": 1}}


# our own processes' words, an object that a library made, and files that only the bench wrote
ELSEWHERE = {
    "training/text_distillation.py", "training/fsdp.py", "models/motion/motionstreamer/text_model.py",
    "motion/io/fbx.py", "readers.py", "plain_yaml.py", "patterns.py",
}  # fmt: skip


def test_no_other_reader_opens_files_from_elsewhere():
    package = Path(__file__).parents[1] / "hftrainer"
    reads = re.compile(r"\b(json\.loads?|np\.load|yaml\.(safe_)?load|pickle\.loads?|torch\.load)\(")
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if reads.search(path.read_text()) and "bench" not in path.parts
    }
    assert found <= ELSEWHERE, f"read these by hftrainer.readers or hftrainer.arrays: {found - ELSEWHERE}"


def test_yaml_numbers_of_one_hash_are_refused(tmp_path):
    """A dictionary looks through all keys of one hash for each of them."""
    path = tmp_path / "x.yaml"
    path.write_text("".join(f"{n * ((1 << 61) - 1)}: 1\n" for n in range(1, 4)))
    with pytest.raises(FileError, match="line 1, column 1: a number of more than 61 bits"):
        read_yaml(path)
    path.write_text("a: 1152921504606846976\nb: -12\nc: 0x1F\n")
    assert read_yaml(path) == {"a": 1 << 60, "b": -12, "c": 31}


_FILES = {"path", "where", "root", "folder", "self.path", "self.root", "self.folder", "path.parent", "dataset.root"}


def plain_errors(source: str) -> Iterator[str]:
    """Statements that raise a ValueError whose message begins with a file's or folder's name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            message = node.exc.args[0]
            if ast.unparse(node.exc.func) == "ValueError" and isinstance(message, ast.JoinedStr):
                first = message.values[0]
                if isinstance(first, ast.FormattedValue) and ast.unparse(first.value) in _FILES:
                    yield ast.unparse(node)


def test_messages_about_files_are_file_errors():
    """Their names, and what they call their parts, would otherwise steer the terminal of whoever prints the error."""
    assert list(plain_errors('raise ValueError(f"{path} has no {name}")'))
    package = Path(__file__).parents[1] / "hftrainer"
    found = {str(path): list(plain_errors(path.read_text())) for path in sorted(package.rglob("*.py"))}
    assert {path: raised for path, raised in found.items() if raised} == {}
