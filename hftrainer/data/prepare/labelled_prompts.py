"""Files of prompts with their kind, separated by a tab; lines that begin with # are remarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hftrainer.plain_text import read_lines
from hftrainer.readers import FileError

PROMPTS = Path(__file__).parent / "prompts"
CALIBRATION = PROMPTS / "absurd_calibration.tsv"  # what models should doubt; their judgement is fitted on these
TEST = PROMPTS / "absurd_test.tsv"  # others, to test it with
MINI_ACTIONS = PROMPTS / "mini_actions.tsv"  # sentences that no caption of CMU has, with the action that they mean


@dataclass(frozen=True)
class LabelledPrompt:
    """A prompt, and what kind of prompt it is."""

    prompt: str
    kind: str


def read_labelled(path: Path) -> list[LabelledPrompt]:
    """The prompts of a file; one without a kind has the kind ""."""
    rows = []
    for line in read_lines(path):
        if line.strip() and not line.startswith("#"):
            prompt, _, kind = line.partition("\t")
            rows.append(LabelledPrompt(prompt.strip(), kind.strip()))
    if not rows:
        raise FileError(f"{path} has no prompts")
    return rows
