"""Dividing a dataset: by a seed, with every label in every part where there are clips enough."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.files import sha256

MIRROR_PREFIX = "M"  # as HumanML3D names mirrored clips
JOINED = "joined"


def split_names(
    names: Sequence[str],
    labels: Mapping[str, str],
    *,
    val: float = 0.05,
    test: float = 0.05,
    seed: int = 0,
) -> dict[str, list[str]]:
    """Names of "train", "val" and "test" (disjoint), and "all".

    Clips are drawn label by label (a clip without one counts as its own label ""), so that shares hold for each: a
    label with n clips gives round(n * share) to val and to test, at least one each when it has 5 or more, and none
    when it has fewer than 3.
    """
    if val < 0 or test < 0 or val + test >= 1:
        raise ValueError(f"fractions must be at least 0 and leave some for training, got val={val}, test={test}")
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[labels.get(name, "")].append(name)
    out: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, members in sorted(groups.items()):
        rng = np.random.default_rng([seed, *label.encode()])
        order = [members[i] for i in rng.permutation(len(members))]
        sizes = [_share(len(order), share) for share in (val, test)]
        out["val"] += order[: sizes[0]]
        out["test"] += order[sizes[0] : sum(sizes)]
        out["train"] += order[sum(sizes) :]
    return {**{part: sorted(members) for part, members in out.items()}, "all": sorted(names)}


def split_dataset(
    dataset: DatasetFolder, keys: Sequence[str], *, val: float, test: float, seed: int
) -> dict[str, list[str]]:
    """`split_names` of a folder's clips by the labels `keys`, such that nothing leaks.

    Mirrored and joined clips are left out, as they belong with the clips that they were made from; clips of equal
    content go where the first of them goes.
    """
    labels = dataset.labels()
    groups = {name: "/".join(str(label.get(key, "")) for key in keys) for name, label in labels.items()}
    names = [name for name in dataset.names() if is_original(name)]
    same: dict[str, list[str]] = defaultdict(list)
    for name in names:
        same[sha256(dataset.motion_path(name))].append(name)
    firsts = {members[0]: members for members in same.values()}
    parts = split_names(list(firsts), groups, val=val, test=test, seed=seed)
    return {part: sorted(n for first in members for n in firsts[first]) for part, members in parts.items()}


def original_of(name: str) -> str | None:
    """The clip that a mirrored one was made from; None for a clip that is not mirrored."""
    return name.removeprefix(f"{MIRROR_PREFIX}_") if name.startswith(f"{MIRROR_PREFIX}_") else None


def is_original(name: str) -> bool:
    """Whether a clip is neither a mirror image nor joined from others."""
    return not name.startswith((f"{MIRROR_PREFIX}_", f"{JOINED}/"))


def _share(count: int, share: float) -> int:
    if share == 0 or count < 3:
        return 0
    return max(round(count * share), 1 if count >= 5 else 0)
