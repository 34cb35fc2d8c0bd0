"""Do motions match their text? The actions of a data set, prompts for them, and an evaluator that places motions."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.apps.generate_set import Progress
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.captions import gerund, third_person
from hftrainer.data.prepare.labelled_prompts import MINI_ACTIONS, read_labelled
from hftrainer.evaluation.actions import Outcome, Trial
from hftrainer.evaluation.nearest_action import ActionCenters, NearestReport, nearest_report
from hftrainer.manifest import fingerprint
from hftrainer.readers import FileError
from hftrainer.zoo.load import load_evaluator, load_pipeline, locate

Float32 = NDArray[np.float32]
_ROWS = 32


@dataclass(frozen=True)
class EvaluatorTrials:
    """Which actions: those with at least `least` clips in the splits `real` and `held_out`; `seeds` motions of each,
    and `pairs` of two. `prompts`: a file of prompt and action, separated by a tab; None: the shipped one. An action
    that it does not have gets "a person walks" and "someone is walking" of its name. `frames`: of a real clip, its
    middle. `most_clips`: real clips of one action.
    """

    least: int = 10
    seeds: int = 10
    pairs: int = 60
    real: str = "train"
    held_out: str = "val"
    prompts: Path | None = None
    frames: int = 180
    most_clips: int = 60


@dataclass
class EvaluatorResult:
    """The `report`, and the `content` of its JSON file."""

    report: NearestReport
    content: dict[str, Any]


def evaluate_by_evaluator(
    model: str,
    data: str | os.PathLike[str],
    evaluator: str | os.PathLike[str],
    *,
    asked: EvaluatorTrials = EvaluatorTrials(),
    sampling: Mapping[str, Any] | None = None,
    progress: Progress = iter,
) -> EvaluatorResult:
    """Generate every trial's motion, always by sampling, and place them among the real clips of each action."""
    dataset = DatasetFolder(data)
    judge, pipeline = load_evaluator(evaluator), load_pipeline(model)
    limit = judge.max_frames or asked.frames
    clips = {split: _clips(dataset, split, min(limit, asked.frames)) for split in (asked.real, asked.held_out)}
    names = actions_of(dataset, (asked.real, asked.held_out), asked.least)
    names = [name for name in names if clips[asked.real].get(name)]
    if len(names) < 2:
        raise FileError(f"{dataset.root}: fewer than two actions have {asked.least} clips (labels.json, content)")

    def encode(motions: Sequence[Float32]) -> Float32:
        return np.asarray(judge.encode_motions([motion[:limit] for motion in motions]), dtype=np.float32)

    rng = np.random.default_rng(0)
    centers = ActionCenters.of({name: encode(_some(clips[asked.real][name], asked.most_clips)) for name in names})
    everything = [Trial(*row) for row in trials_of(names, prompts_of(names, asked.prompts), asked, rng)]
    chosen = dataclasses.replace(pipeline.sampling, **{**(sampling or {}), "do_sample": True})
    rows = [(trial.prompt, trial.seed) for trial in everything]
    made = pipeline.generate_rows(rows, sampling=chosen, batch_size=_ROWS, progress=progress)
    outcomes = [Outcome(trial, m.motion, m.ended) for trial, m in zip(everything, made, strict=True)]
    held_out = {name: _some(clips[asked.held_out].get(name, []), asked.most_clips) for name in names}
    report = nearest_report(
        outcomes, centers, encode, held_out, rng=rng, representation=pipeline.representation,
        beside={name: _some(clips[asked.real][name], asked.seeds) for name in names},
    )  # fmt: skip
    content = {
        "model": model,
        "model_hash": fingerprint(locate(model)[0]),
        "evaluator": str(evaluator),
        "asked": {**dataclasses.asdict(asked), "prompts": None if asked.prompts is None else str(asked.prompts)},
        "sampling": chosen.record(),
        "figures": report.figures,
        "nearest": report.top1,
        "among three": report.top3,
        "taken for": report.taken_for,
    }
    return EvaluatorResult(report, content)


def actions_of(dataset: DatasetFolder, splits: Sequence[str], least: int) -> list[str]:
    """Contents of labels.json that at least `least` clips of the splits have."""
    labels = dataset.labels()
    counts: dict[str, int] = defaultdict(int)
    for split in splits:
        for name in dataset.names(split):
            counts[str(labels.get(name, {}).get("content") or "")] += 1
    return sorted(name for name, count in counts.items() if name and count >= least)


def prompts_of(names: Sequence[str], path: Path | None) -> dict[str, list[str]]:
    """Prompts by action, of a file and for the others of their names."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in read_labelled(path or MINI_ACTIONS):
        found[row.kind].append(row.prompt)
    for name in names:
        if not found[name]:
            verb, space, rest = name.partition(" ")
            found[name] = [f"a person {third_person(verb)}{space}{rest}", f"someone is {gerund(verb)}{space}{rest}"]
    return dict(found)


def trials_of(
    names: Sequence[str], prompts: Mapping[str, Sequence[str]], asked: EvaluatorTrials, rng: np.random.Generator
) -> list[tuple[str, int, tuple[str, ...], None]]:
    """(prompt, seed, actions, None) of `asked.seeds` motions an action, its prompts in turn, and of pairs of two."""
    rows: list[tuple[str, int, tuple[str, ...], None]] = [
        (prompts[name][seed % len(prompts[name])], seed, (name,), None) for name in names for seed in range(asked.seeds)
    ]
    for seed in range(asked.pairs):
        first, second = (str(name) for name in rng.choice(list(names), size=2, replace=False))
        parts = [_third(first), _third(second)]
        link = (", then ", " and then ")[seed % 2]
        rows.append((f"a person {link.join(parts)}", seed, (first, second), None))
    return rows


def _third(name: str) -> str:
    verb, space, rest = name.partition(" ")
    return f"{third_person(verb)}{space}{rest}"


def _clips(dataset: DatasetFolder, split: str, frames: int) -> dict[str, list[Float32]]:
    """The middle of each clip, by content."""
    labels = dataset.labels()
    out: dict[str, list[Float32]] = defaultdict(list)
    for name in dataset.names(split):
        content = str(labels.get(name, {}).get("content") or "")
        if content:
            motion = dataset.motion(name)
            start = max(0, (len(motion) - frames) // 2)
            out[content].append(motion[start : start + frames])
    return dict(out)


def _some(clips: Sequence[Float32], most: int) -> list[Float32]:
    """At most `most` of them, evenly from first to last."""
    if len(clips) <= most:
        return list(clips)
    return [clips[int(i)] for i in np.linspace(0, len(clips) - 1, most)]
