"""examples/quickstart.ipynb runs from its first cell to its last."""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import REPOSITORY

NOTEBOOK = json.loads((REPOSITORY / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "checkpoints").symlink_to(REPOSITORY / "checkpoints")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in CELLS:
        exec(compile(cell, "quickstart.ipynb", "exec", dont_inherit=True), names)
    out = tmp_path / "out" / "quickstart"
    assert {path.name for path in out.iterdir()} == {
        "walk.glb", "walk.bvh", "walk_unreal.glb", "walk.amass.npz", "all.html",
    }  # fmt: skip
    said = capsys.readouterr().out
    raw, locked = (float(number) for number in re.findall(r"(\d+\.\d+) m/s", said))
    assert locked < raw


def test_the_notebook_is_stored_without_outputs():
    assert len(CELLS) >= 8
    assert all(not cell.get("outputs") for cell in NOTEBOOK["cells"])


def test_its_links_lead_to_pages():
    text = "".join("".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "markdown")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (REPOSITORY / "examples" / link).exists(), link
