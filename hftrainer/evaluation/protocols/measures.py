"""The metrics that protocols name under ``metrics.use``, as entries of METRICS.

An entry is a class with a ``Config``; it is called with a `Sample`, one row's embeddings in one repeat, and gives its
figures by name. A plug-in's metric does the same and is used as ``metrics.use: [FID, {name: mine, ...}]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.evaluation.metrics import (
    diversity,
    diversity_unit_l1,
    frechet_distance,
    matching_distance,
)
from hftrainer.evaluation.protocols.plan import stream
from hftrainer.evaluation.protocols.retrieval import TOP, caption_groups, chances, pools
from hftrainer.evaluation.protocols.schema import Protocol
from hftrainer.registry import METRICS

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

_DIVERSITY_SEED = 100


@dataclass(frozen=True)
class Row:
    """Pairs of embeddings (n, d) of captions and motions, and the captions.

    A motion of NaN is a failure: a wrong answer to its caption and nobody's right one.
    """

    text: Floats
    motion: Floats
    captions: Sequence[str]


@dataclass(frozen=True)
class Sample:
    """What a metric sees: one `row` in one `repeat`.

    `order` (n,): its items as they are shuffled into pools. `shown`: those that FID and diversity are taken over.
    `references`: embeddings of the real clips by name, "" those that FID is measured against; nothing of that name
    where the row is the real clips themselves. `rng`: the stream that the protocol shuffles with. `first`: whether this
    is the first repeat. `counts`: how many items were looked at, by what the report calls it.
    """

    protocol: Protocol
    row: Row
    order: Ints
    shown: Ints
    references: Mapping[str, Floats]
    rng: Any
    repeat: int
    first: bool
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def motions(self) -> Floats:
        """The motions that FID and diversity are taken over, without failures."""
        picked = self.row.motion[self.shown]
        return picked[np.isfinite(picked).all(axis=1)]

    @property
    def asked(self) -> Ints:
        """The items that retrieval asks for."""
        rule = self.protocol.batches
        return self.order[: len(self.order) // rule.size * rule.size] if rule.tail == "drop" else self.order


@dataclass
class NoSettings:
    """Nothing to set: the protocol's rules say everything."""


@dataclass
class RPrecisionConfig:
    """`top_k`: R@1 to R@k are reported."""

    top_k: int = TOP


@METRICS.register("R@k")
class RPrecision:
    """How often a caption finds its motion among the k nearest of a pool (Guo et al., CVPR 2022).

    Right are the paired motion, or all motions with the same caption, as the protocol's `positives` says. "ties": how
    often a wrong motion is exactly as near as the nearest right one; what is level comes in random order.
    """

    Config = RPrecisionConfig

    def __init__(self, config: RPrecisionConfig):
        self.top_k = config.top_k

    def __call__(self, sample: Sample) -> dict[str, float]:
        """R@1 ... R@k, and ties."""
        row, protocol, asked = sample.row, sample.protocol, sample.asked
        sample.counts["retrieval_items"] = len(asked)
        sample.counts["failures"] = int((~np.isfinite(row.motion[asked]).all(axis=1)).sum())
        groups: Ints = np.arange(len(row.text))
        if protocol.metrics.positives == "same_caption":
            groups = caption_groups(row.captions)
        parts = pools(sample.order, protocol.batches.size, protocol.batches.tail)
        found = [chances(row.text, row.motion, groups, *part, self.top_k) for part in parts]
        hits = np.concatenate([part.chances for part in found], axis=-1).mean(axis=-1)
        out = {f"R@{k}": float(hits[k - 1]) for k in range(1, self.top_k + 1)}
        return {**out, "ties": float(np.concatenate([part.tied for part in found]).mean())}


@METRICS.register("MM-Dist")
class MMDist:
    """Mean distance of a caption to its own motion, over the items that retrieval asks for.

    Always the paired motion: that other clips share the caption changes R@k, where the protocol says so, and not this.
    Failures have no distance and are left out.
    """

    Config = NoSettings

    def __init__(self, config: NoSettings):
        del config

    def __call__(self, sample: Sample) -> dict[str, float]:
        """MM-Dist."""
        made = sample.asked[np.isfinite(sample.row.motion[sample.asked]).all(axis=1)]
        return {"MM-Dist": matching_distance(sample.row.text[made], sample.row.motion[made])}


@METRICS.register("FID")
class FID:
    """Fréchet distance to the real clips, on embeddings as the evaluator gives them; "FID-refk": to reference "refk".

    Where it is taken over all items, shuffling does not change it, and it is measured once.
    """

    Config = NoSettings
    name, unit = "FID", False

    def __init__(self, config: NoSettings):
        del config

    def __call__(self, sample: Sample) -> dict[str, float]:
        """FID against each reference."""
        if sample.protocol.metrics.fid_items == "all" and not sample.first:
            return {}
        out = {}
        for name, reference in sample.references.items():
            paired = len(reference) == len(sample.row.motion)
            real = reference[sample.shown] if paired else reference
            out[f"{self.name}-{name}" if name else self.name] = self.distance(real, sample.motions)
        return out

    def distance(self, real: Any, generated: Any) -> float:
        """Of two sets of embeddings (n, d)."""
        return frechet_distance(real, generated, normalize=self.unit)


@METRICS.register("FID-unit")
class UnitFID(FID):
    """`FID` of embeddings scaled to length 1: another metric, at most 4, which some tools print as FID."""

    name, unit = "FID-unit", True


@METRICS.register("Diversity")
class Diversity:
    """Mean distance of random pairs of motions; the protocol says how many pairs and from which stream."""

    Config = NoSettings
    name = "Diversity"

    def __init__(self, config: NoSettings):
        del config

    def __call__(self, sample: Sample) -> dict[str, float]:
        """Diversity."""
        rule, protocol = sample.protocol.metrics, sample.protocol
        embeddings = sample.row.motion[sample.shown] if rule.fid_items == "batches" else sample.row.motion
        embeddings = embeddings[np.isfinite(embeddings).all(axis=1)]
        n = len(embeddings)
        few = {"all": n, "all_but_one": n - 1, "hundred": min(100, n)}[rule.diversity_few]
        own = stream(protocol, sample.repeat + _DIVERSITY_SEED)
        rng = sample.rng if rule.diversity_stream == "shared" else own
        pairs = rule.diversity_pairs if n > rule.diversity_pairs else few
        return {self.name: self.spread(embeddings, pairs, rng)}

    def spread(self, embeddings: Floats, pairs: int, rng: Any) -> float:
        """Of embeddings (n, d)."""
        return diversity(embeddings, pairs=pairs, rng=rng)


@METRICS.register("Diversity-unit-L1")
class UnitL1Diversity(Diversity):
    """Mean L1 distance of pairs of unit vectors: what the published MotionCLIP-135 table calls diversity."""

    name = "Diversity-unit-L1"

    def spread(self, embeddings: Floats, pairs: int, rng: Any) -> float:
        """Of embeddings (n, d)."""
        return diversity_unit_l1(embeddings, pairs=pairs, rng=rng)


def build_metrics(protocol: Protocol) -> list[Any]:
    """The metrics of a protocol, in the order in which it names them.

    Raises ``ConfigError`` for a name that is not registered or settings that a metric does not have.
    """
    sections = [{"name": use} if isinstance(use, str) else dict(use) for use in protocol.metrics.use]
    return [METRICS.build(section, path=f"metrics.use[{i}]") for i, section in enumerate(sections)]
