"""A compiled step makes the codes of the eager one, from few kernels."""

import shutil

import pytest

from hftrainer.bench import kernels
from hftrainer.bench.kernels import Kernels
from hftrainer.cli import main


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler has deprecations of its own
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_steps_fuse_and_round_as_before():
    found = kernels.count()
    assert found.equal
    assert found.of(36) <= 450


def test_the_command_adds_up(monkeypatch, capsys):
    monkeypatch.setattr(kernels, "count", lambda: Kernels(16, 11, True))
    assert main(["bench", "kernels"]) == 0
    assert "7B: 401 kernels a step (11 a layer)" in capsys.readouterr().out
    monkeypatch.setattr(kernels, "count", lambda: Kernels(16, 11, False))
    assert main(["bench", "kernels"]) == 1
