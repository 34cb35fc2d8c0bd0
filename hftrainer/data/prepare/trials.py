"""Prompts with the labels that they ask for, to test a model with: from templates, and written by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.captions import CaptionTemplates, make_captions
from hftrainer.plain_text import read_lines
from hftrainer.readers import FileError

# (prompt, seed, contents, style): the fields of `hftrainer.evaluation.actions.Trial`
Row = tuple[str, int, tuple[str, ...], str | None]
_UNSEEN = Path(__file__).parent / "prompts" / "nano_unseen.tsv"


def trials(templates: CaptionTemplates, seeds: int, pairs: int) -> list[Row]:
    """`seeds` prompts of each content without style words, then `pairs` prompts of two different contents."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for content in sorted(templates.contents):
        for seed in range(seeds):
            rows.append((_caption([{"content": content}], templates, rng), seed, (content,), None))
    contents = sorted(templates.contents)
    for seed in range(pairs):
        first, second = (str(c) for c in rng.choice(contents, size=2, replace=False))
        parts = [{"content": first}, {"content": second}]
        rows.append((_caption(parts, templates, rng), seed, (first, second), None))
    return rows


def styled_trials(templates: CaptionTemplates, labels: Mapping[str, Any], count: int) -> list[Row]:
    """Prompts of one content in one style, drawn evenly from the styles, of pairs that the labels have."""
    found: dict[str, set[str]] = defaultdict(set)
    for label in labels.values():
        words = templates.styles.get(label.get("style", ""))
        if "parts" not in label and words is not None and not words.plain and "content" in label:
            found[label["style"]].add(label["content"])
    if count and not found:
        raise ValueError("labels.json has no clip with a content and one of the templates' styles")
    rng = np.random.default_rng(1)
    rows: list[Row] = []
    for seed in range(count):
        style = sorted(found)[seed % len(found)]
        content = str(rng.choice(sorted(found[style])))
        rows.append((_caption([{"content": content, "style": style}], templates, rng), seed, (content,), style))
    return rows


def unseen_trials(path: Path | None = None) -> list[Row]:
    """Prompts of a file with prompt, content and perhaps style, separated by tabs; three seeds each."""
    path = path or _UNSEEN
    rows: list[Row] = []
    for line in read_lines(path):
        if line.strip() and not line.startswith("#"):
            fields = line.split("\t")
            if len(fields) < 2:
                raise FileError(
                    f"{path}: expected prompt, action and optionally style, separated by tabs, got {line!r}"
                )
            for seed in range(3):
                rows.append((fields[0], seed, (fields[1],), fields[2] if len(fields) > 2 else None))
    return rows


def real_clips(dataset: DatasetFolder, split: str) -> tuple[dict[str, list[np.ndarray]], dict[str, list[str]]]:
    """Clips of a split by content, and their styles in the same order."""
    labels = dataset.labels()
    motions: dict[str, list[np.ndarray]] = defaultdict(list)
    styles: dict[str, list[str]] = defaultdict(list)
    for name in dataset.names(split):
        label = labels.get(name, {})
        if not {"content", "style"} <= label.keys():
            raise FileError(f"{dataset.root}: labels.json lacks the content or style of {name!r} of split {split!r}")
        motions[label["content"]].append(dataset.motion(name))
        styles[label["content"]].append(label["style"])
    return dict(motions), dict(styles)


def _caption(parts: list[dict[str, str]], templates: CaptionTemplates, rng: np.random.Generator) -> str:
    return make_captions(list(parts), templates, 1, rng)[0]
