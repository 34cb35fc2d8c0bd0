"""The benchmark compares like with like."""

from __future__ import annotations

import json

import pytest
import torch

from hftrainer.bench import baselines
from hftrainer.bench.measure import Way, interleave, machine, machine_line
from hftrainer.bench.sample import SampleBench, decoding_bytes, ours, run
from hftrainer.cli import main
from hftrainer.models.motion.motionmillion.engine.int8_argmax import can_use_int8
from hftrainer.models.motion.motionmillion.network import LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.llama import PRESETS

TINY = {"n_layer": 2, "n_head": 2, "n_embd": 32}


def tiny_model() -> LLaMAHF:
    torch.manual_seed(0)
    return LLaMAHF(LLaMAHFConfig(vocab_size=202, clip_dim=16, **TINY)).eval().requires_grad_(False)


def test_the_baselines_make_our_codes():
    model = tiny_model()
    features, mask = torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool)
    want = ours(model, features, mask, 30).tokens
    assert want.shape == (1, 30)
    assert torch.equal(baselines.uncached(model, features, mask, 30), want)
    assert torch.equal(baselines.concatenating(model, features, mask, 30), want)


def test_ratios_are_per_unit_of_work_and_round():
    seen = []
    ways = [Way("slow", lambda: seen.append("s"), 1), Way("fast", lambda: seen.append("f"), 4, read=8.0)]
    results = interleave(ways, rounds=3, warm_up=False, bandwidth=1e9)
    assert seen == ["s", "f"] * 3
    ratios = sorted(a / (b / 4) for a, b in zip(results[0].seconds, results[1].seconds, strict=True))
    assert results[1].ratio == ratios[1]
    assert results[0].ratio == 1
    assert results[0].bandwidth_share is None
    assert results[1].bandwidth_share > 0


def test_the_machine_is_a_line_of_text():
    about = {"device": "AMD EPYC", "threads": 2, "load": 0.5, "torch": "2.13.0", "hftrainer": "0.1", "python": "3.11.4"}
    assert machine_line(about) == "AMD EPYC, 2 threads, load 0.5; torch 2.13.0, hftrainer 0.1, Python 3.11.4"
    assert machine_line({**about, "threads": 1, "load": None}).startswith("AMD EPYC, 1 thread; ")
    assert torch.__version__ in machine_line(machine(torch.device("cpu")))


def test_weights_that_a_step_reads_are_those_of_the_sheet():
    with torch.device("meta"):
        model = LLaMAHF(LLaMAHFConfig.from_name("44M"))
    assert decoding_bytes(model) == 60_040_192 * 4


def test_the_command_prints_a_table_and_writes_json(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    path = tmp_path / "b.json"
    arguments = ["--codes", "25", "--rounds", "2", "--batch", "1,4", "--ragged", "6", "--engine", "transformers"]
    assert main(["bench", "sample", "--size", "tiny", *arguments, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    for row in ("un-cached, batch 1", "concatenating cache, batch 1", "ours, batch 4", "transformers generate, batch 4",
                "6 prompts of 20 to 25 codes"):  # fmt: skip
        assert f"| {row}" in printed
    saved = json.loads(path.read_text())
    assert len(saved["results"]) == 7
    assert all(len(row["seconds"]) == 2 for row in saved["results"])
    assert saved["limits"]["bandwidth"] > 0
    assert "| GB read | share of bandwidth |" in printed
    assert f"torch {torch.__version__}" in printed
    assert "{" not in printed  # no dictionary as Python writes it
    read = {row["name"]: row["read"] for row in saved["results"]}
    weights = (2 * (4 * 32 * 32 + 3 * 32 * 256 + 2 * 32) + 64001 * 32 + 32) * 4
    position = 2 * 2 * 32 * 4  # keys and values of two layers
    assert read["un-cached, batch 1"] == 25 * weights
    ours = weights - 3 * 64001 * 32 * can_use_int8(torch.zeros(1))  # the head in 8 bits
    assert read["concatenating cache, batch 1"] == 25 * weights + (25 * 20 + sum(range(25))) * position
    assert read["ours, batch 4"] == 25 * ours + 4 * (25 * 20 + sum(range(25))) * position
    ragged = read["6 prompts of 20 to 25 codes, batch 4"]
    assert ragged > read["ours, batch 4"]  # a second batch of two
    for row in saved["results"]:
        seconds = sorted(row["seconds"])
        share = row["read"] / (sum(seconds) / 2) / saved["limits"]["bandwidth"]
        assert row["bandwidth_share"] == (pytest.approx(share) if row["read"] else None)


def test_a_wrong_sampler_is_no_result(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    whole = LLaMAHF.generate

    def broken(self, *args, **kwargs):
        made = whole(self, *args, **kwargs)
        return made._replace(tokens=(made.tokens + 1) % 64000)

    monkeypatch.setattr(LLaMAHF, "generate", broken)
    with pytest.raises(ValueError, match="chose codes worse"):
        run(SampleBench(size="tiny", codes=5, rounds=1))


def test_the_training_step_has_the_released_loss_and_a_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    path = tmp_path / "t.json"
    assert main(["bench", "train", "--size", "tiny", "--batch", "2", "--rounds", "1", "--json", str(path)]) == 0
    assert "| ours, rows of like length" in capsys.readouterr().out
    saved = json.loads(path.read_text())
    assert saved["losses"][0] == pytest.approx(saved["losses"][1], rel=1e-5)
    released, ours, alike = saved["results"]
    assert released["units"] == ours["units"] == pytest.approx(alike["units"], abs=3)  # real tokens
    assert all(row["bandwidth_share"] > 0 and row["matmul_share"] > 0 for row in saved["results"])


def test_refilled_rows_are_busier_than_batches_that_wait(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    path = tmp_path / "e.json"
    arguments = ["--prompts", "40", "--batch", "8", "--codes", "60", "--rounds", "1", "--json", str(path)]
    assert main(["bench", "evalset", "--size", "tiny", *arguments]) == 0
    assert "| rows refilled" in capsys.readouterr().out
    saved = json.loads(path.read_text())
    occupancy, (waiting, refilled) = saved["occupancy"], saved["results"]
    assert waiting["read"] > 1.1 * refilled["read"] > 0  # as many codes in fewer steps
    assert refilled["bandwidth_share"] > 0
    assert occupancy["rows refilled"] > occupancy["batches that wait"] + 0.1


def test_a_step_of_the_tokenizer(tmp_path, capsys):
    path = tmp_path / "b.json"
    small = ["--batch", "2", "--window", "16", "--width", "32", "--rounds", "1"]
    assert main(["bench", "tokenizer", *small, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "| the released way" in printed
    assert "| ours, with statistics at every step" in printed
    assert [way["name"] for way in json.loads(path.read_text())["results"]][1] == "ours"
