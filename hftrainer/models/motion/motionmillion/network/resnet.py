"""Dilated residual blocks over time. Shapes: (b, c, t)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hftrainer.models.motion.motionmillion.network.modules import activation, run_masked


class Resnet1D(nn.Module):
    """`depth` blocks whose dilations grow by `dilation_growth_rate`, widest first (the release reverses both ends)."""

    def __init__(self, width: int, depth: int, dilation_growth_rate: int, activation: str, norm: str | None):
        super().__init__()
        dilations = [dilation_growth_rate**i for i in reversed(range(depth))]
        self.model = nn.Sequential(*(ResConv1DBlock(width, d, activation, norm) for d in dilations))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, t) to (b, c, t)."""
        return self.model(x)  # type: ignore[no-any-return]

    def forward_masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """The same for clips of different lengths; see `run_masked`."""
        return run_masked(self.model, x, mask)[0]


class ResConv1DBlock(nn.Module):
    """x + conv1(act(norm2(conv3(act(norm1(x)))))), the 3-wide convolution dilated."""

    def __init__(self, width: int, dilation: int, act: str, norm: str | None):
        super().__init__()
        self.norm1 = _norm(norm, width)
        self.activation1 = activation(act)
        self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm2 = _norm(norm, width)
        self.activation2 = activation(act)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, t) to (b, c, t)."""
        return x + self.conv2(self.activation2(self.norm2(self.conv1(self.activation1(self.norm1(x))))))  # type: ignore[no-any-return]

    def forward_masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """The same; only `conv1` looks at neighbours."""
        h = self.conv1(self.activation1(self.norm1(x)) * mask)
        return x + self.conv2(self.activation2(self.norm2(h)))  # type: ignore[no-any-return]


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (b, c, t)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize every position over its channels."""
        return F.layer_norm(x.transpose(1, 2), self.normalized_shape, self.weight, self.bias, self.eps).transpose(1, 2)


def _norm(name: str | None, width: int) -> nn.Module:
    if name == "LN":
        return ChannelLayerNorm(width)
    if name == "GN":
        return nn.GroupNorm(32, width, eps=1e-6)
    if name == "BN":
        return nn.BatchNorm1d(width, eps=1e-6)
    if name is None or name == "none":
        return nn.Identity()
    raise ValueError(f"unknown norm {name!r}; known: LN, GN, BN, none")
