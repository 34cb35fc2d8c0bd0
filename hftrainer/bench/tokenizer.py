"""``hftrainer bench tokenizer``: an optimizer step of the released tokenizer, ours and the way of the released code.

The released way, written from its description: beside the same forward pass, every step builds a dense one-hot matrix
of all codes of the codebook by all codes of the batch, to print a perplexity and a fraction of active codes. Ours
counts codes, and only at validation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hftrainer.bench.measure import Result, Way, against_limits, save, show
from hftrainer.models.motion.motionmillion.config import HumanVQVAEConfig
from hftrainer.models.motion.motionmillion.network import HumanVQVAE
from hftrainer.models.motion.motionmillion.network.fsq import codebook_use


@dataclass(frozen=True)
class TokenizerBench:
    """`batch` windows of `window` frames; the release has 64 of 96."""

    batch: int = 64
    window: int = 96
    width: int = 512
    rounds: int = 3
    device: str = "cpu"


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench tokenizer``."""
    run(TokenizerBench(args.batch, args.window, args.width, args.rounds, args.device), args.json)
    return 0


def run(bench: TokenizerBench, json_path: str | None = None) -> list[Result]:
    """Measure, print the table, write the figures."""
    device = torch.device(bench.device)
    torch.manual_seed(0)
    config = HumanVQVAEConfig(width=bench.width, code_dim=bench.width, output_emb_width=bench.width)
    model = HumanVQVAE(**asdict(config)).to(device).train()
    motion = torch.randn(bench.batch, bench.window, config.input_dim, device=device)
    check_statistics(model, motion)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step(statistics: Callable[[Tensor, int], object] | None = None) -> None:
        optimizer.zero_grad()
        out = model(motion)
        torch.autograd.backward(F.smooth_l1_loss(out.motion, motion))
        optimizer.step()
        if statistics is not None:
            statistics(out.codes, model.codebook_size)

    frames = bench.batch * bench.window
    ways = [
        Way("the released way", partial(step, dense_statistics), frames),
        Way("ours", step, frames),
        Way("ours, with statistics at every step", partial(step, codebook_use), frames),
    ]
    results, facts = against_limits(ways, bench.rounds, device, torch.float32)
    size = sum(p.numel() for p in model.parameters())
    title = f"{size / 1e6:.1f} M parameters, {bench.batch} windows of {bench.window} frames"
    show(title, results, "frames", facts)
    save(json_path, "tokenizer", asdict(bench), results, **facts)
    return results


def dense_statistics(codes: Tensor, codebook_size: int) -> tuple[float, float]:
    """Perplexity and fraction of used codes by a (codebook_size, codes) one-hot matrix, as the release has them."""
    flat = codes.flatten()
    onehot = torch.zeros(codebook_size, len(flat), device=codes.device)
    onehot.scatter_(0, flat[None], 1.0)
    share = onehot.sum(dim=1)
    active = float((share > 0).float().mean())
    share = share / share.sum()
    return float(torch.exp(-(share * torch.log(share + 1e-7)).sum())), active


def check_statistics(model: HumanVQVAE, motion: Tensor) -> None:
    """A fast wrong count is no result."""
    with torch.no_grad():
        codes = model.encode(motion)
    dense, ours = dense_statistics(codes, model.codebook_size), codebook_use(codes, model.codebook_size)
    if abs(dense[0] - float(ours.perplexity)) > 1e-2 * dense[0] or abs(dense[1] - float(ours.active)) > 1e-6:
        raise ValueError(f"the methods count differently: {dense} and {ours}")
