"""Readers take any bytes with documented exceptions only; `make fuzz` gives each of them 100,000."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.readers import READERS
from tests.fuzz.run import CORPUS, TooLong, mutate, try_input

FOUND = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("reader", READERS)
def test_mutations_of_what_is_accepted(tmp_path, reader):
    rng = random.Random(reader)
    seeds = READERS[reader][2]
    for _ in range(100):
        data = mutate(rng.choice(seeds), rng.choice(seeds), rng)
        assert try_input(reader, data, tmp_path) is None, data


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_stays_mended(tmp_path, path):
    assert try_input(path.parent.name, path.read_bytes(), tmp_path) is None


@pytest.mark.parametrize("reader", ["json", "npy", "safetensors", "torch-zip", "yaml", "text"])
@given(data=st.binary(max_size=2000))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(tmp_path_factory, reader, data):
    assert try_input(reader, data, tmp_path_factory.getbasetemp()) is None


def test_a_reader_that_fails_is_found(tmp_path, monkeypatch):
    def broken(path: Path) -> None:
        raise KeyError(path.read_bytes())

    monkeypatch.setitem(READERS, "broken", ("x", broken, [b"seed"]))
    assert "KeyError" in str(try_input("broken", b"x", tmp_path))

    def endless(path: Path) -> None:
        raise TooLong

    monkeypatch.setitem(READERS, "broken", ("x", endless, [b"seed"]))
    assert try_input("broken", b"x", tmp_path) == "more than 10 s"
