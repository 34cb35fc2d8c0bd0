"""Trains with every strategy in turn; run as one of two processes by test_two_processes.py.

python two_processes.py WORK RANK PORT STRATEGY[:SETTING ...] ...
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
STEPS = 4


def settings(work: Path, run: Path, *more: str) -> list[str]:
    """What all runs share; a run of two processes sees the batches of one that takes two for a step.

    With a large eps AdamW's steps are in proportion to the gradients, so that wrong scales and wrong clipping show.
    """
    return [
        f"output_dir={run}", f"data.root={work / 'data'}", f"model.text_encoder.source={work / 'text'}",
        "model.ar.clip_dim=32", "data.batch_size=4", "trainer.progress_bar=false", "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=1", "trainer.checkpoint_every_n_steps=2", "trainer.val_every_n_steps=2",
        "trainer.limit_val_batches=1", f"trainer.max_steps={STEPS}", "trainer.gradient_clip_val=0.3",
        "task.text_dtype=float32", "task.optimizer.schedule={name: constant}",
        "task.optimizer.eps=0.1", "task.optimizer.lr=0.1", *more,
    ]  # fmt: skip


def callbacks(run: Path, *, ema: bool = True, samples: bool = True) -> str:
    """Losses; a model folder; an average; motions."""
    named = [f"{{name: 'tests.training.recorder:Recorder', path: '{run}.losses'}}", "{name: artifact}"]
    if ema:
        named.append("{name: ema, decay: 0.5}")
    if samples:
        named.append("{name: t2m_inference, prompts: [a person walks forward, someone stands still], seconds: 0.5}")
    return f"callbacks=[{', '.join(named)}]"


def folder_of(work: Path, name: str) -> Path:
    """Where the run of a strategy with its settings is."""
    return work / name.replace(":", "_").replace("/", "_")


def train(work: Path, name: str, *more: str) -> Path:
    """Half of a run, and the other half from its checkpoint. In `name`, WORK stands for the folder `work`."""
    from hftrainer.config import load_experiment
    from hftrainer.training.fit import fit

    run = folder_of(work, name)
    strategy, *extra = name.replace("WORK", str(work)).split(":")
    ema = callbacks(run, ema=strategy != "zero3")
    config = REPOSITORY / "configs" / "gotozero" / "debug_ar.yaml"
    common = settings(work, run, ema, f"trainer.strategy={strategy}", *extra, *more)
    for steps in (STEPS // 2, STEPS):
        fit(load_experiment(config, [*common, f"trainer.max_steps={steps}"]))
    return run


def main(work: Path, rank: str, port: str, names: list[str]) -> None:
    """All strategies in one pair of processes: importing takes longer than training."""
    os.environ |= {
        "LOCAL_RANK": rank, "NODE_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled",
    }  # fmt: skip
    sys.path.insert(0, str(REPOSITORY))
    for name in names:
        train(work, name, "trainer.devices='2'")
        print(f"done: {name}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
    sys.stdout.flush()
    os._exit(0)  # `shutdown_process_group` has been called; this only spares the pair a second's teardown
