"""Several data sets of one kind as one: ``data.root: [{path: ..., weight: ...}, ...]``.

Each set is built as if it were the only one. With weights, each makes up its share of every epoch's rows; without, an
epoch has every row of every set once. A batch has rows of several sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from hftrainer.config import ConfigError, typed
from hftrainer.data.order import BatchPlan, Item
from hftrainer.fields import number
from hftrainer.registry import DATASETS


@dataclasses.dataclass
class Root:
    """One of the sets. Of all sets, either each has a `weight` or none has."""

    path: str
    weight: float | None = number(None, above=0)


def roots_of(section: Mapping[str, Any]) -> list[Root] | None:
    """The sets of a section `data` that names several; None where it names one."""
    root = section.get("root")
    if not isinstance(root, (list, tuple)):
        return None
    if not root:
        raise ConfigError("data.root is an empty list")
    roots = [
        typed(Root, {"path": item} if isinstance(item, str) else item, path=f"data.root[{i}]")
        for i, item in enumerate(root)
    ]
    if len({one.weight is None for one in roots}) > 1:
        raise ConfigError("data.root: give weights for all datasets or for none")
    return roots


def resolve_data(section: Mapping[str, Any]) -> dict[str, Any]:
    """The checked section with its defaults, as plain data."""
    from hftrainer.config import plain

    roots = roots_of(section)
    first = {**section, "root": roots[0].path} if roots else section
    _, config = DATASETS.resolve(first, path="data")
    resolved = {"name": section["name"], **plain(config)}
    if roots:
        resolved["root"] = [{"path": one.path, "weight": one.weight} for one in roots]
    return resolved


def build_data(section: Mapping[str, Any]) -> Any:
    """The data source of a section; several sets become a `MixedSource`."""
    roots = roots_of(section)
    if roots is None:
        return DATASETS.build(section, path="data")
    sources = [DATASETS.build({**section, "root": one.path}, path="data") for one in roots]
    return MixedSource(sources, [one.weight for one in roots], [one.path for one in roots])


class MixedTokens:
    """What tokens of all sets are: of one tokenizer."""

    def __init__(self, tokens: Sequence[Any]):
        sizes = {one.codebook_size for one in tokens}
        if len(sizes) > 1:
            raise ConfigError(f"data.root: the codebooks of the datasets differ: {sorted(sizes)} codes")
        self.all, self.codebook_size = list(tokens), sizes.pop()
        self.folder = ", ".join(str(one.folder) for one in tokens)

    def check_tokenizer(self, fingerprint: str) -> None:
        """Raise ``ValueError`` unless every set was made by the tokenizer with this hash."""
        for one in self.all:
            one.check_tokenizer(fingerprint)


class MixedSource:
    """The sources of several sets as one source."""

    def __init__(self, sources: Sequence[Any], weights: Sequence[float | None], names: Sequence[str]):
        self.sources, self.weights, self.names = list(sources), list(weights), list(names)
        self.config, self.collate = sources[0].config, sources[0].collate
        kinds = [getattr(source, "representation", None) for source in sources]
        if len(set(kinds)) > 1:
            raise ConfigError(f"data.root: the datasets have different representations: {', '.join(map(str, kinds))}")
        self.representation: str | None = kinds[0]
        if hasattr(sources[0], "tokens"):
            self.tokens = MixedTokens([source.tokens for source in sources])
        for what in ("contents", "styles"):
            if hasattr(sources[0], what):
                values = [getattr(source, what) for source in sources]
                if any(value != values[0] for value in values):
                    raise ConfigError(f"data.root: the datasets do not have the same {what}")
                setattr(self, what, values[0])

    @property
    def statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Mean and standard deviation of the mixture; None if a set has none."""
        found = [source.statistics for source in self.sources]
        if any(one is None for one in found):
            return None
        parts = [weight or 1.0 for weight in self.weights]
        share = np.array(parts)[:, None] / sum(parts)
        means = np.array([mean for mean, _ in found], dtype=np.float64)
        squares = np.array([std for _, std in found], dtype=np.float64) ** 2 + means**2
        mean = (share * means).sum(axis=0)
        std = np.sqrt(np.maximum((share * squares).sum(axis=0) - mean**2, 0))
        return mean.astype(np.float32), std.astype(np.float32)

    def train_captions(self) -> list[str]:
        """Of all sets."""
        return [caption for source in self.sources for caption in source.train_captions()]

    def train(self) -> MixedDataset:
        """Training items of all sets, one set after the other."""
        return MixedDataset([source.train() for source in self.sources], getattr(self.sources[0], "join", None))

    def plan(self, train: MixedDataset, seed: int) -> BatchPlan:
        """The first set's rules over the items of all."""
        plans: list[BatchPlan] = [
            source.plan(part, seed) for source, part in zip(self.sources, train.parts, strict=True)
        ]
        lengths = np.concatenate([plan.lengths for plan in plans])
        shares = [
            (int(start), int(stop), float(weight or stop - start))
            for start, stop, weight in zip(train.starts, train.starts[1:], self.weights, strict=False)
        ]
        each = [plan.weights for plan in plans if plan.weights is not None]
        weights = np.concatenate([one / one.sum() for one in each]) if each else None
        weighted = weights is not None or self.weights[0] is not None
        return dataclasses.replace(plans[0], lengths=lengths, weights=weights, shares=shares if weighted else ())

    def val(self) -> Sequence[Any]:
        """Validation batches of all sets."""
        return [batch for source in self.sources for batch in source.val()]


class MixedDataset(Dataset[Any]):
    """Items of several data sets by one index. `join` puts batches together, where data sets draw batches at once."""

    def __init__(self, parts: Sequence[Any], join: Any = None):
        self.parts, self.join = list(parts), join
        self.starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def name(self, index: int) -> str:
        """A sample's name, where its set has names."""
        part, inside = self._find(index)
        name = getattr(self.parts[part], "name", None)
        return str(name(inside)) if name is not None else f"{inside} of dataset {part}"

    def __getitem__(self, item: Item) -> Any:
        part, inside = self._find(item[0])
        return self.parts[part][(inside, item[1])]

    def __getitems__(self, items: Sequence[Item]) -> Any:
        """A batch, as its sets draw it."""
        if self.join is None:
            return [self[item] for item in items]
        places = [(*self._find(index), seed) for index, seed in items]
        drawn = [
            self.parts[part].__getitems__([(inside, seed) for found, inside, seed in places if found == part])
            for part in sorted({part for part, _, _ in places})
        ]
        return self.join(drawn)

    def _find(self, index: int) -> tuple[int, int]:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return part, index - int(self.starts[part])
