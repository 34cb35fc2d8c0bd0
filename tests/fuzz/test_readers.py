"""Readers take any bytes with documented exceptions only; `make fuzz` gives each of them 100,000."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tests.fuzz.run as runner
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.run import CORPUS, TooLong, fuzz, make_input, try_input
from tests.fuzz.seeds import as_json

FOUND = sorted(path for path in CORPUS.rglob("*") if path.is_file())
SLOW = {"protocol": 10, "card": 10, "experiment": 10, "tar": 20, "templates": 20}
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner,
                     max_size=4), max_leaves=12)  # fmt: skip


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, ring)
    yield
    signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("reader", READERS)
def test_changes_of_what_is_accepted(tmp_path, reader):
    for number in range(SLOW.get(reader, 60)):
        data = make_input(reader, -1, number)
        assert try_input(reader, data, tmp_path) is None, data


@pytest.mark.parametrize("reader", READERS)
def test_seeds_are_accepted(tmp_path, reader):
    """Changes of what is refused anyway would test little."""
    for data in READERS[reader].seeds:
        if b"oc.env" in data:
            continue  # which asks for what it may not have
        (tmp_path / READERS[reader].name).write_bytes(data)
        READERS[reader].read(tmp_path / READERS[reader].name)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_stays_mended(tmp_path, path):
    assert try_input(path.parent.name, path.read_bytes(), tmp_path) is None


@pytest.mark.parametrize("reader", READERS)
@given(data=st.binary(max_size=2000))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(tmp_path_factory, reader, data):
    assert try_input(reader, data, tmp_path_factory.getbasetemp()) is None


@pytest.mark.parametrize("reader", ["body", "annotation", "gltf", "card", "skeleton-map", "caption-table", "templates"])
@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_in_any_field(tmp_path_factory, reader, data):
    """Values of every type where a file has its own; YAML reads JSON."""
    try:
        whole = json.loads(READERS[reader].seeds[0])
    except ValueError:
        whole = {}
    fields = data.draw(st.dictionaries(st.sampled_from(sorted(whole) or ["name", "clip", "contents"]), TREES))
    assert try_input(reader, as_json({**whole, **fields}), tmp_path_factory.getbasetemp()) is None


# --- the fuzzer itself ------------------------------------------------------------------------------------------------


def test_a_reader_that_fails_is_found(tmp_path, monkeypatch):
    def broken(path: Path) -> None:
        raise KeyError(path.read_bytes())

    monkeypatch.setitem(READERS, "broken", Reader("x", broken, lambda: [b"seed"]))
    assert "KeyError" in str(try_input("broken", b"x", tmp_path))

    def endless(path: Path) -> None:
        raise TooLong

    monkeypatch.setitem(READERS, "broken", Reader("x", endless, lambda: [b"seed"]))
    assert try_input("broken", b"x", tmp_path) == "more than 10 s"


def test_forks_survive_crashes_and_count_what_is_accepted(tmp_path, monkeypatch, capsys):
    def crashing(path: Path) -> None:
        data = path.read_bytes()
        if len(data) % 5 == 0:
            raise ValueError("documented")
        if len(data) % 7 == 0:
            signal.raise_signal(signal.SIGKILL)

    monkeypatch.setattr(runner, "CORPUS", tmp_path / "corpus")
    monkeypatch.setitem(READERS, "broken", Reader("x", crashing, lambda: [b"a seed of some length"]))
    result = fuzz("broken", 60)
    sizes = [len(make_input("broken", 0, number)) for number in range(60)]
    assert result["accepted"] == sum(size % 5 != 0 and size % 7 != 0 for size in sizes)
    assert result["finds"] == 1
    kept = [path.read_bytes() for path in (tmp_path / "corpus" / "broken").iterdir()]
    assert all(len(data) % 7 == 0 for data in kept)
    assert "ended with status -9" in capsys.readouterr().out
