"""``hftrainer evaluate prompts``: does a model doubt what it should doubt, and only that?"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.caption_table import load_table
from hftrainer.data.prepare.labelled_prompts import TEST, read_labelled
from hftrainer.english import normalized
from hftrainer.manifest import fingerprint
from hftrainer.pipelines.knowledge import Assessment, Knowledge, UnknownPrompt
from hftrainer.plain_text import read_lines
from hftrainer.zoo.load import load_pipeline, locate


@dataclass
class PromptCheck:
    """`real`: what the model says of captions that it was not trained on, by where they are from; `absurd`: of prompts
    that it should doubt, by kind."""

    real: dict[str, list[Assessment]]
    absurd: dict[str, list[Assessment]]
    content: dict[str, Any] = field(default_factory=dict)

    @property
    def mistaken(self) -> list[tuple[str, Assessment]]:
        """False alarms and absurd prompts that passed, with where they are from."""
        alarms = [(source, said) for source, found in self.real.items() for said in found if not said.known]
        return alarms + [
            (f"absurd, {kind}", said) for kind, found in self.absurd.items() for said in found if said.known
        ]

    def markdown(self) -> str:
        """Two tables: what is doubted of real captions, and of absurd prompts."""
        lines = ["| real captions not trained on | number | doubted |", "|---|--:|--:|"]
        lines += [_row(name, found) for name, found in self.real.items()]
        everything = [said for found in self.absurd.values() for said in found]
        lines += ["", "| absurd prompts | number | doubted |", "|---|--:|--:|", _row("all", everything)]
        lines += [_row(kind, found) for kind, found in sorted(self.absurd.items())]
        return "\n".join(lines) + "\n"


def check_prompts(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    split: str = "val",
    trained: str = "train",
    captions: Sequence[str | os.PathLike[str]] = (),
    absurd: Path | None = None,
) -> PromptCheck:
    """Captions of a split that the split `trained` does not have, and absurd prompts.

    `captions`: more of the former, as text files with one a line, or as caption tables by name or .jsonl file.
    Raises `UnknownPrompt` for a model that has no known.json.
    """
    pipeline = load_pipeline(model)
    judge: Knowledge | None = pipeline.knowledge
    if judge is None:
        raise UnknownPrompt(
            f"{model} cannot tell which prompts it knows; make its files with: hftrainer data vocabulary"
        )
    dataset = DatasetFolder(data)
    seen = set(_captions(dataset, trained))
    sources = {f"split {split}": _captions(dataset, split), **{Path(path).stem: _listed(path) for path in captions}}
    real = {name: _unseen(texts, seen) for name, texts in sources.items()}
    kinds: dict[str, list[Assessment]] = defaultdict(list)
    for row in read_labelled(absurd or TEST):
        kinds[row.kind].append(judge.assess(row.prompt))
    found = PromptCheck({name: [judge.assess(text) for text in texts] for name, texts in real.items()}, dict(kinds))
    found.content = {
        "model": str(model),
        "model_hash": fingerprint(locate(model)[0]),
        "calibration": judge.known.calibration,
        "real": {name: _figures(said) for name, said in found.real.items()},
        "absurd": _figures([said for several in found.absurd.values() for said in several]),
        "absurd by kind": {kind: _figures(said) for kind, said in sorted(found.absurd.items())},
        "mistaken": [
            {"source": source, "prompt": said.prompt, "similarity": said.similarity} for source, said in found.mistaken
        ],
    }
    return found


def _captions(dataset: DatasetFolder, split: str) -> list[str]:
    return [normalized(caption.text) for name in dataset.names(split) for caption in dataset.captions(name)]


def _listed(path: str | os.PathLike[str]) -> list[str]:
    if Path(path).suffix == ".txt":
        return read_lines(path)
    table = load_table(path)
    return [caption.text for clip in table.clips for caption in table.captions(clip)]


def _unseen(texts: Sequence[str], seen: set[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if normalized(text) and normalized(text) not in seen]


def _figures(said: Sequence[Assessment]) -> dict[str, float]:
    doubted = sum(not one.known for one in said)
    return {"number": len(said), "doubted": round(doubted / len(said), 4) if said else float("nan")}


def _row(name: str, said: Sequence[Assessment]) -> str:
    share = f"{sum(not one.known for one in said) / len(said):.1%}" if said else "-"
    return f"| {name} | {len(said)} | {share} |"
