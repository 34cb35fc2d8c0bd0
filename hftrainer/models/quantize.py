"""Weight-only quantization of a module's matrices by torchao: integers in memory, arithmetic in the activations' type.

int8: one scale a row, rounded to nearest. torchao chooses scales and integers. They are multiplied by torch's own
kernel (`_weight_int8pack_mm`) where the device has it: torchao's eager path writes the whole matrix out in bfloat16 for
every token. int4: groups of 128 columns with a scale and a zero point, in the layout of torch's CUDA kernel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from hftrainer.extras import need, quiet

KINDS = ("int8", "int4")
GROUP = 128


class Int8Linear(nn.Linear):
    """A linear layer without a bias whose weight is torchao's int8 tensor."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), in the dtype of `x`."""
        weight: Any = self.weight
        flat = x.reshape(-1, x.shape[-1])
        out = torch._weight_int8pack_mm(flat, weight.qdata, weight.scale.flatten().to(x.dtype))
        return out.reshape(*x.shape[:-1], -1)


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
        if kind == "int8" and has_int8_kernel(device.type, part.weight.dtype):
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
        raise ValueError(f"int4 has a kernel on CUDA devices alone, not on {device}; use quantize='int8' here")
    for name, layer in layers.items():
        if layer.in_features % GROUP:
            raise ValueError(f"int4 packs groups of {GROUP} columns; {name} has {layer.in_features}; use 'int8'")
        if layer.weight.dtype != torch.bfloat16:
            raise ValueError(f"int4 needs weights in bfloat16, {name} is {layer.weight.dtype}; add dtype='bfloat16'")
