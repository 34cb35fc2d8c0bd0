"""Writes real DeepSpeed checkpoints, every stage; run as one of several processes by test_deepspeed_files.py.

python deepspeed_writer.py OUT RANK WORLD PORT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(out: Path, rank: int, world: int, port: str) -> None:
    """Train each model two steps and save it; the expected weights beside it."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    import deepspeed
    import deepspeed.ops
    import torch

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # a compiled helper that CPUs do without
    deepspeed.init_distributed("gloo")
    for stage in (0, 1, 2, 3):
        for bf16 in (False, True):
            write(out / f"zero{stage}{'_bf16' if bf16 else ''}", stage, bf16)
    torch.distributed.barrier()


def write(folder: Path, stage: int, bf16: bool) -> None:
    """One checkpoint of a model with odd sizes, two groups, a buffer, a frozen layer and a shared weight."""
    import deepspeed
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7, affine=False), torch.nn.Linear(7, 3, bias=False),
        torch.nn.Linear(3, 3),
    )  # fmt: skip
    model[3].requires_grad_(False)
    groups = [{"params": [model[0].weight]}, {"params": [model[0].bias, model[2].weight]}]
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(groups, lr=1e-2),
        config={
            "train_micro_batch_size_per_gpu": 4, "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": stage}, "bf16": {"enabled": bf16},
        },
    )  # fmt: skip
    for _ in range(2):
        x = torch.randn(4, 5, dtype=torch.bfloat16 if bf16 else torch.float32)
        engine.backward(engine(x).square().sum())
        engine.step()
    engine.save_checkpoint(str(folder), client_state={"note": "kept", "epoch": 1})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    sys.stdout.flush()
    os._exit(0)  # a gloo thread may abort the interpreter's own exit (pytorch issue 190489)
