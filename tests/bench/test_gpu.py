"""``hftrainer bench gpu`` on a pretend device: every stage runs, figures are lines at once, failures are lines, too."""

from __future__ import annotations

import json
import sys
import time

from hftrainer.bench.gpu import watch
from hftrainer.bench.gpu_stages import STAGES
from hftrainer.cli import main


def test_all_stages_run_small(tmp_path, capsys):
    assert main(["bench", "gpu", "--pretend", "--minutes", "5", "--out", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["stage"] for line in lines)) == list(STAGES)
    correct = [line for line in lines if line["stage"] == "correctness"]
    assert len(correct) == 12
    assert all(line["rows equal to the CPU"] == 24 for line in correct)
    assert {line["kv_len"] for line in lines if "capture_s" in line} == {64, 128, 192}
    assert {line["reads"] for line in lines if "reads" in line and "step_ms" in line} == {"row lengths", "masks"}
    (collected,) = (line for line in lines if line["stage"] == "tests")
    assert collected["said"].startswith("tests/")  # a file, and how many of its tests need a GPU
    assert [line["refused"] for line in lines if line.get("what") == "int4"] == [
        "int4 has a kernel only on CUDA devices, not on cpu; use quantize='int8' here"
    ]
    (trained,) = (line for line in lines if line["stage"] == "train")
    assert trained["loss after"] < trained["loss before"]
    precise = [line for line in lines if line["stage"] == "precision"]
    assert {line["tf32"] for line in precise} == {False, True}
    assert all(line.get("relative difference", 0.0) < 1e-5 for line in precise)  # the pretend device is a CPU
    assert sum(line.get("codes that differ", 0) for line in precise) == 0
    (kernels,) = (line for line in lines if line["stage"] == "kernels")
    assert 50 < kernels["count"] < 200
    page = (tmp_path / "summary.md").read_text()
    assert page.count("## ") == len(STAGES)
    assert "numbers mean nothing" in page


def test_without_time_every_stage_says_so(tmp_path):
    assert main(["bench", "gpu", "--pretend", "--minutes", "0", "--out", str(tmp_path)]) == 1
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [line["failed"] for line in lines] == ["no time was left"] * len(STAGES)


def test_without_a_gpu_the_command_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", "gpu", "--out", str(tmp_path)]) == 1
    assert "--pretend runs all stages small" in capsys.readouterr().err


def test_what_a_stage_said_before_it_failed_or_hung_is_kept():
    code = "print('figures {\"a\": 1}', flush=True); "
    failed = list(watch([sys.executable, "-c", code + "raise SystemExit('no such kernel')"], 60))
    assert failed == [{"a": 1}, {"failed": "status 1: no such kernel"}]
    hung = list(watch([sys.executable, "-c", code + "import time; time.sleep(60)"], 2))
    assert hung == [{"a": 1}, {"failed": "took longer than its 2 s"}]


def test_a_stage_that_is_cut_off_leaves_nothing_running(tmp_path):
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(tmp_path / 'late')!r}).touch()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert list(watch([sys.executable, "-c", code], 1)) == [{"failed": "took longer than its 1 s"}]
    time.sleep(3)
    assert not (tmp_path / "late").exists()
