"""No command uses the network unless it is asked to; `tests.faults.offline` has the command lines."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib import import_module
from pathlib import Path

import pytest

from hftrainer.cli import COMMANDS
from tests.faults.offline import ASKS, FORBIDDEN, lines

REPOSITORY = Path(__file__).parents[2]


def plainly() -> dict[str, str]:
    """An environment in which nothing says "offline"."""
    hidden = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "WANDB_MODE")
    return {key: value for key, value in os.environ.items() if key not in hidden}


def verbs() -> set[str]:
    """Every command, with its verb where it has verbs."""
    found = set()
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        import_module(f"hftrainer.commands.{command}").add_arguments(parser)
        inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        found |= {f"{command} {verb}" for action in inner for verb in action.choices} if inner else {command}
    return found


def test_every_verb_has_a_line_or_a_reason(tmp_path):
    (tmp_path / "given" / "data").mkdir(parents=True)
    known = set(lines(tmp_path)) | set(ASKS)
    missing = {verb for verb in verbs() - known if not verb.startswith("bench ")}  # their work is that of the others
    assert not missing
    assert known <= verbs()


@pytest.mark.slow
def test_no_command_makes_a_socket(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.faults.offline", str(tmp_path / "place")],
        cwd=REPOSITORY, env=plainly(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row for row in rows if row["status"]] == []
    (tmp_path / "given" / "data").mkdir(parents=True)
    assert [row["command"] for row in rows] == list(lines(tmp_path))


@pytest.mark.slow
def test_a_server_connects_to_nobody(tmp_path, tiny_model):
    pytest.importorskip("fastapi")
    code = "import sys; from tests.faults.offline import forbid; forbid(loopback=True); "
    code += "from hftrainer.cli import main; sys.exit(main(sys.argv[1:]))"
    line = ["serve", "--model", str(tiny_model), "--port", "0", "--jobs", str(tmp_path / "jobs"), "--device", "cpu"]
    with open(tmp_path / "said", "w+") as said, subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *line], cwd=REPOSITORY, env=plainly(), stdout=subprocess.PIPE,
        stderr=said, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        heard = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", heard)
        assert address is not None, heard + (tmp_path / "said").read_text()
        body = json.dumps({"prompt": "a person walks", "seconds": 0.5}).encode()
        asked = urllib.request.Request(f"{address[0]}/v1/motions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=120) as answer:
            motion = json.load(answer)["motions"][0]
        with urllib.request.urlopen(f"{address[0]}{motion['files']['bvh']}", timeout=120) as answer:
            assert answer.read().startswith(b"HIERARCHY")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != FORBIDDEN
    assert "network:" not in (tmp_path / "said").read_text()


@pytest.mark.parametrize("loopback", [False, True])
def test_this_test_can_fail(loopback):
    code = f"from tests.faults.offline import forbid; forbid({loopback}); import urllib.request; "
    code += "urllib.request.urlopen('http://example.invalid/', timeout=5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == FORBIDDEN
    assert "network:" in done.stderr
