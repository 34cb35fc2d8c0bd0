"""``hftrainer bench sample``: codes a second, against the samplers that others use, on the same weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hftrainer.bench import baselines
from hftrainer.bench.measure import Result, Way, against_limits, save, show
from hftrainer.models.motion.motionmillion.engine.generate import Generation
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA, inference_model
from hftrainer.models.motion.motionmillion.engine.scheduler import DecodeRequests, Scheduler
from hftrainer.models.motion.motionmillion.network import LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.kv_cache import cache_dtype


@dataclass(frozen=True)
class SampleBench:
    """`size` is a preset with random weights, or a model folder or zoo name. END is not allowed anywhere."""

    size: str = "44M"
    batches: tuple[int, ...] = (1, 32)
    codes: int = 150
    words: int = 20
    rounds: int = 5
    dtype: str = "float32"
    device: str = "cpu"
    ragged: int = 0
    transformers: bool = False
    uncached: bool = True


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench sample``."""
    run(
        SampleBench(
            size=args.size, batches=tuple(int(rows) for rows in args.batch.split(",")), codes=args.codes,
            rounds=args.rounds, dtype=args.dtype, device=args.device, ragged=args.ragged,
            transformers=args.engine == "transformers", uncached=not args.no_uncached,
        ),
        args.json,
    )  # fmt: skip
    return 0


def run(bench: SampleBench, json_path: str | None = None) -> list[Result]:
    """Measure, print the table, write the figures."""
    model = load(bench)
    texts = random_texts(model, max(*bench.batches, 1), bench.words)
    one = texts[0][:1], texts[1][:1]
    check(model, one, bench)

    lone, ways = [bench.codes], []
    if bench.uncached:
        alone = partial(baselines.uncached, model, *one, bench.codes)
        ways.append(Way("un-cached, batch 1", alone, bench.codes, decoding_bytes(model) * bench.codes))
    growing = partial(baselines.concatenating, model, *one, bench.codes)
    read = read_by(model, decoding_bytes(model), lone, bench.words, bench.codes)
    ways.append(Way("concatenating cache, batch 1", growing, bench.codes, read))
    for rows in bench.batches:
        part = texts[0][:rows], texts[1][:rows]
        reads = partial(read_by_ours, model, lone * rows, bench.words, bench.codes)
        ways.append(Way(f"ours, batch {rows}", partial(ours, model, *part, bench.codes), rows * bench.codes, reads))
    if bench.transformers:
        from hftrainer.bench.engines import transformers_way

        ways.append(transformers_way(model, texts[0][: max(bench.batches)], bench.codes))
    if bench.ragged:
        ways += ragged_ways(model, bench)

    device, dtype = torch.device(bench.device), getattr(torch, bench.dtype)
    results, facts = against_limits(ways, bench.rounds, device, dtype)
    show(
        f"{bench.size}, {bench.dtype}, {bench.codes} codes after {bench.words} text positions", results, "codes", facts
    )
    save(json_path, "sample", asdict(bench), results, **facts)
    return results


def ours(model: LLaMAHF, features: Tensor, mask: Tensor, codes: int) -> Generation:
    """`generate`, END not allowed."""
    return model.generate(features, mask, codes, min_new_tokens=codes)


def ragged_ways(model: LLaMAHF, bench: SampleBench) -> list[Way]:
    """`ragged` prompts of 20 .. `codes` codes, and as many of equal length, at the largest batch."""
    rows, count = max(bench.batches), bench.ragged
    lengths = torch.randint(20, bench.codes + 1, (count,), generator=torch.Generator().manual_seed(0)).tolist()
    even = [round(sum(lengths) / count)] * count
    features, mask = random_texts(model, count, bench.words)
    ending = EndingLLaMA(model)

    steps: dict[int, int] = {}

    def decode(wanted: Sequence[int]) -> None:
        limits, slots = [bench.codes + 1] * count, bench.words + bench.codes + 1
        work = DecodeRequests(lambda p: (features[p], mask[p]), limits, slots, min_new_tokens=wanted)
        decoder = Scheduler(ending, rows)
        for _ in decoder.run(work):
            pass
        steps[id(wanted)] = decoder.occupancy.steps + decoder.occupancy.prefills

    def way(name: str, wanted: Sequence[int]) -> Way:
        def read() -> float:
            return read_by_ours(model, wanted, bench.words, steps[id(wanted)])

        return Way(f"{count} prompts of {name} codes, batch {rows}", partial(decode, wanted), sum(wanted), read)

    return [way(str(even[0]), even), way(f"20 to {bench.codes}", lengths)]


class EndingLLaMA(InferenceLLaMA):
    """Wants to end at every step; a prompt's floor then is its length, which nothing knows beforehand."""

    def __init__(self, model: LLaMAHF):
        super().__init__(model, prepack=inference_model(model).prepacked)

    def best(self, hidden: Tensor, may_end: Tensor | None = None) -> Tensor:
        """END as soon as it may be; until then the code that the model finds best."""
        assert may_end is not None
        return torch.where(may_end, self.config.end_id, super().best(hidden, torch.zeros_like(may_end)))


def load(bench: SampleBench) -> LLaMAHF:
    """A preset with random weights, or a model's transformer."""
    from hftrainer.models.motion.motionmillion.network.llama import PRESETS

    dtype = getattr(torch, bench.dtype)
    if bench.size not in PRESETS:
        from hftrainer.zoo.load import load_pipeline

        return load_pipeline(bench.size, device=bench.device, dtype=dtype).bundle.ar  # type: ignore[no-any-return]
    torch.manual_seed(0)
    with torch.device(bench.device):
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return LLaMAHF(LLaMAHFConfig.from_name(bench.size)).eval().requires_grad_(False)
        finally:
            torch.set_default_dtype(default)


def random_texts(model: LLaMAHF, count: int, words: int) -> tuple[Tensor, Tensor]:
    """Features and masks of `count` texts."""
    like = model.lm_head.weight
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(count, words, model.config.clip_dim, generator=generator)
    return features.to(like), torch.ones(count, words, dtype=torch.bool, device=like.device)


def read_by(model: LLaMAHF, weights: int, lengths: Sequence[int], words: int, steps: int) -> float:
    """Bytes that decoding rows of so many codes reads at least: `weights` in every step, each row's own past."""
    seen = sum(length * words + length * (length - 1) / 2 for length in lengths)
    cached = 2 * model.config.n_layer * model.config.n_embd * cache_dtype(model.transformer.wte.weight).itemsize
    return weights * steps + seen * cached


def read_by_ours(model: LLaMAHF, lengths: Sequence[int], words: int, steps: int) -> float:
    """The same of `generate`."""
    return read_by(model, our_decoding_bytes(model), lengths, words, steps)


def our_decoding_bytes(model: LLaMAHF) -> int:
    """Bytes of weights that a step of `generate` reads: the head's in 8 bits where that finds the best id."""
    head = model.lm_head.weight
    saved = head.numel() * (head.element_size() - 1) if inference_model(model).uses_int8 else 0
    return decoding_bytes(model) - saved


def decoding_bytes(model: LLaMAHF) -> int:
    """Bytes of weights that one step reads: all but the embedding table and the text projection."""
    skipped = {id(p) for p in model.llama_proj.parameters()}
    if model.lm_head.weight is not model.transformer.wte.weight:
        skipped.add(id(model.transformer.wte.weight))
    return sum(_stored(p) for p in model.parameters() if id(p) not in skipped)


def _stored(weight: Tensor) -> int:
    """Bytes of a weight as it is kept; one that is packed to fewer bits holds the tensors that it is made of."""
    if type(weight.data) is not Tensor and hasattr(weight, "__tensor_flatten__"):
        return sum(_stored(getattr(weight, name)) for name in weight.__tensor_flatten__()[0])
    return weight.numel() * weight.element_size()


@torch.no_grad()
def check(model: LLaMAHF, text: tuple[Tensor, Tensor], bench: SampleBench) -> None:
    """A fast wrong sampler is no result: what ours chose must be best, or as good, in one un-cached pass."""
    features, mask = text
    made = ours(model, features, mask, bench.codes).tokens
    n, config = features.shape[1], model.config
    row = torch.cat([torch.full((1, n), config.pad_id, device=made.device), made], dim=1)
    logits = model(row, features, mask)[0, n - 1 : -1].float()
    logits[:, config.end_id] = -torch.inf
    regret = logits.max(dim=-1).values - logits.gather(1, made[0][:, None])[:, 0]
    allowed: dict[str, Any] = {"float32": 1e-4, "bfloat16": 4 * 2**-8}
    scale = float(logits[:, :-1].abs().max()) if bench.dtype == "bfloat16" else 1.0
    if float(regret.max()) > allowed[bench.dtype] * max(scale, 1.0):
        raise ValueError(f"the sampler chose codes worse by {float(regret.max()):.2g} than the best")
