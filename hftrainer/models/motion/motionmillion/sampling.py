"""Captions in, motion codes out: text encoded ahead in sorted batches, rows refilled, batches that fit the memory."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.network.batching import BatchDecoder, Finished, Occupancy, Work
from hftrainer.models.motion.motionmillion.network.cache import cache_dtype
from hftrainer.models.motion.motionmillion.network.cached import cached_for
from hftrainer.models.motion.motionmillion.network.choosing import Choice, draw_uniforms
from hftrainer.models.motion.motionmillion.network.llama import LLaMAHFConfig

__all__ = ["Choice", "CodeSampler", "Finished", "TextAhead", "rows_that_fit"]
log = logging.getLogger(__name__)
_ROWS = {"cpu": 32, "cuda": 256}  # beyond these a step costs as much more as it brings
_AHEAD, _TEXT_BATCH = 128, 32


class CodeSampler:
    """Decodes prompts with the transformer of a bundle; `rows` at a time, by default as many as pay and fit.

    `free_text_encoder`: encode all captions first, then let go of the encoder's weights. If memory runs out the batch
    is halved, and what was finished stays.
    """

    def __init__(self, bundle: MotionMillionBundle, rows: int | None = None, *, free_text_encoder: bool = False):
        if bundle.ar is None:
            raise ValueError("this model has no transformer; it can tokenize motions but not make them")
        self.bundle, self.ar, self.rows, self.free_text_encoder = bundle, bundle.ar, rows, free_text_encoder
        self.occupancy = Occupancy()

    @torch.inference_mode()
    def run(
        self,
        captions: Sequence[str],
        text_tokens: Sequence[int],
        limits: Sequence[int],
        floors: Sequence[int],
        choice: Choice,
        seeds: Sequence[int | None],
    ) -> Iterator[Finished]:
        """Finished prompts as they end. `text_tokens`: positions that each caption takes; `seeds`: None is any."""
        device, longest = self.ar.lm_head.weight.device, max(limits, default=0)
        slots = max((text + limit for text, limit in zip(text_tokens, limits, strict=True)), default=1)
        order = sorted(range(len(captions)), key=lambda p: -limits[p])  # as BatchDecoder takes them
        texts = TextAhead(self.bundle, captions, text_tokens, order, device)
        if self.free_text_encoder and self.bundle.text_encoder is not None:
            texts.encode_all()
            self.bundle.text_encoder.free()
        work = Work(
            texts=texts,
            limits=limits,
            slots=max(slots, *text_tokens),
            floors=floors if any(floors) else None,
            uniforms=_draws(seeds, longest) if choice.do_sample else None,
        )
        rows = self.rows or rows_that_fit(
            self.ar.config, work.slots, device, cache_dtype(self.ar.lm_head.weight).itemsize
        )
        left = dict.fromkeys(order)
        while left:
            decoder = BatchDecoder(cached_for(self.ar), rows, choice)
            try:
                for finished in decoder.run(work, list(left)):
                    del left[finished.prompt]
                    yield finished
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or rows == 1:
                    raise
                rows //= 2
                log.warning("out of memory; going on with batches of %d", rows)
            finally:
                self.occupancy.computed += decoder.occupancy.computed
                self.occupancy.useful += decoder.occupancy.useful
            if left:
                _release(device)


class TextAhead:
    """Features of captions, encoded before they are asked for: many at a time, like lengths together, each once."""

    def __init__(
        self,
        bundle: MotionMillionBundle,
        captions: Sequence[str],
        text_tokens: Sequence[int],
        order: Sequence[int],
        device: torch.device,
    ):
        self.bundle, self.captions, self.text_tokens, self.device = bundle, captions, text_tokens, device
        self.order = list(order)
        self.place = {prompt: i for i, prompt in enumerate(self.order)}
        self.uses = Counter(captions)
        self.ready: dict[str, Tensor] = {}

    def __call__(self, prompts: list[int]) -> tuple[Tensor, Tensor]:
        """Features (r, n, c) and mask (r, n) of these prompts."""
        if any(self.captions[p] not in self.ready for p in prompts):
            self._encode_from(min(self.place[p] for p in prompts), prompts)
        rows = [self.ready[self.captions[p]] for p in prompts]
        for caption in (self.captions[p] for p in prompts):
            self.uses[caption] -= 1
            if self.uses[caption] == 0:  # after a batch was halved a caption may come again; it is then encoded again
                del self.ready[caption]
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        features = pad_sequence(rows, batch_first=True)
        return features, torch.arange(features.shape[1], device=self.device)[None] < lengths[:, None]

    def encode_all(self) -> None:
        """Encode everything now, and keep it until the end: the encoder may be gone when a prompt starts again."""
        self.uses = Counter({caption: len(self.captions) + 1 for caption in self.captions})
        for place in range(0, len(self.order), _AHEAD):
            self._encode_from(place, [])

    def _encode_from(self, place: int, prompts: list[int]) -> None:
        coming = [*prompts, *self.order[place : place + _AHEAD]]
        tokens = {self.captions[p]: self.text_tokens[p] for p in coming if self.captions[p] not in self.ready}
        texts = sorted(tokens, key=lambda caption: tokens[caption])
        for start in range(0, len(texts), _TEXT_BATCH):
            part = texts[start : start + _TEXT_BATCH]
            encoded = self.bundle.encode_text(part)
            counts = encoded.mask.sum(dim=1).tolist()
            features = encoded.features.to(self.device)
            self.ready.update({text: features[i, : counts[i]] for i, text in enumerate(part)})


def rows_that_fit(config: LLaMAHFConfig, slots: int, device: torch.device, item_size: int) -> int:
    """Rows whose caches and logits fit into two thirds of the free memory, at most as many as pay."""
    a_row = 2 * config.n_layer * config.n_embd * slots * item_size + 4 * 4 * config.vocab_size
    fit = int(_free_memory(device) * 2 / 3 / a_row)
    return max(1, min(fit, _ROWS.get(device.type, 32)))


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 4 * 2**30  # another system's CPU: as a small laptop has it


def _draws(seeds: Sequence[int | None], steps: int) -> Tensor:
    generators = [torch.Generator() if seed is None else torch.Generator().manual_seed(seed) for seed in seeds]
    for generator, seed in zip(generators, seeds, strict=True):
        if seed is None:
            generator.seed()
    return draw_uniforms(generators, len(seeds), steps)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
