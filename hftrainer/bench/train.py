"""``hftrainer bench train``: an optimizer step of the transformer, ours and the way of the released code.

The released way, written from its description: every row padded to block_size, the dense mask built anew in every
layer, logits of every position, a softmax and a draw from it for an accuracy to print, the loss read by the host.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from hftrainer.bench.measure import Result, Way, against_limits, save, show
from hftrainer.bench.sample import SampleBench, decoding_bytes, load
from hftrainer.models.motion.motionmillion.network import LLaMAHF
from hftrainer.models.motion.motionmillion.network.llama import prefix_mask
from hftrainer.models.motion.motionmillion.network.rope import apply_rope
from hftrainer.models.motion.motionmillion.rows import build_prefix_sequences


@dataclass(frozen=True)
class TrainBench:
    """`batch` rows of 10..40 text positions and 30..150 codes, as they come or of like length."""

    size: str = "111M"
    batch: int = 16
    rounds: int = 3
    dtype: str = "float32"
    device: str = "cpu"


@dataclass(frozen=True)
class Rows:
    """A batch as the networks take it."""

    idx: Tensor
    features: Tensor
    mask: Tensor
    codes: int  # with an END for each row


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench train``."""
    run(TrainBench(args.size, args.batch, args.rounds, args.dtype, args.device), args.json)
    return 0


def run(bench: TrainBench, json_path: str | None = None) -> list[Result]:
    """Measure, print the table, write the figures."""
    model = load(SampleBench(size=bench.size, dtype=bench.dtype, device=bench.device)).train().requires_grad_(True)
    mixed, alike = make_rows(model, bench.batch, seed=0), make_rows(model, bench.batch, seed=0, alike=True)
    losses = [float(loss(model, mixed).detach()) for loss in (released_loss, our_loss)]
    if abs(losses[0] - losses[1]) > 1e-4 * abs(losses[0]):
        raise ValueError(f"the methods do not have the same loss: {losses}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=bench.device.startswith("cuda"))

    def step(loss: object, rows: Rows) -> None:
        optimizer.zero_grad()
        loss(model, rows).backward()  # type: ignore[operator]
        optimizer.step()

    ways = [
        way(model, "the released way", partial(step, released_loss, mixed), mixed),
        way(model, "ours, rows as they come", partial(step, our_loss, mixed), mixed),
        way(model, "ours, rows of like length", partial(step, our_loss, alike), alike),
    ]
    device, dtype = torch.device(bench.device), getattr(torch, bench.dtype)
    results, facts = against_limits(ways, bench.rounds, device, dtype)
    note = f"both losses are {losses[0]:.4f}; tokens are text, codes and END, without padding"
    show(f"{bench.size}, batch {bench.batch}, {bench.dtype}", results, "tokens", facts, note)
    save(json_path, "train", asdict(bench), results, **facts, losses=losses)
    return results


def way(model: LLaMAHF, name: str, run: Callable[[], object], rows: Rows) -> Way:
    """A step, its tokens, and the least it can read and compute.

    Weights are read forward and backward; the optimizer reads them again with gradients and two moments. Six operations
    for every weight and real token, the head's only for positions that have a target.
    """
    tokens, targets = int(rows.mask.sum() + rows.codes), rows.codes
    head = model.lm_head.weight.numel()
    body = decoding_bytes(model) // model.lm_head.weight.element_size() - head
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    read = 2 * decoding_bytes(model) + 4 * size
    return Way(name, run, tokens, read, flops=6.0 * (body * tokens + head * targets))


def our_loss(model: LLaMAHF, rows: Rows) -> Tensor:
    """What training runs."""
    return model.next_token_loss(rows.idx, rows.features, rows.mask)[0]


def released_loss(model: LLaMAHF, rows: Rows) -> Tensor:
    """The same loss, the long way."""
    config = model.config
    idx = F.pad(rows.idx, (0, config.block_size - rows.idx.shape[1]), value=config.pad_id)
    inputs, targets = idx[:, :-1], idx[:, 1:]
    width = inputs.shape[1]
    text = F.pad(rows.mask, (0, width - rows.mask.shape[1]))
    x = model.transformer.wte(inputs)
    projected = F.pad(model.llama_proj(rows.features), (0, 0, 0, width - rows.features.shape[1]))
    x = torch.where(text[..., None], projected, x)
    rotary = model.rotary(x.device)[:width]
    for block in model.transformer.blocks():
        mask = prefix_mask(text)  # dense, and again in every layer
        fused = block.attn.c_attn(block.rms_1(x))
        q, k, v = rearrange(fused, "b t (three h s) -> three b h t s", three=3, h=block.attn.n_head)
        out = F.scaled_dot_product_attention(apply_rope(q, rotary), apply_rope(k, rotary), v, attn_mask=mask)
        x = x + block.attn.c_proj(rearrange(out, "b h t s -> b t (h s)"))
        x = x + block.mlp(block.rms_2(x))
    logits = model.head(model.transformer.ln_f(x)).float()
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=config.pad_id)
    with torch.no_grad():
        drawn = torch.multinomial(logits.softmax(dim=-1).flatten(0, 1), 1)[:, 0]
        wanted = targets.flatten() != config.pad_id
        float((drawn == targets.flatten())[wanted].float().mean())
        float(loss)
    return loss


def make_rows(model: LLaMAHF, batch: int, seed: int, alike: bool = False) -> Rows:
    """Random rows; `alike`: the same number of codes and text positions on average, in every row."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(10, 41, (batch,), generator=generator)
    motion = torch.randint(30, 151, (batch,), generator=generator)
    if alike:
        text[:], motion[:] = int(text.float().mean()), int(motion.float().mean())
    config = model.config
    codes = torch.randint(0, config.end_id, (batch, int(motion.max())), generator=generator)
    features = torch.randn(batch, int(text.max()), config.clip_dim, generator=generator).to(model.lm_head.weight)
    mask = torch.arange(int(text.max()))[None] < text[:, None]
    device = model.lm_head.weight.device
    idx = build_prefix_sequences(codes, motion, text, config.end_id, config.pad_id)
    return Rows(idx.to(device), features, mask.to(device), int(motion.sum()) + batch)
