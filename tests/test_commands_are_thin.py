"""Commands parse, call one function of the library, and print."""

from __future__ import annotations

from pathlib import Path

import pytest

COMMANDS = sorted((Path(__file__).parents[1] / "hftrainer" / "commands").glob("*.py"))
SHARED = {"common.py"}  # what commands have in common


@pytest.mark.parametrize("path", [p for p in COMMANDS if p.name not in SHARED], ids=lambda path: path.stem)
def test_a_command_is_short(path):
    assert len(path.read_text().splitlines()) <= 90
