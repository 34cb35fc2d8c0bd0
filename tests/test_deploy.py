"""Files for containers and clusters agree with the repository. Nothing here starts a container."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from tests.conftest import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SCRIPTS = sorted((REPOSITORY / "tools" / "slurm").glob("*.sbatch"))


def test_what_the_image_copies_exists_and_is_sent_to_the_builder():
    copied = [word for line in re.findall(r"^COPY (.+)$", DOCKERFILE, flags=re.M) for word in line.split()[:-1]]
    sent = re.findall(r"^!(.+)$", (REPOSITORY / ".dockerignore").read_text(), flags=re.M)
    assert sorted(copied) == sorted(sent)
    assert all((REPOSITORY / place).exists() for place in copied)


def test_every_stage_that_can_be_asked_for_exists():
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.M)
    devices = {service["build"]["args"]["DEVICE"] for service in COMPOSE["services"].values()}
    default = re.search(r"^ARG DEVICE=(\w+)$", DOCKERFILE, flags=re.M)
    assert default is not None
    assert devices == {"cpu", "cuda"}
    assert {f"torch-{device}" for device in {*devices, default[1]}} <= set(stages)


def test_versions_are_pinned_and_the_server_is_not_root():
    assert "-c constraints.txt" in DOCKERFILE
    for line in re.findall(r"pip install[^&\n]*", DOCKERFILE):
        assert "-c constraints.txt" in line
    assert re.search(r"^torch==", (REPOSITORY / "constraints.txt").read_text(), flags=re.M)
    assert re.search(r"^USER [1-9]\d*$", DOCKERFILE, flags=re.M)


def test_extras_of_the_image_exist():
    project = (REPOSITORY / "pyproject.toml").read_text()
    for extra in re.search(r"'\.\[([\w,]+)\]'", DOCKERFILE)[1].split(","):
        assert re.search(rf"^{extra} = \[", project, flags=re.M)


def test_compose_reaches_the_machine_only_and_needs_a_token():
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert "?" in service["environment"]["HFTRAINER_TOKEN"]
        assert service["read_only"] is True


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_of_the_cluster_are_shell(script):
    shell = shutil.which("bash")
    assert shell is not None
    subprocess.run([shell, "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text()


def test_the_array_of_generate_is_what_the_command_recognises(monkeypatch):
    from hftrainer.apps.launch import shard_from_environment

    text = (REPOSITORY / "tools" / "slurm" / "generate.sbatch").read_text()
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", text).groups())
    count = last - first + 1
    slurm = {"SLURM_ARRAY_TASK_COUNT": str(count), "SLURM_ARRAY_TASK_MIN": str(first)}
    tasks = range(first, last + 1)
    shards = [shard_from_environment({**slurm, "SLURM_ARRAY_TASK_ID": str(task)}) for task in tasks]
    assert shards == [(number, count) for number in range(count)]
