"""Whether the parts of a timeline are what their prompts ask for, by the action classifier that a model comes with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.requests import SamplingParams

SETTLING = 0.5  # seconds of a part that are not judged: the body is on its way from what it did before


def following(
    pipe: Any, classifier: Path, prompts: Sequence[str], seconds: float, count: int, sampling: SamplingParams
) -> dict[str, Any]:
    """The share of parts, after the first, that the classifier takes for what the prompt gives by itself.

    What a prompt gives by itself is the most frequent action of `count` motions of it; `by_itself` is how often that
    comes. Timelines are of all `prompts` with seeds 0, 1, ...
    """
    from hftrainer.models.action_classifier import ActionClassifier

    scorer = ActionClassifier.from_pretrained(classifier)
    fps = pipe.motion_format.fps
    length, settling = round(seconds * fps), round(SETTLING * fps)
    expected, certain = {}, []
    for prompt in prompts:
        motions = pipe(prompt, num_motions=count, seconds=seconds, sampling=sampling)
        (action, times), *_ = Counter(scorer.classify([made.motion for made in motions])[0]).most_common(1)
        expected[prompt] = action
        certain.append(times / count)
    seen = []
    for seed in range(count):
        motion = pipe.timeline([(prompt, seconds) for prompt in prompts], seed=seed, sampling=sampling).motion
        parts = [motion[part * length + settling : (part + 1) * length] for part in range(len(prompts))]
        actions = scorer.classify(parts)[0]
        seen.append([action == expected[prompt] for action, prompt in zip(actions, prompts, strict=True)])
    shares = np.mean(seen, axis=0)
    return {
        "actions": expected,
        "by_itself": float(np.mean(certain)),
        "in_timelines": float(shares[1:].mean()),
        "by_part": dict(zip(prompts, shares.round(3).tolist(), strict=True)),
    }
