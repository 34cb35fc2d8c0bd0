"""What is installed is pinned and may be used, and nothing asks the network unless it is told to."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LOCK = (REPOSITORY / "requirements.lock").read_text()


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-zA-Z0-9_.-]+)==([^\s;\\]+)", text, re.M))


def test_every_licence_is_allowed(capsys):
    assert runpy.run_path(str(REPOSITORY / "scripts" / "licences.py"))["main"]() == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-cpu.lock"])
def test_every_package_of_the_lock_has_hashes(name):
    text = (REPOSITORY / name).read_text()
    for block in re.split(r"^(?=[a-zA-Z0-9])", text, flags=re.M)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block[:80]
    assert len(pins(text)) > 80


def test_the_lock_has_the_tested_versions():
    locked = pins(LOCK)
    tested = pins((REPOSITORY / "constraints.txt").read_text())
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in tested.items()}
    both = {name for name in normal if name in locked}
    assert len(both) > 12
    assert {name: locked[name] for name in both} == {name: normal[name] for name in both}
    assert locked["torch"] == "2.13.0"


def test_the_lock_has_every_extra_of_all():
    project = (REPOSITORY / "pyproject.toml").read_text()
    extras = re.search(r'^all = \["hftrainer\[([\w,]+)\]"\]', project, re.M)[1].split(",")
    assert {"train", "serve"} <= set(extras)
    for extra in extras:
        needs = re.findall(r'"([\w.-]+)', re.search(rf"^{extra} = \[(.*)\]", project, re.M)[1])
        assert {re.sub(r"[-_.]+", "-", name).lower() for name in needs} <= set(pins(LOCK))


WITHOUT_NETWORK = """if True:
    import socket, sys

    def refuse(event, arguments):
        if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
            address = arguments[-1] if event == "socket.connect" else arguments[0]
            if not isinstance(address, (str, bytes)) or event != "socket.connect":
                print("network:", event, arguments[:2], file=sys.stderr)
                import os
                os._exit(66)

    sys.addaudithook(refuse)
    from hftrainer.cli import main
    sys.exit(main(sys.argv[1:]))"""


@pytest.mark.parametrize("command", ["generate", "zoo", "doctor", "train"])
def test_nothing_asks_the_network_unless_it_is_told_to(tmp_path, command, synthetic):
    """Not even to look whether there is something newer: no environment variable says offline here."""
    lines = {
        "generate": ["generate", "a person walks", "--model", "gotozero-nano", "--seconds", "1", "--formats", "npy",
                     "--out", str(tmp_path / "out")],
        "zoo": ["zoo", "list"],
        "doctor": ["doctor"],
        "train": ["train", "configs/gotozero/debug_tokenizer.yaml", f"data.root={synthetic}", "trainer.max_steps=1",
                  f"output_dir={tmp_path / 'run'}", "trainer.accelerator=cpu", "callbacks=[]"],
    }  # fmt: skip
    hidden = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "WANDB_MODE")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, *lines[command]],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1500:]
    assert "network:" not in done.stderr


def test_the_network_test_can_fail(tmp_path):
    code = WITHOUT_NETWORK.replace("from hftrainer.cli import main", "socket.create_connection(('127.0.0.1', 9))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 66
