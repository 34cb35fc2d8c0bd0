"""What a protocol is: every choice that changes its numbers, as a field. The shipped ones are YAML files here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hftrainer.config import ConfigError, read_yaml, typed
from hftrainer.evaluation.vocabulary import current_protocol
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.registry import METRICS

SHIPPED = Path(__file__).parent

_CHOICES = {
    "captions.rule": ("first", "only", "random", "each"),
    "captions.read": ("text", "tokens"),
    "crop.length": ("coin", "units", "full"),
    "crop.start": ("first", "random"),
    "prediction.crop": ("own", "reference", "common", "full"),
    "batches.tail": ("drop", "refill"),
    "generator": ("legacy", "pcg64"),
    "metrics.fid_items": ("batches", "all"),
    "metrics.positives": ("diagonal", "same_caption"),
    "metrics.diversity_stream": ("own", "shared"),
    "metrics.diversity_few": ("all", "all_but_one", "hundred"),
    "missing": ("error", "drop", "failure"),
}


@dataclass
class IdRule:
    """`split` of the dataset whose names are evaluated, in its order; `expected` how many the full set has."""

    split: str = "test"
    expected: int | None = None


@dataclass
class CaptionRule:
    """Which caption a clip gets.

    `rule`: "first" caption of the full clip; "only": it must have exactly one; "random": drawn from all of the full
    clip; "each": one item a caption. `subclips`: captions of a part of a clip are items of their own. `read`: the
    sentence, or its tagged words (HumanML3D's second field).
    """

    rule: str = "first"
    subclips: bool = False
    read: str = "text"


@dataclass
class LengthRule:
    """Frames that a clip, and a part of one, may have; `max_included` says whether `max` itself may."""

    min: int = 1
    max: int = 300
    max_included: bool = True

    def allows(self, frames: int) -> bool:
        """Whether a clip of that many frames counts."""
        return self.min <= frames and (frames <= self.max if self.max_included else frames < self.max)


@dataclass
class CropRule:
    """Which frames of a real clip are seen.

    `length`: "coin" is the most complete units, or with probability 1/3 one unit less; "units" the most complete units;
    "full" every frame. At most `max_frames`. `start`: at the first frame, or drawn.
    """

    length: str = "units"
    start: str = "first"
    unit: int = 4
    max_frames: int = 300


@dataclass
class PredictionRule:
    """Which frames of a prediction are seen.

    `crop`: "own" the crop rule on its own length; "reference" the first frames, as many as of the real clip (or what
    it has, in complete units); "common" both real and prediction cut to the shorter from the first frame; "full" all of
    it. `max_frames` caps it before that. `exact_length`: a prediction that is not as long as its clip is a failure (of
    a clip longer than ``crop.max_frames``, that many frames suffice).
    """

    crop: str = "own"
    max_frames: int | None = None
    exact_length: bool = False


@dataclass
class BatchRule:
    """Retrieval pools of `size` in shuffled order; a short last pool is dropped, or refilled with other candidates."""

    size: int = 32
    tail: str = "drop"


@dataclass
class MetricRule:
    """What is measured on the embeddings.

    `use`: metrics by their names in METRICS, or ``{name: ..., setting: ...}``; see `measures`. `fid_items`: FID and
    diversity over the items of full batches, or over all. `positives`: the paired motion only, or every motion whose
    caption is the same. Diversity draws its pairs from the shuffles' stream or from one of its own (seed + 100);
    `diversity_few` is the number of pairs where there are no more items than `diversity_pairs`. Multimodality, where
    there are several generations a caption: of the first `multimodality_clips` clips that have all of them, at most
    `multimodality_motions`, compared in `multimodality_pairs` pairs.
    """

    use: list[Any] = field(default_factory=lambda: ["R@k", "MM-Dist", "Diversity", "FID"])
    fid_items: str = "batches"
    positives: str = "diagonal"
    diversity_pairs: int = 300
    diversity_stream: str = "own"
    diversity_few: str = "all"
    multimodality_clips: int = 100
    multimodality_motions: int = 30
    multimodality_pairs: int = 10


@dataclass
class Protocol:
    """One way of evaluating. `redraw`: captions and crops are drawn, and embedded again in each of `repeats`.

    `second_pass`: FID's reference is a second drawing of the real clips, so that real clips have a FID too. `missing`:
    what a prediction that is absent, unreadable or of wrong length is; "failure" counts it as a wrong answer.
    """

    summary: str
    source: str
    evaluator: str
    representation: str = DEFAULT
    fps: float = get_representation(DEFAULT).fps
    name: str = ""
    ids: IdRule = field(default_factory=IdRule)
    captions: CaptionRule = field(default_factory=CaptionRule)
    lengths: LengthRule = field(default_factory=LengthRule)
    crop: CropRule = field(default_factory=CropRule)
    prediction: PredictionRule = field(default_factory=PredictionRule)
    batches: BatchRule = field(default_factory=BatchRule)
    metrics: MetricRule = field(default_factory=MetricRule)
    generator: str = "pcg64"
    seed: int = 0
    repeats: int = 1
    redraw: bool = False
    second_pass: bool = False
    missing: str = "error"

    def check(self) -> None:
        """Raise `ConfigError` for values that do not exist or do not go together."""
        for path, choices in _CHOICES.items():
            value: Any = self
            for part in path.split("."):
                value = getattr(value, part)
            if value not in choices:
                raise ConfigError(f"protocol {self.name}: {path} must be one of {', '.join(choices)}, got {value!r}")
        for use in self.metrics.use:
            name = use if isinstance(use, str) else use.get("name") if isinstance(use, Mapping) else None
            if not isinstance(name, str):
                raise ConfigError(f"protocol {self.name}: metrics.use must list names of metrics, got {use!r}")
            METRICS.get(name)
        if min(self.repeats, self.crop.unit, self.batches.size - 1) < 1:
            raise ConfigError(
                f"protocol {self.name}: repeats and crop.unit must be at least 1, batches.size at least 2"
            )
        if self.missing == "failure" and (self.metrics.positives != "same_caption" or self.metrics.fid_items != "all"):
            raise ConfigError(
                f"protocol {self.name}: missing=failure needs metrics.positives=same_caption and fid_items=all"
            )
        if self.drawn and not self.redraw and self.repeats > 1:
            raise ConfigError(f"protocol {self.name}: captions or crops are random; {self.repeats} repeats need redraw")

    @property
    def drawn(self) -> bool:
        """Whether chance decides on captions or frames."""
        return self.captions.rule == "random" or self.crop.length == "coin" or self.crop.start == "random"


def protocol_names() -> list[str]:
    """Names of the shipped protocols."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_protocol(name_or_path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Protocol:
    """A shipped protocol by name, or another YAML file by path; ``a.b=value`` overrides change its name.

    A changed protocol is another protocol: its name gets the overrides appended, so that a report cannot hide them.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = SHIPPED / f"{name_or_path}.yaml"
        if not path.is_file():
            near = get_close_matches(str(name_or_path), protocol_names(), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"there is no protocol {str(name_or_path)!r}{hint} Included: {', '.join(protocol_names())}"
            )
    protocol = typed(Protocol, current_protocol(read_yaml(path, overrides)), path=str(path))
    protocol.name = " ".join([protocol.name or path.stem, *overrides])
    try:
        protocol.check()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return protocol
