"""Where the captions and lengths of a set come from: an annotation file, a data set's split, or a protocol's items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hftrainer.apps.eval_dataset import open_dataset, protocol_pairs
from hftrainer.apps.generate_set import Say, silent
from hftrainer.data.text_motion.evaluation import Pair, annotation_pairs, official_pairs
from hftrainer.evaluation.protocols import load_protocol
from hftrainer.evaluation.protocols.run import plan_items
from hftrainer.motion.representation.base import DEFAULT

SOURCES = ("annotation", "official_split", "evaluator")


@dataclass(frozen=True)
class PairSource:
    """`kind`: "annotation", a file `anno` with one caption a clip, whose caption files are relative to `anno_data_dir`;
    "official_split", the first captions of a `split` of `data`, or the only ones of the folder `texts`; "evaluator",
    every pair that `protocol` evaluates. `limit`: only the first N. `skip_unusable`: skip entries without caption or
    length, which are an error otherwise."""

    kind: str
    anno: str = ""
    anno_data_dir: str = "."
    data: str = ""
    split: str = "test"
    texts: str | None = None
    protocol: str = "hml3d-272-allcaptions"
    limit: int = 0
    skip_unusable: bool = False

    def about(self) -> dict[str, Any]:
        """What a manifest notes of it."""
        names = {"annotation": self.anno, "official_split": self.texts or self.data, "evaluator": self.protocol}
        return {"pair_source": self.kind, "captions": str(names[self.kind])}


def read_pairs(source: PairSource, *, made: str = DEFAULT, say: Say = silent) -> list[Pair]:
    """(name, caption, frames) of each motion that is wanted, for a model of the representation `made`."""
    if source.kind == "annotation":
        pairs = annotation_pairs(source.anno, root=source.anno_data_dir, skip_unusable=source.skip_unusable)
    elif source.kind == "official_split":
        pairs = official_pairs(source.data, source.split, texts=source.texts, skip_unusable=source.skip_unusable)
        if source.texts is None:
            say(f"captions: the first raw one of each clip of {source.data}; several are known not to match their clip")
    elif source.kind == "evaluator":
        protocol = load_protocol(source.protocol)
        clips = open_dataset(source.data, protocol, split=source.split)
        pairs = protocol_pairs(protocol, plan_items(protocol, clips, enough=False).kept, made)
    else:
        raise ValueError(f"the source of pairs must be one of {', '.join(SOURCES)}, got {source.kind!r}")
    return pairs[: source.limit] if source.limit else pairs
