"""The reconstruction loss of a motion tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hftrainer.config import ConfigError
from hftrainer.fields import choice, number
from hftrainer.motion.representation.base import get_representation
from hftrainer.registry import LOSSES

_STANDS = 0.15  # metres a second: a foot that moves less stands
_KINDS: dict[str, Callable[..., Tensor]] = {"l1_smooth": F.smooth_l1_loss, "l1": F.l1_loss, "l2": F.mse_loss}


@dataclass
class ReconstructionLossConfig:
    """Weights of the terms; the first five are on z-scores.

    The release trains with `kind` l1_smooth over all channels plus 0.5 times the same over the joint positions, which
    it calls a velocity loss; here that is `positions`, and `velocity` and `acceleration` are first and second
    differences of them. `root` weighs velocity and heading of the root. `joints` is the mean distance (metres) of
    joints decoded into the world with their heading accumulated over the window, pelvis subtracted: what MPJPE
    measures. `joint_velocity` is the mean error (metres a frame) of the velocities of joints in the world, path
    included. `slide` is the mean horizontal speed (metres a frame) of decoded feet where the real foot stands.
    """

    kind: str = choice("l1_smooth", list(_KINDS))
    positions: float = number(0.5, at_least=0)
    velocity: float = number(0.0, at_least=0)
    acceleration: float = number(0.0, at_least=0)
    root: float = number(0.0, at_least=0)
    joints: float = number(0.0, at_least=0)
    joint_velocity: float = number(0.0, at_least=0)
    slide: float = number(0.0, at_least=0)


@LOSSES.register("reconstruction")
class ReconstructionLoss:
    """Called with a reconstruction and what it should be."""

    Config = ReconstructionLossConfig

    def __init__(self, config: ReconstructionLossConfig, *, representation: str):
        self.config, self.representation = config, get_representation(representation)
        if self.representation.positions is None and (config.positions or config.velocity or config.acceleration):
            raise ConfigError(
                f"task.loss: {self.representation.name} has no block of joint positions; set positions, velocity and "
                "acceleration to 0"
            )
        self._root = self.representation.root_features()

    def __call__(
        self, predicted: Tensor, target: Tensor, mask: Tensor, denormalize: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """The terms, unweighted, and "loss", their weighted sum. `predicted` and `target` (b, t, width) are z-scores.

        `mask` (b, t) is True on frames that exist, from the first frame of a row on; means are over those.
        """
        config, terms = self.config, {"all": self._masked(predicted, target, mask)}
        positions = self.representation[self.representation.positions] if self.representation.positions else slice(0)
        a, b = predicted[..., positions], target[..., positions]
        if config.positions:
            terms["positions"] = self._masked(a, b, mask)
        if config.velocity:
            terms["velocity"] = self._masked(a.diff(dim=1), b.diff(dim=1), mask[:, 1:])
        if config.acceleration:
            terms["acceleration"] = self._masked(a.diff(n=2, dim=1), b.diff(n=2, dim=1), mask[:, 2:])
        if config.root:
            terms["root"] = self._masked(predicted[..., self._root], target[..., self._root], mask)
        if config.joints or config.joint_velocity or config.slide:
            got, want = (self.representation.to_joints(denormalize(motion)) for motion in (predicted, target))
            terms |= self._of_joints(got, want, mask)
        loss = sum(getattr(config, name, 1.0) * value for name, value in terms.items())
        return {**terms, "loss": torch.as_tensor(loss)}

    def _of_joints(self, got: Tensor, want: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Terms of joints (b, t, 22, 3) in the world, in metres."""
        config, terms = self.config, {}
        if config.joints:
            apart = (got - got[:, :, :1]) - (want - want[:, :, :1])
            terms["joints"] = _lengths(apart).mean(dim=-1)[mask].mean()
        if config.joint_velocity:
            terms["joint_velocity"] = _lengths(got.diff(dim=1) - want.diff(dim=1)).mean(dim=-1)[mask[:, 1:]].mean()
        if config.slide:
            terms["slide"] = _slide(got, want, mask, self.representation.fps)
        return terms

    def _masked(self, a: Tensor, b: Tensor, where: Tensor) -> Tensor:
        return _KINDS[self.config.kind](a[where], b[where])


def _lengths(vectors: Tensor) -> Tensor:
    """Norms over the last axis, with a gradient at zero."""
    return (vectors.square().sum(dim=-1) + 1e-12).sqrt()


def _slide(got: Tensor, want: Tensor, mask: Tensor, fps: float) -> Tensor:
    """Horizontal movement of decoded toes and ankles between frames where the real ones hardly move."""
    feet = [7, 8, 10, 11]
    still = (want[:, 1:, feet] - want[:, :-1, feet]).norm(dim=-1) < _STANDS / fps
    moved = (got[:, 1:, feet] - got[:, :-1, feet])[..., [0, 2]]
    speed = _lengths(moved)
    where = still & mask[:, 1:, None]
    slide: Tensor = (speed * where).sum() / where.sum().clamp(min=1)
    return slide
