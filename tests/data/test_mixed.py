"""Several data sets as one: shares, names, batches of several sets, and what does not belong together."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from torch.utils.data import DataLoader

from hftrainer.config import ConfigError
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.guarded import GuardedDataset
from hftrainer.data.mixed import build_data, resolve_data
from hftrainer.data.order import PlanSampler
from hftrainer.data.synthetic.motions import write_dataset, write_tokens


@pytest.fixture(scope="module")
def roots(tmp_path_factory, synthetic):
    """Two sets with codes, of 28 and of 8 training clips."""
    folder = tmp_path_factory.mktemp("mixed")
    large = DatasetFolder(shutil.copytree(synthetic, folder / "large"))
    small = write_dataset(folder / "small", clips=12, seed=5)
    for dataset in (large, small):
        write_tokens(dataset, codebook_size=240)
    return str(large.root), str(small.root)


def section(roots, *weights: float, **rules: object):
    both = [{"path": path, "weight": weight} for path, weight in zip(roots, weights, strict=True)] if weights else roots
    return {"name": "text_tokens", "root": list(both), "batch_size": 4, "drop_token": 0.0, **rules}


def drawn(source, count: int):
    """Which rows of which set the first batches have."""
    train = source.train()
    plan = source.plan(train, 1)
    numbers = [index for n in range(count) for index, _ in plan.batch(n)]
    return train, plan, Counter(numbers)


def test_without_weights_an_epoch_has_every_row_once(roots):
    source = build_data(section(roots))
    train, plan, counts = drawn(source, len(source.train()) // 4)
    assert set(counts.values()) == {1}
    assert len(train) == sum(len(part) for part in train.parts)
    assert plan.batches_per_epoch == len(train) // 4
    assert len(source.val()) == sum(len(one.val()) for one in source.sources)


def test_weights_are_shares_of_every_epoch(roots):
    source = build_data(section(roots, 1.0, 3.0))
    train, _, counts = drawn(source, len(source.train()) // 4)
    small = sum(count for index, count in counts.items() if index >= train.starts[1])
    assert small / sum(counts.values()) == pytest.approx(0.75, abs=0.06)
    each = [counts[index] for index in range(int(train.starts[1]), len(train))]
    assert max(each) - min(each) <= 1
    resolved = resolve_data(section(roots, 1.0, 3.0))
    assert resolved["root"] == [{"path": roots[0], "weight": 1.0}, {"path": roots[1], "weight": 3.0}]


def test_batches_are_those_of_their_sets(roots):
    source = build_data(section(roots, 1.0, 1.0))
    train = source.train()
    plan = source.plan(train, 1)
    loader = DataLoader(GuardedDataset(train, 0), batch_sampler=PlanSampler(plan), collate_fn=source.collate)
    several = 0
    for number, batch in enumerate(islice(loader, 12)):
        parts = {train._find(index)[0] for index, _ in plan.batch(number)}
        several += len(parts) > 1
        got = sorted((c, tuple(codes[:n].tolist())) for c, codes, n in zip(*batch, strict=True))
        items = [(*train._find(index), seed) for index, seed in plan.batch(number)]
        want = [train.parts[part][(inside, seed)] for part, inside, seed in items]
        assert got == sorted((caption, tuple(codes.tolist())) for caption, codes in want)
    assert several > 6


def test_windows_of_several_sets_share_their_statistics(roots):
    windows = {"name": "motion_windows", "window": 32, "batch_size": 4}
    source = build_data({**windows, "root": [{"path": path, "weight": 1.0} for path in roots]})
    mean, std = source.statistics
    both = [one.statistics for one in source.sources]
    np.testing.assert_allclose(mean, np.mean([m for m, _ in both], axis=0), rtol=1e-5, atol=1e-6)
    exact = np.mean([m.astype(float) for m, _ in both], axis=0)
    spread = np.mean([s.astype(float) ** 2 + (m - exact) ** 2 for m, s in both], axis=0)
    np.testing.assert_allclose(std, np.sqrt(spread), rtol=1e-3, atol=1e-5)
    train = source.train()
    name, motion = train[(len(train) - 1, 0)]
    assert name == train.name(len(train) - 1) == source.sources[1].train().name(len(train.parts[1]) - 1)
    assert motion.shape == (32, 272)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ([], r"data\.root is an empty list"),
        ([{"path": "a", "weight": 1.0}, "b"], r"data\.root: give weights for all datasets or for none"),
        ([{"path": "a", "weight": -1.0}], r"data\.root\[0\]\.weight must be above 0, got -1\.0"),
        ([{"pat": "a"}], r"unknown key 'data\.root\[0\]\.pat'; did you mean 'path'"),
    ],
)
def test_mistakes(root, message):
    with pytest.raises(ConfigError, match=message):
        build_data({"name": "text_tokens", "root": root})


def test_sets_of_other_tokenizers_are_refused(roots, tmp_path):
    other = write_dataset(tmp_path / "other", clips=12, seed=5)
    write_tokens(other, codebook_size=512)
    with pytest.raises(ConfigError, match=r"the codebooks of the datasets differ: \[240, 512\] codes"):
        build_data(section((roots[0], str(other.root))))
