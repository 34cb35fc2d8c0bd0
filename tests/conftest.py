"""Fixtures: golden files, tiny models, a procedural dataset."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test workers with two threads each would wait for each other
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import make_tiny_bundle

GOLDEN = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def golden() -> Any:
    """`golden("ar_pub")` is the content of tests/golden/ar_pub.npz."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as content:
            return {key: content[key] for key in content.files}

    return load


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A procedural dataset; not to be changed by a test."""
    from hftrainer.data.synthetic.motions import write_dataset

    root = tmp_path_factory.mktemp("synthetic")
    write_dataset(root, clips=40, seed=0)
    return root


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact folder of a tiny untrained model with a text encoder of its own."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_tiny_bundle().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real motion capture; a test that needs it is skipped where it is not."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs the motion capture beside the repository (../shared/data)")
    return folder
