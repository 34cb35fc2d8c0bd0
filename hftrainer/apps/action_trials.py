"""Do motions match their text? Prompts made from a dataset's labels, scored by an action classifier."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.apps.generate_set import Progress
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.captions import load_templates
from hftrainer.data.prepare.trials import real_clips, styled_trials, trials, unseen_trials
from hftrainer.evaluation.actions import ActionReport, Outcome, Trial, classify_outcomes, report
from hftrainer.manifest import fingerprint
from hftrainer.models.action_classifier import ActionClassifier
from hftrainer.zoo.load import load_pipeline, locate

_ROWS = 32


@dataclass(frozen=True)
class ActionTrials:
    """Which prompts: `seeds` motions an action, `pairs` of two actions, `styled` ones with style words, and the file
    `unseen` of prompt, action and style (None: the shipped one)."""

    templates: str = "bandai-namco"
    seeds: int = 20
    pairs: int = 100
    styled: int = 100
    unseen: Path | None = None


@dataclass
class ActionResult:
    """The `report` by label; `mistaken`: prompts that templates do not make, and what their motions look like."""

    report: ActionReport
    mistaken: list[tuple[str, str]]
    content: dict[str, Any]


def evaluate_actions(
    model: str,
    data: str | os.PathLike[str],
    classifier: str | os.PathLike[str],
    *,
    split: str = "test",
    asked: ActionTrials = ActionTrials(),
    sampling: Mapping[str, Any] | None = None,
    progress: Progress = iter,
) -> ActionResult:
    """Generate every trial's motion, always by sampling, and score them beside the real clips of a split."""
    templates, dataset = load_templates(asked.templates), DatasetFolder(data)
    scorer = ActionClassifier.from_pretrained(classifier)
    pipeline = load_pipeline(model)
    chosen = dataclasses.replace(pipeline.sampling, **{**(sampling or {}), "do_sample": True})

    made_up = [Trial(*row) for row in trials(templates, asked.seeds, asked.pairs)]
    made_up += [Trial(*row) for row in styled_trials(templates, dataset.labels(), asked.styled)]
    everything = made_up + [Trial(*row) for row in unseen_trials(asked.unseen)]
    order = sorted(range(len(everything)), key=lambda i: len(everything[i].contents))
    rows = [(everything[i].prompt, everything[i].seed) for i in order]
    made = pipeline.generate_rows(rows, sampling=chosen, batch_size=_ROWS, progress=progress)
    outcomes = {i: Outcome(everything[i], m.motion, m.ended) for i, m in zip(order, made, strict=True)}
    classify_outcomes(list(outcomes.values()), scorer)
    real, styles = real_clips(dataset, split)
    result = report(
        [outcomes[i] for i in range(len(made_up))], real, scorer, styles_of=styles, rng=np.random.default_rng(0)
    )
    free = [outcomes[i] for i in range(len(made_up), len(everything))]
    result.figures["unseen paraphrases, agreement"] = float(np.mean([o.right for o in free]))
    content = {
        "model": model,
        "model_hash": fingerprint(locate(model)[0]),
        "figures": result.figures,
        "by_label": result.by_label,
        "sampling": chosen.record(),
    }
    return ActionResult(result, [(o.trial.prompt, o.seen_content) for o in free if not o.right], content)
