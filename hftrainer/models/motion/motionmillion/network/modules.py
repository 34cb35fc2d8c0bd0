"""The "wavelet" ends of the released tokenizer, and convolutions that respect the length of each clip."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class Patcher1D(nn.Module):
    """The identity, with the two buffers that released checkpoints hold here.

    Upstream calls this a Haar wavelet patcher. With ``patch_size=1``, the released and only working setting, it does
    log2(1) = 0 levels of the transform; larger sizes change the channel count and do not fit its own convolutions.
    """

    def __init__(self, patch_size: int = 1, patch_method: str = "haar"):
        super().__init__()
        if patch_size != 1 or patch_method not in ("haar", "rearrange"):
            raise ValueError(
                f"patch_size={patch_size}, patch_method={patch_method!r}: only patch_size 1 exists in the release; "
                "larger patches double the channels and fit neither its convolutions nor ours"
            )
        self.register_buffer("wavelets", torch.full((2,), 0.5**0.5))
        self.register_buffer("_arange", torch.tensor([0, 1]))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, t) to itself."""
        return x


class UnPatcher1D(Patcher1D):
    """The inverse of the identity."""


def activation(name: str) -> nn.Module:
    """One of the release's activations by name."""
    table: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}
    if name not in table:
        raise ValueError(f"unknown activation {name!r}; known: {', '.join(table)}")
    return table[name]()


def run_masked(layers: nn.Module, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Run `layers` on (b, c, t), keeping frames outside `mask` (b, 1, t) at zero before every convolution.

    So a padded clip gives exactly the same result as alone: a convolution pads a lone clip with zeros too. The mask is
    halved and doubled along with the frames.
    """
    if mask is None:
        return layers(x), None
    if isinstance(layers, nn.Sequential):
        for layer in layers:
            x, mask = run_masked(layer, x, mask)
        return x, mask
    if isinstance(layers, nn.Conv1d):
        x = layers(x * mask)
        stride = layers.stride[0]
        if stride > 1:  # a window of `stride` frames gives a token only if all of it is there
            tokens = mask.shape[-1] // stride
            mask = mask[..., : tokens * stride].reshape(*mask.shape[:-1], tokens, stride).amin(dim=-1)
        return x, mask
    if isinstance(layers, nn.Upsample):
        return layers(x), mask.repeat_interleave(int(cast(float, layers.scale_factor)), dim=-1)
    masked = getattr(layers, "forward_masked", None)
    return (layers(x) if masked is None else masked(x, mask)), mask
