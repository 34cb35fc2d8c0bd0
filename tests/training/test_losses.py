"""The reconstruction loss, term by term, against loops over frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.config import ConfigError
from hftrainer.motion.representation.base import get_representation
from hftrainer.registry import LOSSES
from hftrainer.training.losses import _slide

WEIGHTS = {"positions": 0.5, "velocity": 2.0, "acceleration": 3.0, "root": 4.0, "joints": 5.0, "joint_velocity": 6.0}
FORM = get_representation("motion272")
KINDS = {"l1_smooth": F.smooth_l1_loss, "l1": F.l1_loss, "l2": F.mse_loss}


def loss_of(**weights):
    return LOSSES.build({"name": "reconstruction", **weights}, representation="motion272")


@pytest.fixture
def case(synthetic):
    """Two real clips of 8 and 5 frames, and reconstructions that are wrong everywhere, also past the end."""
    motions = sorted((synthetic / "motion_data").rglob("*.npy"))[:2]
    target = torch.tensor(np.stack([np.load(path)[:8] for path in motions]), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    predicted = target + 0.05 * torch.randn(target.shape, generator=generator, dtype=torch.float64)
    mask = torch.arange(8)[None] < torch.tensor([8, 5])[:, None]
    return predicted, target, mask


def rows(case):
    """Each clip without what is past its end."""
    predicted, target, mask = case
    return [(p[m], t[m]) for p, t, m in zip(predicted, target, mask, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_term_is_the_mean_over_the_frames_that_exist(case, kind):
    terms = loss_of(kind=kind, **WEIGHTS)(*case, lambda motion: motion)
    block = FORM[FORM.positions]

    def mean(pairs):
        got, want = (torch.cat([pair[i].reshape(-1) for pair in pairs]) for i in (0, 1))
        return KINDS[kind](got, want)

    positions = [(p[:, block], t[:, block]) for p, t in rows(case)]
    wanted = {
        "all": mean(rows(case)),
        "positions": mean(positions),
        "velocity": mean([(p[1:] - p[:-1], t[1:] - t[:-1]) for p, t in positions]),
        "acceleration": mean([(p[2:] - 2 * p[1:-1] + p[:-2], t[2:] - 2 * t[1:-1] + t[:-2]) for p, t in positions]),
        "root": mean([(p[:, :8], t[:, :8]) for p, t in rows(case)]),
    }
    for name, value in wanted.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-9), name
    total = sum(WEIGHTS.get(name, 1.0) * float(value) for name, value in terms.items() if name != "loss")
    assert float(terms["loss"]) == pytest.approx(total, rel=1e-9)


def test_joints_are_metres_in_the_world(case):
    terms = loss_of(joints=1.0, joint_velocity=1.0)(*case, lambda motion: motion)
    apart, moved = [], []
    for got, want in rows(case):
        got, want = FORM.to_joints(got), FORM.to_joints(want)
        local = (got - got[:, :1]) - (want - want[:, :1])
        apart.append(local.norm(dim=-1).mean(dim=-1))
        moved.append((got.diff(dim=0) - want.diff(dim=0)).norm(dim=-1).mean(dim=-1))
    # a millionth of a metre is added under the root, so that it has a gradient at 0
    assert float(terms["joints"]) == pytest.approx(float(torch.cat(apart).mean()), abs=2e-6)
    assert float(terms["joint_velocity"]) == pytest.approx(float(torch.cat(moved).mean()), abs=2e-6)


def test_what_is_past_the_end_counts_nothing(case):
    predicted, target, mask = case
    loss = loss_of(**WEIGHTS, slide=1.0)
    before = loss(predicted, target, mask, lambda motion: motion)
    elsewhere = torch.where(mask[..., None], predicted, target + 3.0)
    after = loss(elsewhere, target, mask, lambda motion: motion)
    assert {name: float(value) for name, value in after.items()} == {n: float(v) for n, v in before.items()}


def test_sliding_is_horizontal_and_only_where_the_real_foot_stands():
    still = torch.zeros(1, 4, 22, 3)
    mask = torch.ones(1, 4, dtype=torch.bool)

    def moving(axis: int) -> torch.Tensor:
        joints = still.clone()
        joints[..., axis] = 0.1 * torch.arange(4.0)[None, :, None]
        return joints

    assert float(_slide(moving(1), still, mask, 30.0)) == pytest.approx(0, abs=2e-6)
    assert float(_slide(moving(0), still, mask, 30.0)) == pytest.approx(0.1, abs=1e-5)
    assert float(_slide(moving(2), still, mask, 30.0)) == pytest.approx(0.1, abs=1e-5)
    assert float(_slide(moving(2), moving(0), mask, 30.0)) == 0  # the real foot is on its way


def test_a_representation_without_positions_is_refused_the_terms_of_positions():
    with pytest.raises(ConfigError, match="motion135 has no block of joint positions"):
        LOSSES.build({"name": "reconstruction"}, representation="motion135")
    LOSSES.build({"name": "reconstruction", "positions": 0}, representation="motion135")
