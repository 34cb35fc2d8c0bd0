"""``hftrainer train --dry-run``: what a run would be, without a weight in memory and without its data being there.

The model and its task are built on the meta device, where tensors have shapes and no content.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from hftrainer.config import ConfigError, Experiment
from hftrainer.data.mixed import build_data, roots_of
from hftrainer.models.outline import outline
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.registry import DATASETS, TASKS
from hftrainer.training.activations import StepMemory, step_memory
from hftrainer.training.fit import check_experiment
from hftrainer.training.memory import NOT_COUNTED, Sizes, Spread, card_bytes, fits, memory_per_device, spread_of
from hftrainer.training.strategies import prepare_task
from hftrainer.training.task import BatchShape

_OPENED = 20_000  # clips of a folder whose files are looked at to count an epoch; above that, names are counted
_GB = 1e9


@dataclass(frozen=True)
class Part:
    """A part of the model: parameters, how many of them train, and the bytes of those that do not."""

    name: str
    parameters: int
    trained: int
    frozen_bytes: int


@dataclass
class DryRun:
    """What was found; `lines` says it."""

    resolved: dict[str, Any]
    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    fits: bool | None = None

    def lines(self) -> list[str]:
        """Everything but the configuration."""
        out = [f"{'part':40} {'parameters':>16} {'trained':>16}"]
        out += [f"{part.name:40} {part.parameters:16,} {part.trained:16,}" for part in self.parts]
        out += ["", *(f"{name:40} {value}" for name, value in self.facts.items())]
        return [*out, "", *(f"note: {note}" for note in self.notes)]


def dry_run(experiment: Experiment, *, card: str | None = None) -> DryRun:
    """Outline a run. Raises `ConfigError` for what training would refuse in the same configuration."""
    began = time.perf_counter()
    found = DryRun(check_experiment(experiment))
    bundle, notes = outline(experiment.model)
    found.notes += notes
    source = _open_data(experiment, found)
    if bundle is None:
        found.notes.append("the model's sizes are not known, so its parameters and memory are not counted")
    else:
        task = _build_task(experiment, bundle, source, found)
        prepare_task(task, dataclasses.replace(experiment.trainer, compile=False))
        if experiment.trainer.precision == "bf16-true":
            task.to_half(torch.bfloat16)
        found.parts = list(_parts(task, bundle))
        _count_memory(experiment, task, found, card)
    _count_steps(experiment, source, found)
    found.facts["outlined in"] = f"{time.perf_counter() - began:.1f} s"
    return found


# --- parts ----------------------------------------------------------------------------------------------------------


def _build_task(experiment: Experiment, bundle: nn.Module, source: Any, found: DryRun) -> Any:
    section = dict(experiment.task)
    if section.get("sentence_model") is not None:
        found.notes.append(f"the sentence model {section['sentence_model']} of the loss is not counted")
        section["sentence_model"] = None
    if source is None or hasattr(source, "contents"):
        source = _absent_data(bundle, source)
    with torch.device("meta"):
        return TASKS.build(section, path="task", bundle=bundle, source=source)


def _absent_data(bundle: Any, source: Any) -> Any:
    """What a task asks of its data before it has seen a row, for missing data."""
    config = getattr(bundle, "config", None)
    tokens = SimpleNamespace(
        codebook_size=getattr(bundle, "codebook_size", 0),
        check_tokenizer=lambda fingerprint: None,
        folder="missing data",
    )
    mean = getattr(bundle, "mean", None)
    width = len(mean) if mean is not None and mean.ndim else get_representation(DEFAULT).width
    return SimpleNamespace(
        statistics=(np.zeros(width, np.float32), np.ones(width, np.float32)),
        representation=None,  # not known
        tokens=tokens,
        contents=source.contents if source is not None else list(getattr(config, "contents", [])),
        styles=source.styles if source is not None else list(getattr(config, "styles", [])),
        train_captions=lambda: [],
    )


def _parts(task: Any, bundle: nn.Module) -> Iterator[Part]:
    """The bundle's children, then what the task adds; a parameter is counted where it is first met."""
    seen: set[int] = set()
    kept = getattr(task, "bundle", bundle)
    children = [*kept.named_children(), *((f"task.{n}", m) for n, m in task.named_children() if n != "bundle")]
    if not list(kept.children()) or any(True for _ in kept.parameters(recurse=False)):
        children.insert(0, (type(kept).__name__, kept))
    for name, module in children:
        parameters = [p for p in module.parameters() if id(p) not in seen]
        seen |= {id(p) for p in parameters}
        count = sum(p.numel() for p in parameters)
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        frozen = sum(p.numel() * p.element_size() for p in parameters if not p.requires_grad)
        if count:
            yield Part(name, count, trained, frozen)


# --- memory ---------------------------------------------------------------------------------------------------------


def processes(experiment: Experiment) -> int:
    """How many devices take part; "auto" and -1 are those of this machine."""
    config = experiment.trainer
    wanted = config.devices.strip()
    if wanted.isdigit():
        each = int(wanted)
    elif wanted in ("auto", "-1"):
        each = torch.cuda.device_count() if config.accelerator in ("auto", "gpu", "cuda") else 1
    else:
        each = len([part for part in wanted.strip("[]").split(",") if part.strip()])  # indices
    return max(1, each) * config.num_nodes


def _count_memory(experiment: Experiment, task: Any, found: DryRun, card: str | None) -> None:
    config, world = experiment.trainer, processes(experiment)
    spread = spread_of(config.strategy, config.offload, world)
    block, root = gathered(task)
    sizes = Sizes(
        trained=sum(part.trained for part in found.parts),
        frozen_bytes=sum(part.frozen_bytes for part in found.parts),
        averages=sum(section.get("name") == "ema" for section in experiment.callbacks),
        block=block,
        root=root,
    )
    total = sum(part.parameters for part in found.parts)
    found.facts["all"] = f"{total:,} parameters, {sizes.trained:,} trained"
    step = _step(experiment, task)
    if step is None:
        found.notes.append(f"{type(task).__name__} has no outline_step, so activations are not counted")
    memory = memory_per_device(sizes, spread, config.precision, world, step)
    found.facts["devices"] = f"{world} ({spread.name}, {config.precision})"
    found.facts["memory per device"] = f"{memory.total / _GB:.2f} GB"
    for name, value in memory.parts.items():
        found.facts[f"  {name}"] = f"{value / _GB:.2f} GB"
    for name, value in memory.on_cpu.items():
        found.facts[f"  {name}, CPU"] = f"{value / _GB:.2f} GB in CPU memory"
    _try_checkpointing(experiment, task, found, sizes, spread, step)
    if card is not None:
        found.fits = fits(memory.total, card_bytes(card))
        found.facts[f"on {card}"] = "fits" if found.fits else f"does not fit ({card_bytes(card) / _GB:.0f} GB)"
    found.notes.append(f"rows are assumed to have their maximum length; memory excludes {NOT_COUNTED}")


def _try_checkpointing(
    experiment: Experiment, task: Any, found: DryRun, sizes: Sizes, spread: Spread, step: StepMemory | None
) -> None:
    """Say what activation checkpointing would make of it, where it is off and the task can do it."""
    config = experiment.trainer
    if step is None or config.activation_checkpointing:
        return
    try:
        task.checkpoint_activations()
    except ConfigError:
        return
    less = _step(experiment, task)
    memory = memory_per_device(sizes, spread, config.precision, processes(experiment), less)
    found.facts["  with activation_checkpointing"] = f"{memory.total / _GB:.2f} GB in all"


def _step(experiment: Experiment, task: Any) -> StepMemory | None:
    """What a step takes. fsdp2 gathers a block in bfloat16 and frees it; autocast keeps a copy of every matrix."""
    config = experiment.trainer
    mixed = config.precision.endswith("mixed")
    if mixed and config.strategy == "fsdp2":
        task.to_half(torch.bfloat16)
        mixed = False
    return step_memory(task, _largest_batch(experiment), autocast=mixed)


def gathered(task: Any) -> tuple[int, int]:
    """Parameters of the largest block that fsdp2 gathers at a time, and of what it gathers for all of a step."""
    units = task.sharding_units() if hasattr(task, "sharding_units") else None
    if units is None:
        return 0, 0
    blocks, root = units
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
    return max(sizes, default=0), sum(p.numel() for p in root.parameters()) - sum(sizes)


def _largest_batch(experiment: Experiment) -> BatchShape:
    config = _data_config(experiment)
    if hasattr(config, "max_tokens"):
        encoder = experiment.model.get("text_encoder") or {}
        codes = config.max_tokens + 1
        rows = config.batch_size if not config.batch_tokens else max(1, config.batch_tokens // codes)
        return BatchShape(rows, codes=codes, text=int(encoder.get("max_tokens", 150)))
    return BatchShape(getattr(config, "batch_size", 1), frames=getattr(config, "window", 0))


def _data_config(experiment: Experiment) -> Any:
    """The checked section `data`; of several sets, the first one's."""
    roots = roots_of(experiment.data)
    section = {**experiment.data, "root": roots[0].path} if roots else experiment.data
    return DATASETS.resolve(section, path="data")[1]


# --- data and steps -------------------------------------------------------------------------------------------------


def _open_data(experiment: Experiment, found: DryRun) -> Any:
    """The data source, or None with a note; nothing is written, and no motion is read."""
    config = _data_config(experiment)
    root = getattr(config, "root", None)
    made = experiment.data["name"].startswith("synthetic_")  # these create missing data
    missing = [p for p in (root, made and f"{root}/split", made and _tokens_of(config)) if p and not Path(p).exists()]
    if missing:
        found.notes.append(f"the data are not here ({missing[0]}), so an epoch is not counted")
        return None
    try:
        with redirect_stdout(StringIO()):
            return build_data(experiment.data)
    except ConfigError:
        raise
    except ValueError as error:
        found.notes.append(f"the data cannot be used as they are: {error}")
        return None


def _tokens_of(config: Any) -> str | None:
    return f"{config.root}/{config.tokens}" if hasattr(config, "tokens") else None


def _count_steps(experiment: Experiment, source: Any, found: DryRun) -> None:
    config = _data_config(experiment)
    world, parts = processes(experiment), experiment.trainer.accumulate_grad_batches
    rows = config.batch_size * world * parts
    found.facts["rows per step"] = f"{rows:,} ({config.batch_size} x {world} devices x {parts} batches)"
    train = _train_rows(source, found)
    lengths = getattr(train, "lengths", None)
    if hasattr(config, "max_tokens"):
        if lengths is not None:
            found.facts["tokens per step"] = (
                f"about {rows * (float(np.mean(lengths)) + 1):,.0f} (rows of {np.mean(lengths):.1f} codes on average, "
                "and END); plus text positions"
            )
        else:
            most = rows * (config.max_tokens + 1)
            found.facts["tokens per step"] = (
                f"at most {most:,} ({config.max_tokens} codes and END a row); plus text positions"
            )
    elif hasattr(config, "window"):
        codes = rows * config.window // getattr(config, "frames_per_code", 1)
        found.facts["tokens per step"] = f"{codes:,} codes ({rows * config.window:,} frames)"
    if train is not None:
        batches = source.plan(train, experiment.seed).batches_per_epoch
        steps = batches // (world * parts)
        total = experiment.trainer.max_steps
        epochs = experiment.trainer.max_epochs if total is None else total * world * parts / batches
        found.facts["steps per epoch"] = f"{steps:,} ({len(train):,} rows); {epochs:,.1f} epochs in all"
    if experiment.trainer.max_steps is not None:
        found.facts["steps"] = f"{experiment.trainer.max_steps:,}"


def _train_rows(source: Any, found: DryRun) -> Any:
    """The training rows, motions not read; None where they are not here or too many to be looked at in seconds."""
    if source is None:
        return None
    folder, split = getattr(source, "folder", None), getattr(source.config, "train_split", None)
    if folder is not None and split is not None:
        try:
            names = len(folder.names(split))
        except ValueError as error:
            found.notes.append(f"the data cannot be used as they are: {error}")
            return None
        if names > _OPENED:
            found.notes.append(f"split {split} has {names:,} clips, which are not opened to count epochs; pack them")
            return None
    if getattr(source.config, "in_memory", False):
        source = copy.copy(source)
        source.config = dataclasses.replace(source.config, in_memory=False)
    try:
        return source.train()
    except ValueError as error:
        found.notes.append(f"the data cannot be used as they are: {error}")
        return None
