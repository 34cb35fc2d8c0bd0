"""Loading and converting, measured in processes of their own, on a model of a few megabytes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from hftrainer.bench.processes import figures_table, medians, watch
from hftrainer.bench.random_files import make_artifact, model_config
from hftrainer.cli import main

linux = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="memory is asked of Linux's /proc")


@linux
def test_loading_reports_and_keeps_its_bars(tmp_path, capsys):
    model, path = tmp_path / "model", tmp_path / "load.json"
    make_artifact(model, model_config("44M", n_layer=2, n_embd=64), torch.bfloat16)
    command = ["bench", "load", str(model), "--tokens", "2", "--rounds", "2", "--json", str(path)]
    assert main([*command, "--bar-anonymous", "1", "--bar-seconds", "0"]) == 1
    captured = capsys.readouterr()
    assert "limit exceeded: load_seconds" in captured.err
    assert "load_peak_anonymous_gib" not in captured.err
    assert "| load_seconds | " in captured.out
    saved = json.loads(path.read_text())
    assert len(saved["ways"]["ours"]) == 2
    assert saved["load_seconds"] == medians(saved["ways"]["ours"])["load_seconds"]
    assert {"load_peak_anonymous_gib", "peak_resident_gib", "seconds_a_token"} <= saved.keys()
    weights = sum(file.stat().st_size for file in model.glob("*.safetensors") if file.stem in ("ar", "fsq"))
    assert saved["files_gib"] * 2**30 == weights
    assert saved["ratio"] == pytest.approx(saved["load_peak_resident_gib"] / saved["files_gib"], rel=0.05)
    read = saved["token_read"]  # two layers and the head, in bfloat16
    assert read == 2 * (2 * (4 * 64 * 64 + 3 * 64 * 256 + 2 * 64) + 64001 * 64 + 64)
    assert 0 < saved["token_bandwidth_share"] < 1.5
    assert 0 < saved["peak_resident_gib"] < 4


@linux
def test_converting_is_measured_beside_the_way_of_others(tmp_path, capsys):
    path = tmp_path / "convert.json"
    sizes = ["--size", "44M", "--layers", "2", "--width", "64", "--folder", str(tmp_path / "work")]
    command = ["bench", "convert", *sizes, "--compare", "--rounds", "1", "--json", str(path)]
    assert main([*command, "--bar-resident", "8"]) == 0
    assert "| convert_seconds | " in capsys.readouterr().out
    saved = json.loads(path.read_text())
    ours, others = saved["ways"]["ours"][0], saved["ways"]["as other packages load"][0]
    numbers = 2 * 64001 * 64 + 2049 * 64 + 64 + 64 + 2 * (4 * 64 * 64 + 3 * 64 * 256 + 2 * 64)
    assert others["written"] - ours["written"] > 1.8 * numbers  # float32 instead of the bfloat16 that came
    assert ours["mb_a_second"] == pytest.approx(ours["written"] / ours["convert_seconds"] / 1e6)
    assert ours["convert_read"] >= 2 * numbers
    assert ours["bandwidth_share"] > 0
    assert list((tmp_path / "work").iterdir()) == []


@linux
def test_what_a_child_takes_for_its_limits_does_not_count():
    code = "import time; x = b'1' * 2**{}; time.sleep(0.1)"
    script = f"print('phase work'); {code.format(26)}; print('phase limits'); {code.format(29)}; print('figures {{}}')"
    figures = watch([sys.executable, "-u", "-c", script])
    assert 2**26 < figures["work_peak_anonymous_gib"] * 2**30 < 2**28
    assert figures["peak_resident_gib"] * 2**30 < 2**28
    with pytest.raises(ValueError, match="status 3"):
        watch([sys.executable, "-c", "raise SystemExit(3)"])


def test_figures_stand_beside_each_other():
    table = figures_table(
        {"a": [{"s": 1.0, "m": "x"}, {"s": 3.0}, {"s": 2.0}], "b": [{"s": 2.0}, {"s": 3.0}, {"s": 8.0}]}
    )
    assert table.splitlines() == [
        "| figure | a | spread | b | spread | times the first |",
        "| --- | --- | --- | --- | --- | --- |",
        "| s | 2 | 100% | 3 | 200% | 2.00 |",
    ]  # fmt: skip
