"""Fixtures of the zoo's tests."""

from __future__ import annotations

import pytest

from hftrainer.zoo import collection
from tests.zoo.plugin import fresh_plugins


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An empty folder on sys.path, for plug-ins."""
    with fresh_plugins(monkeypatch, tmp_path / "site") as folder:
        yield folder


@pytest.fixture
def user_zoo(tmp_path, monkeypatch):
    """An empty folder that HFTRAINER_ZOO names."""
    folder = tmp_path / "my-cards"
    folder.mkdir()
    monkeypatch.setenv("HFTRAINER_ZOO", str(folder))
    collection._collect.cache_clear()
    yield folder
    collection._collect.cache_clear()
