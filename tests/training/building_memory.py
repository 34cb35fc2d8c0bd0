"""Peak CPU memory of two processes that build the 775M preset in shards, and keep their shards; prints one line each.

python building_memory.py zero3|fsdp2 RANK PORT [FOLDER]     with FOLDER: from the weights of that model
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def memory(name: str) -> float:
    """A line of this process's status, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e9


def main(strategy: str, rank: str, port: str, start: str | None) -> None:
    """Build, and make the sharded parameters that the strategy trains."""
    os.environ |= {
        "LOCAL_RANK": rank, "RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
    }  # fmt: skip
    sys.path.insert(0, str(REPOSITORY))
    import deepspeed
    import torch

    from hftrainer.models.motion.motionmillion import artifact
    from hftrainer.models.motion.motionmillion.config import MotionMillionConfig
    from hftrainer.models.shard_building import fill, keep_shards, take_rows
    from hftrainer.registry import MODELS
    from hftrainer.training.zero import make_zero, shard

    settings = {"train_micro_batch_size_per_gpu": 1, **make_zero(3, offload="none", kind="cpu").config}
    deepspeed.init_distributed("gloo", distributed_port=int(port), rank=int(rank), world_size=2)
    tokenizer = {"name": "human_vqvae", "nb_code": 65536}
    sizes = {"name": "llama", "n_layer": 36, "n_head": 20, "n_embd": 1280, "vocab_size": 64002}
    section = {"name": "motionmillion", "tokenizer": tokenizer, "ar": sizes}
    if start is not None:
        section |= {"init": {"ar": start}, "ar": None}
    _, config = MODELS.resolve(section, path="model")
    assert isinstance(config, MotionMillionConfig)
    before = memory("VmHWM")
    with keep_shards(int(rank), 2):
        ar = artifact.build(config).ar
    size = sum(p.numel() for p in ar.parameters()) * 4 / 1e9
    built = memory("VmHWM") - before
    if strategy == "zero3":
        shard(ar, settings, torch.device("cpu"))
    else:
        from torch.distributed.fsdp import fully_shard

        rows = take_rows(ar)
        for unit in (*ar.transformer.blocks(), ar):
            fully_shard(unit, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
        fill(ar, rows, torch.device("cpu"))
    peak = memory("VmHWM") - before
    print(f"{strategy}: {size:.2f} GB of parameters; built at {built:.2f} GB, peak {peak:.2f} GB = {peak / size:.2f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None)
    sys.stdout.flush()
    os._exit(0)
