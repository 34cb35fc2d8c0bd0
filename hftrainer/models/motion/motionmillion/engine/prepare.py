"""A copy of a transformer whose parts are swapped for faster ones: the one place where a processor's tricks come in.

The copy has the model's own blocks, and thereby its forward; what differs are the modules inside them. Optional
reading: the model's own parts compute the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hftrainer.models.motion.motionmillion.engine.fast_linear import (
    is_plain,
    pad_heads,
    prepack_linear,
    unpacked_linear,
)
from hftrainer.models.motion.motionmillion.network.attention import padded_head
from hftrainer.models.motion.motionmillion.network.llama import Block, RMSNorm, Transformer

Product = Callable[[Tensor], Tensor]


def fast_transformer(transformer: Transformer, head_size: int, *, prepack: bool) -> Transformer:
    """A copy that shares every weight, with faster modules in its blocks.

    `prepack` allows second copies of the weights: in layouts that CPUs multiply fast (`fast_linear`), gate and up
    projections fused, heads padded with channels of zero where kernels want it (exact). Without it the model's own
    layers run, whatever they are, from their own weights.
    """
    shared = {id(tensor): tensor for tensor in (*transformer.parameters(), *transformer.buffers())}
    twin = copy.deepcopy(transformer, shared)  # type: ignore[arg-type]
    twin.checkpoint_blocks = False
    for block in twin.blocks():
        block.rms_1, block.rms_2 = _fast_norm(block.rms_1), _fast_norm(block.rms_2)
        if prepack:
            _prepack(block, padded_head(head_size, twin.wte.weight.device))
        else:
            _reroute(block)
    return twin


def can_prepack(module: nn.Module) -> bool:
    """Whether every linear layer of a model is a plain one, of a dtype that packing helps."""
    return all(is_plain(part) for part in module.modules() if isinstance(part, nn.Linear))


class Multiply(nn.Module):
    """A linear layer without a bias, computed by `product`."""

    def __init__(self, product: Product):
        super().__init__()
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return self.product(x)


class FusedMLP(nn.Module):
    """SwiGLU with one product for gate and up projection."""

    def __init__(self, gate_up: Product, down: Product):
        super().__init__()
        self.gate_up, self.down = gate_up, down

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) to (..., d)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate).mul_(up))


class TorchNorm(nn.Module):
    """torch's own RMS norm, one kernel on CUDA; exact types only: it does not round where the released model does."""

    def __init__(self, scale: Tensor):
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) to (..., d)."""
        return F.rms_norm(x, self.scale.shape, self.scale, RMSNorm.epsilon)


class CPUNorm(TorchNorm):
    """The same function in four operations; torch's own takes eight on a CPU."""

    epsilon = torch.tensor(RMSNorm.epsilon, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) to (..., d)."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * torch.addcmul(self.epsilon, norm, norm, value=1 / x.shape[-1]).rsqrt_()).mul_(self.scale)


class InPlaceNorm(TorchNorm):
    """`RMSNorm` with its roundings in bfloat16, in half as many allocations."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) to (..., d)."""
        inverse = x.square().mean(dim=-1, keepdim=True).add_(RMSNorm.epsilon).rsqrt_()
        return (x * inverse).mul_(self.scale)


def _fast_norm(norm: Any) -> Any:
    if not isinstance(norm, RMSNorm):
        return norm
    scale, on_cpu = norm.scale.detach(), norm.scale.device.type == "cpu"
    if scale.dtype in (torch.float32, torch.float64):
        return CPUNorm(scale) if on_cpu else TorchNorm(scale)
    return InPlaceNorm(scale) if on_cpu and scale.dtype == torch.bfloat16 else norm


def _prepack(block: Block, head_size: int) -> None:
    attn, mlp = block.attn, block.mlp
    qkv, out = pad_heads(attn.c_attn.weight, attn.c_proj.weight, attn.n_head, head_size)
    gate_up = torch.cat([mlp.c_fc1.weight, mlp.c_fc2.weight])
    attn.c_attn, attn.c_proj = Multiply(prepack_linear(qkv)), Multiply(prepack_linear(out))  # type: ignore[assignment]
    block.mlp = FusedMLP(prepack_linear(gate_up), prepack_linear(mlp.c_proj.weight))  # type: ignore[assignment]


def _reroute(block: Block) -> None:
    for part in (block.attn, block.mlp):
        for name, layer in part.named_children():
            product = unpacked_linear(layer)
            if product is not layer:
                setattr(part, name, Multiply(product))
