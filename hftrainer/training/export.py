"""A model folder from a run's newest checkpoint: for a run that ended before it wrote one."""

from __future__ import annotations

from pathlib import Path

from hftrainer.config import ConfigError, read_yaml
from hftrainer.models.checkpoint import assign, open_checkpoint
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.registry import MODELS

_PREFIX = "bundle.ar."


def export_run(
    run: Path, out: Path, checkpoint: Path | None = None, tokenizer: Path | None = None
) -> MotionMillionBundle:
    """Put the transformer of a run's checkpoint (a file, or a folder of DeepSpeed) into its model; write that to `out`.

    The text encoder comes from where the run took it, and so does the tokenizer with its statistics, but for
    `tokenizer`, a model folder. Needs neither Lightning nor DeepSpeed.
    """
    config = run / "config.yaml"
    if not config.is_file():
        raise ConfigError(f"{run} is not the folder of a run: it has no config.yaml")
    resolved = read_yaml(config)
    task = resolved["task"]
    if task["name"] != "motionmillion_ar":
        raise ConfigError(f"{run} trained {task['name']!r}; only motionmillion_ar can be taken from a checkpoint")
    if task.get("lora"):
        raise ConfigError(f"{run} trained an adapter, see {run}/last-adapter; merge it by hftrainer convert adapter")
    path = checkpoint or run / "checkpoints" / "last.ckpt"
    if not path.exists():
        raise ConfigError(f"there is no checkpoint {path}")
    if (path / ".metadata").is_file():
        raise ConfigError(
            f"{path} was written by fsdp2; go on with the run, whose artifact callback writes a model folder"
        )
    init = {**(resolved["model"].get("init") or {})}
    init["tokenizer"] = str(tokenizer) if tokenizer is not None else init.get("tokenizer")
    if init["tokenizer"] is None:
        raise ConfigError(f"{run} took its tokenizer from no model folder; name one with --tokenizer")
    state = open_checkpoint(path, prefix=_PREFIX)
    bundle: MotionMillionBundle = MODELS.build({**resolved["model"], "init": init}, path="model")
    assert bundle.ar is not None
    assign(bundle.ar, state, source=str(path))
    if bundle.ar.config.tie_weights:
        bundle.ar.lm_head.weight = bundle.ar.transformer.wte.weight
    bundle.save_pretrained(out)
    return bundle
