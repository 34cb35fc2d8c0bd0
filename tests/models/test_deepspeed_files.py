"""Real checkpoints of the real DeepSpeed, two ranks, every ZeRO stage, read back equal and without DeepSpeed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hftrainer.models.checkpoint import CheckpointError, open_checkpoint

pytest.importorskip("deepspeed", reason="pip install 'hftrainer[deepspeed]'")

WRITER = Path(__file__).parent / "deepspeed_writer.py"
CASES = [f"zero{stage}{kind}" for stage in range(4) for kind in ("", "_bf16")]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with a checkpoint for every case."""
    out = tmp_path_factory.mktemp("deepspeed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, str(WRITER), str(out), str(rank), "2", port],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    logs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(logs)[-4000:]
    return out


def expected(folder: Path, stage: int) -> dict[str, torch.Tensor]:
    """What DeepSpeed's own tool puts together."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    if stage == 0:
        files = sorted(folder.glob("*/mp_rank_00_model_states.pt"))
        return torch.load(files[0], weights_only=True)["module"]
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    return get_fp32_state_dict_from_zero_checkpoint(str(folder))


@pytest.mark.parametrize("case", CASES)
def test_weights_equal_deepspeeds_own_reading(written, case):
    stage = int(case[4])
    checkpoint = open_checkpoint(written / case)
    want = expected(written / case, stage)
    assert checkpoint.form == f"DeepSpeed ZeRO {stage}"
    assert set(checkpoint) == set(want)
    for name, tensor in want.items():
        assert checkpoint.shape_of(name) == tuple(tensor.shape)
        assert torch.equal(checkpoint[name].float(), tensor.float()), name
    assert "deepspeed.runtime.zero.config.ZeroStageEnum" in checkpoint.placeholders or stage == 0


@pytest.mark.parametrize("case", ["zero2", "zero3_bf16"])
def test_a_zip_around_the_folder(written, tmp_path, case):
    archive = shutil.make_archive(str(tmp_path / "run"), "zip", written, case)
    zipped, plain = open_checkpoint(archive), open_checkpoint(written / case)
    assert set(zipped) == set(plain)
    for name in plain:
        assert torch.equal(zipped[name], plain[name])


def test_the_tags_own_folder_opens_too(written):
    tag = next(path for path in (written / "zero2").iterdir() if path.is_dir())
    assert set(open_checkpoint(tag)) == set(open_checkpoint(written / "zero2"))


def test_missing_and_damaged_partitions_are_named(written, tmp_path):
    copy = shutil.copytree(written / "zero2", tmp_path / "zero2")
    partition = sorted(copy.glob("*/*optim_states.pt"))[1]
    whole = partition.read_bytes()
    partition.write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match="is not a complete zip file"):
        open_checkpoint(copy)
    partition.unlink()
    with pytest.raises(CheckpointError, match="was written by 2 ranks, but holds the partitions of 1"):
        open_checkpoint(copy)


def test_nothing_of_deepspeed_is_imported(written):
    code = (
        "import sys; from hftrainer.models.checkpoint import open_checkpoint; "
        f"c = open_checkpoint({str(written / 'zero3')!r}); [c[n] for n in c]; print('deepspeed' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"
