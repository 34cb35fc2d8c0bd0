"""``hftrainer bench kernels``: into how many kernels torch's compiler fuses a decoding step, without a GPU.

The step as CUDA runs it is compiled for the CPU, on a narrow model of one layer and one of two; what the second adds is
what every further layer adds. Codes of compiled and eager steps must be equal.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

import torch

from hftrainer.files import write_json
from hftrainer.models.motion.motionmillion.engine.cuda_graphs import compiled
from hftrainer.models.motion.motionmillion.engine.decode_batch import DecodeBatch
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA
from hftrainer.models.motion.motionmillion.network import LLaMAHF, LLaMAHFConfig
from hftrainer.requests import SamplingParams

_CALL = re.compile(r"^\s+(?:\w+ = )?((?:cpp_fused_\w+|extern_kernels\.\w+|torch\.ops\.[\w.]+))\(", re.MULTILINE)
_KV = 64


@dataclass(frozen=True)
class Kernels:
    """Of one layer and what is around it, of each further layer, and whether compiled codes equal eager ones."""

    first: int
    layer: int
    equal: bool

    def of(self, layers: int) -> int:
        """Kernels of a step of a model of so many layers."""
        return self.first + (layers - 1) * self.layer


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench kernels``; 1 if compiled codes differ."""
    found, layers = count(), LLaMAHFConfig.from_name(args.size).n_layer
    print(f"{args.size}: {found.of(layers)} kernels a step ({found.layer} a layer); codes equal: {found.equal}")
    if args.json:
        figures = {"bench": "kernels", "size": args.size, "kernels": found.of(layers), "a_layer": found.layer}
        write_json(args.json, {**figures, "equal": found.equal, "torch": torch.__version__})
    return int(not found.equal)


@torch.no_grad()
def count(dtype: torch.dtype = torch.bfloat16, steps: int = 8) -> Kernels:
    """Compile, run and count."""
    from torch._inductor.utils import run_and_get_code

    calls, equal = [], True
    for layers in (1, 2):
        eager, fused = busy_batch(layers, dtype), busy_batch(layers, dtype)
        step = compiled(fused.step)
        _, code = run_and_get_code(step, _KV)  # type: ignore[no-untyped-call]
        calls.append(len(_CALL.findall("\n".join(code))))
        for _ in range(steps - 1):
            step(_KV)
        for _ in range(steps):
            eager.step(_KV)
        equal &= torch.equal(eager.codes, fused.codes)
    return Kernels(calls[0], calls[1] - calls[0], equal)


def busy_batch(layers: int, dtype: torch.dtype, rows: int = 4) -> DecodeBatch:
    """Rows of a small random model with the step that CUDA runs, on the CPU."""
    torch.manual_seed(0)
    config = LLaMAHFConfig(n_layer=layers, n_head=4, n_embd=128, vocab_size=602, clip_dim=16)
    inference = InferenceLLaMA(LLaMAHF(config).eval().requires_grad_(False).to(dtype))
    inference.on_cpu, inference._rotary = False, torch.view_as_real(inference._rotary)
    batch = DecodeBatch(inference, rows, 20, _KV, SamplingParams())
    prefix = inference.prefill(torch.randn(rows, 6, 16).to(dtype), torch.ones(rows, 6, dtype=torch.bool))
    limits = torch.full_like(batch.index, 16)
    batch.fill(batch.index, prefix, batch.index, limits, limits, None)
    return batch
