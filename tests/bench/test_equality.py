"""How far batched sampling is from the un-cached loop, counted and measured."""

from __future__ import annotations

import json

import pytest
import torch

from hftrainer.bench.equality import Equality, Parting, part, table, ulp
from hftrainer.cli import main
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA
from hftrainer.models.motion.motionmillion.network.llama import PRESETS
from tests.bench.test_bench import TINY, tiny_model


def test_a_step_of_bfloat16():
    for value in (1.0, 1.99, 2.0, 5.3, 0.3, 100.0):
        here = torch.tensor(value, dtype=torch.bfloat16)
        above = (here.view(torch.int16) + 1).view(torch.bfloat16)
        assert float(ulp(here.float())) == float(above) - float(here)


@torch.no_grad()
def test_rows_part_where_they_differ_first_and_by_the_gap_of_the_best_two():
    model = tiny_model()
    text = torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool)
    loop = torch.tensor([7, 8, 9, 10])
    assert part(model, text, 0, loop, loop) is None
    found = part(model, text, 4, torch.tensor([7, 8, 1, 2]), loop)
    row = torch.tensor([[model.config.pad_id] * 5 + [7, 8]])
    logits = model(row, *text)[0, -1]
    logits[model.config.end_id] = -torch.inf
    best = logits.topk(2).values
    assert (found.row, found.step, found.tied) == (4, 2, False)
    assert found.margin == pytest.approx(float(best[0] - best[1]), abs=1e-6)
    assert found.ulps == pytest.approx(float((best[0] - best[1]) / ulp(best[0])), rel=1e-3)


def test_both_arithmetics_stand_in_the_table_and_promises_are_kept(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    path = tmp_path / "e.json"
    command = ["bench", "equality", "--size", "tiny", "--rows", "6", "--codes", "10", "--batch", "4"]
    assert main([*command, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "| float32 | 0 of 6 (0.0%) |" in printed
    assert "| bfloat16 | " in printed
    saved = json.loads(path.read_text())["results"]
    assert [found["dtype"] for found in saved] == ["float32", "bfloat16"]
    assert saved[0]["steps"] == saved[1]["steps"] > 6 * 5
    assert saved[0]["regret"] <= 1e-4
    assert 0 <= saved[1]["regret_ulps"] <= 4

    def worst(self, hidden, may_end):
        return self.logits(hidden)[:, : self.config.end_id].argmin(dim=-1)

    monkeypatch.setattr(InferenceLLaMA, "best", worst)
    assert main([*command, "--dtype", "float32"]) == 1
    captured = capsys.readouterr()
    assert "6 of 6 rows differ" in captured.err
    assert main([*command, "--dtype", "float16"]) == 1
    assert "float16" in capsys.readouterr().err


def test_the_table_tells_margins():
    parts = [Parting(1, 4, 0.01, 0.5, True), Parting(3, 9, 0.03, 1.5, False)]
    found = Equality("bfloat16", 8, parts, steps=80, not_best=3, regret=0.02, regret_ulps=1.25)
    assert table([found]).splitlines()[2] == (
        "| bfloat16 | 2 of 8 (25.0%) | 6.5 | 1, 1.5 | 0.03 | 1 of 2 | 3 of 80 | 0.02 | 1.2 |"
    )
    assert found.kept
    assert not Equality("float32", 8, parts, 80, 3, 1e-6, 0.0).kept
    assert not Equality("float32", 8, [], 80, 3, 1e-3, 0.0).kept
