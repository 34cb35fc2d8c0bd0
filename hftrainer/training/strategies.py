"""How a run is spread over devices: a strategy by name, and every combination that cannot work refused beforehand.

    auto      single on one device, ddp on more
    single    one device
    ddp       every device has all of the model and optimizer; gradients are averaged
    zero1-3   DeepSpeed (arXiv 1910.02054): optimizer state, then gradients, then parameters are sharded
    fsdp2     torch's fully_shard: all three sharded, block by block

`trainer_arguments` gives what Lightning's Trainer needs for it; `check_strategy` needs neither Lightning nor devices.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from hftrainer.config import ConfigError, TrainerConfig
from hftrainer.extras import need

NAMES = ("auto", "single", "ddp", "zero1", "zero2", "zero3", "fsdp2")
PRECISIONS = ("32-true", "bf16-true", "bf16-mixed", "16-mixed")
OFFLOADS = ("none", "optimizer", "all")
_LIGHTNING_NAMES = {
    "deepspeed": "zero2", "deepspeed_stage_1": "zero1", "deepspeed_stage_2": "zero2", "deepspeed_stage_3": "zero3",
    "deepspeed_stage_2_offload": "zero2 with trainer.offload=optimizer",
    "deepspeed_stage_3_offload": "zero3 with trainer.offload=all", "fsdp": "fsdp2", "single_device": "single",
}  # fmt: skip


@dataclass(frozen=True)
class Devices:
    """Where a run goes: `kind` "cpu", "cuda" or "mps", and processes on each of `nodes` machines."""

    kind: str
    per_node: int
    nodes: int

    @property
    def processes(self) -> int:
        """All of them."""
        return self.per_node * self.nodes


def check_strategy(config: TrainerConfig, callbacks: Sequence[str] = ()) -> None:
    """Raise `ConfigError` for what cannot be combined, whatever the machine; `callbacks` by their names."""
    name = config.strategy
    if name not in NAMES:
        near = _LIGHTNING_NAMES.get(name) or next(iter(get_close_matches(name, NAMES, n=1)), None)
        hint = f"; did you mean {near}?" if near else ""
        raise ConfigError(f"trainer.strategy is one of {', '.join(NAMES)}, got {name!r}{hint}")
    if config.precision not in PRECISIONS:
        raise ConfigError(f"trainer.precision is one of {', '.join(PRECISIONS)}, got {config.precision!r}")
    if config.offload not in OFFLOADS:
        raise ConfigError(f"trainer.offload is one of {', '.join(OFFLOADS)}, got {config.offload!r}")
    if config.offload != "none" and not is_zero(name):
        raise ConfigError(
            f"trainer.offload={config.offload} needs DeepSpeed; with trainer.strategy={name} write offload: none, or "
            "use strategy: zero2"
        )
    if config.offload == "all" and name != "zero3":
        raise ConfigError(
            f"trainer.offload=all moves parameters, which {name} keeps in full on every device; write offload: "
            "optimizer or use strategy: zero3"
        )
    if is_zero(name) and config.precision.endswith("mixed"):
        raise ConfigError(
            f"trainer.precision={config.precision} does not work with {name}: DeepSpeed keeps parameters in bfloat16 "
            "and a float32 copy that the optimizer updates, which is called bf16-true; write that, or 32-true"
        )
    if name == "fsdp2" and config.precision in ("bf16-true", "16-mixed"):
        raise ConfigError(
            f"trainer.precision={config.precision} does not go with fsdp2, whose shards stay float32; write bf16-mixed "
            "(they are sent and multiplied in bfloat16) or 32-true"
        )
    if name == "zero3" and "ema" in callbacks:
        raise ConfigError("the ema callback does not support zero3; use fsdp2 or zero2, or remove it")
    count = _written_devices(config)
    if count is not None:
        _check_count(config, count * config.num_nodes)


def find_devices(config: TrainerConfig) -> Devices:
    """What this machine has for a configuration; raises `ConfigError` where it does not have what is asked for."""
    kind = {"gpu": "cuda", "auto": _best_kind()}.get(config.accelerator, config.accelerator)
    if kind not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"trainer.accelerator is auto, cpu, gpu, cuda or mps, got {config.accelerator!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"trainer.accelerator={config.accelerator}, but this machine or this torch has no CUDA device"
        )
    there = torch.cuda.device_count() if kind == "cuda" else 1
    wanted = _written_devices(config) or there
    if kind == "cuda" and wanted > there:
        raise ConfigError(f"trainer.devices={config.devices}: this machine has {there} CUDA devices")
    devices = Devices(kind, wanted, config.num_nodes)
    _check_launcher(config, devices)
    _check_count(config, devices.processes)
    return devices


def trainer_arguments(config: TrainerConfig) -> dict[str, Any]:
    """The arguments of Lightning's ``Trainer`` that say where and in which precision to run."""
    check_strategy(config)
    devices = find_devices(config)
    name = config.strategy
    if name == "auto":
        name = "single" if devices.processes == 1 else "ddp"
    from hftrainer.training import precision as plugins

    arguments: dict[str, Any] = {
        "accelerator": config.accelerator,
        "devices": int(config.devices) if config.devices.lstrip("-").isdigit() else config.devices,
        "num_nodes": config.num_nodes,
    }
    if is_zero(name):
        if devices.kind == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when deepspeed is first imported
        need("deepspeed", f"trainer.strategy={name}")
        from hftrainer.training.zero import make_zero

        return {
            **arguments,
            "strategy": make_zero(int(name[-1]), offload=config.offload, kind=devices.kind),
            "plugins": [plugins.ZeroPrecision(config.precision)],
        }
    if name == "fsdp2":
        from hftrainer.training.fsdp import FSDP2

        strategy = FSDP2(processes=devices.processes, in_bfloat16=config.precision == "bf16-mixed")
        return {
            **arguments,
            "strategy": strategy,
            "precision": "32-true",
        }  # of the shards; fully_shard casts what it sends
    if name == "ddp":
        from lightning.pytorch.strategies import DDPStrategy

        arguments["strategy"] = DDPStrategy(gradient_as_bucket_view=True)  # no second copy of the gradients
    if config.precision == "bf16-true":
        return {**arguments, "plugins": [plugins.TrainablePartsPrecision("bf16-true")]}
    return {**arguments, "precision": config.precision}


def prepare_task(task: Any, config: TrainerConfig) -> None:
    """Check that the task can be trained so, and switch on what it is asked for."""
    kind = type(task).__name__
    if shards_parameters(config.strategy) and not task.supports_sharding:
        raise ConfigError(
            f"{kind}, as it is configured, does not support parameter sharding (trainer.strategy={config.strategy}); "
            "use ddp, zero1 or zero2"
        )
    if config.precision.endswith("-true") and config.precision != "32-true" and not task.supports_bf16_params:
        raise ConfigError(f"trainer.precision={config.precision}: {kind} supports 32-true or bf16-mixed")
    if config.activation_checkpointing:
        task.checkpoint_activations()
    if config.compile:
        task.compile_parts()


def shutdown_process_group() -> None:
    """Call at the end of a run of several processes.

    A thread of gloo that still lets go of its last message while the interpreter goes down aborts it (pytorch issue
    190489), in one run of five; a moment's rest after the last message prevents it.
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.barrier()
        time.sleep(0.3)


def is_zero(name: str) -> bool:
    """Whether a strategy is DeepSpeed's."""
    return name.startswith("zero")


def shards_parameters(name: str) -> bool:
    """Whether no process has all of the model between steps."""
    return name in ("zero3", "fsdp2")


def writes_folders(name: str) -> bool:
    """Whether a resume checkpoint is a folder of every process's shard, which the strategy writes itself."""
    return is_zero(name) or name == "fsdp2"


def check_resume(path: Path, config: TrainerConfig, processes: int) -> None:
    """Raise `ConfigError`, with what to do, for a checkpoint that this strategy cannot continue from."""
    form, world = _form_of(path)
    wanted = "zero" if is_zero(config.strategy) else "fsdp2" if config.strategy == "fsdp2" else "file"
    remedy = (
        "resume with what wrote it, or start a new run from its weights: resume=never, another output_dir, and "
        f"model.init.ar={path.resolve().parents[1] / 'last'} (or best/)"
    )
    if form != wanted:
        names = {"zero": "DeepSpeed", "fsdp2": "fsdp2", "file": "single or ddp"}
        raise ConfigError(f"{path} was written by {names[form]}, this run has strategy={config.strategy}; {remedy}")
    if form == "zero" and world != processes:
        raise ConfigError(
            f"{path} was written by {world} processes and this run has {processes}; DeepSpeed's optimizer shards fit "
            f"only the number that wrote them; {remedy}"
        )


def _form_of(path: Path) -> tuple[str, int]:
    """Who wrote a resume checkpoint, and, for DeepSpeed, how many processes."""
    if path.is_file():
        return "file", 0
    if (path / ".metadata").is_file():
        return "fsdp2", 0
    shares = len(list(path.glob("checkpoint/*_optim_states.pt")))
    if shares:
        return "zero", shares
    raise ConfigError(f"{path} is neither a checkpoint file nor a folder of DeepSpeed or fsdp2; is it complete?")


def _check_count(config: TrainerConfig, processes: int) -> None:
    if config.strategy == "single" and processes != 1:
        raise ConfigError(
            f"trainer.strategy=single uses one device, but {processes} are configured; use ddp or devices=1"
        )
    if config.strategy == "fsdp2" and processes < 2:
        raise ConfigError(
            "trainer.strategy=fsdp2 shards a model over processes, and this run has one; use single, or set "
            "trainer.devices (zero3 with trainer.offload=all is for a model that is too large for one device)"
        )


def _check_launcher(config: TrainerConfig, devices: Devices) -> None:
    """torchrun starts its own number of processes; what does not match would wait for ever."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != devices.processes:
        raise ConfigError(
            f"torchrun started {started} processes, but the configuration has {devices.processes} "
            f"(trainer.devices={config.devices} on trainer.num_nodes={config.num_nodes}); make them the same"
        )


def _written_devices(config: TrainerConfig) -> int | None:
    """Devices a machine as the configuration says, or None where it leaves that to the machine."""
    text = config.devices.strip()
    if text in ("auto", "-1"):
        return None
    if text.isdigit() and int(text) > 0:
        return int(text)
    parts = text.strip("[]").split(",")
    if len(parts) > 1 and all(part.strip().isdigit() for part in parts if part.strip()):
        return len([part for part in parts if part.strip()])
    raise ConfigError(f"trainer.devices is auto, a number, or a list as in '0,1', got {config.devices!r}")


def _best_kind() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
