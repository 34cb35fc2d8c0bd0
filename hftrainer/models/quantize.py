"""Weight-only quantization of a module's matrices by torchao: integers in memory, arithmetic in the activations' type.

int8: one scale a row, rounded to nearest. torchao chooses scales and integers. On CPUs they are multiplied by torch's
own kernel (`_weight_int8pack_mm`): torchao's eager path writes the complete matrix out in bfloat16 for every token. On
CUDA that kernel is slower than bfloat16 (one thread an output); there a compiled one multiplies a few rows, and for
more rows the matrix is written out once for all of them. int4: groups of 128 columns with a scale and a zero point, in
the layout of torch's CUDA kernel.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hftrainer.extras import need, quiet

KINDS = ("int8", "int4")
GROUP = 128
FEW = 4  # rows up to which the compiled product of integers is expected to be the faster way on CUDA


class Int8Linear(nn.Linear):
    """A linear layer without a bias whose weight is torchao's int8 tensor."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), in the dtype of `x`."""
        weight: Any = self.weight
        flat, scale = x.reshape(-1, x.shape[-1]), weight.scale.flatten().to(x.dtype)
        if not x.is_cuda:
            out = torch._weight_int8pack_mm(flat, weight.qdata, scale)
        elif len(flat) <= FEW and has_compiler():
            out = _compiled_few_rows()(flat, weight.qdata, scale)
        else:
            out = F.linear(flat, weight.qdata.to(x.dtype)) * scale
        return out.reshape(*x.shape[:-1], -1)


def few_rows(x: Tensor, integers: Tensor, scale: Tensor) -> Tensor:
    """x (r, in) times `integers` (out, in) and `scale` (out,), as a sum that inductor makes one kernel of: the integers
    are read once, and no matrix in the type of x is written."""
    products = x.float()[:, None] * integers[None].float()
    return (products.sum(dim=-1) * scale.float()).to(x.dtype)


@lru_cache(maxsize=1)
def _compiled_few_rows() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return torch.compile(few_rows, dynamic=False, fullgraph=True)


@lru_cache(maxsize=1)
def has_compiler() -> bool:
    """Whether torch compiles kernels for CUDA here, which Triton does."""
    return importlib.util.find_spec("triton") is not None


def quantize_linears(module: nn.Module, kind: str, *, device: torch.device) -> int:
    """Pack every linear layer without a bias to `kind`, on `device`, one after the other; how many were packed.

    A weight that an embedding shares stays as it is. The module's other parts are not moved. Raises ``ValueError`` for
    what the device or the weights do not allow.
    """
    if kind not in KINDS:
        raise ValueError(f"weights are packed to one of {KINDS}, got {kind!r}")
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    chosen = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and part.bias is None and id(part.weight) not in tables
    }
    if kind == "int4":
        _check_int4(chosen, device)
    with quiet():
        torchao = need("torchao.quantization", f"packing weights to {kind}")
        config = _config(torchao, kind)
        torchao.quantize_(module, config, filter_fn=lambda part, name: name in chosen, device=device)
    for part in chosen.values():
        part.weight.requires_grad_(False)
        if kind == "int8" and (device.type == "cuda" or has_int8_kernel(device.type, part.weight.dtype)):
            part.__class__ = Int8Linear
    return len(chosen)


@lru_cache(maxsize=8)
def has_int8_kernel(device: str, dtype: torch.dtype) -> bool:
    """Whether torch multiplies by int8 matrices on this kind of device without writing them out."""
    try:
        x = torch.ones(1, 64, dtype=dtype, device=device)
        torch._weight_int8pack_mm(x, torch.ones(64, 64, dtype=torch.int8, device=device), x[0])
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _config(torchao: Any, kind: str) -> Any:
    if kind == "int8":
        return torchao.Int8WeightOnlyConfig(set_inductor_config=False)
    return torchao.Int4WeightOnlyConfig(
        group_size=GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
    )


def _check_int4(layers: dict[str, nn.Linear], device: torch.device) -> None:
    if device.type != "cuda":
        raise ValueError(f"int4 has a kernel only on CUDA devices, not on {device}; use quantize='int8' here")
    for name, layer in layers.items():
        if layer.in_features % GROUP:
            raise ValueError(f"int4 packs groups of {GROUP} columns; {name} has {layer.in_features}; use 'int8'")
        if layer.weight.dtype != torch.bfloat16:
            raise ValueError(f"int4 needs weights in bfloat16, {name} is {layer.weight.dtype}; add dtype='bfloat16'")
