"""Captions in, motion codes out: text encoded ahead in sorted batches, rows refilled, batches that fit the memory."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA, free_memory, inference_model
from hftrainer.models.motion.motionmillion.engine.scheduler import Completion, DecodeRequests, Occupancy, Scheduler
from hftrainer.models.motion.motionmillion.network.llama import LLaMAHF
from hftrainer.models.motion.motionmillion.network.sampler import draw_uniforms
from hftrainer.requests import GenerationRequest, SamplingParams

log = logging.getLogger(__name__)
_ROWS = {"cpu": 32, "cuda": 256}  # beyond these a step costs as much more as it brings
_AHEAD, _TEXT_BATCH = 128, 32


class Encoded(Protocol):
    """What an encoder gives: `features` (r, n, c), right-padded, and `mask` (r, n)."""

    @property
    def features(self) -> Tensor:
        """Right-padded."""

    @property
    def mask(self) -> Tensor:
        """True on text."""


class Encoder(Protocol):
    """What turns captions into features."""

    def __call__(self, captions: Sequence[str]) -> Encoded:
        """Features of captions."""

    def free(self) -> None:
        """Release the weights; the next call loads them again."""


class PromptRunner:
    """Decodes prompts with `model`; `rows` at a time, by default as many as are worthwhile and fit.

    `free_encoder`: encode all captions first, then release the encoder's weights. If memory runs out the batch is
    halved, and what was finished stays.
    """

    def __init__(self, model: LLaMAHF, encoder: Encoder, rows: int | None = None, *, free_encoder: bool = False):
        self.model, self.encoder, self.rows, self.free_encoder = model, encoder, rows, free_encoder
        self.occupancy = Occupancy()

    @torch.inference_mode()
    def run(
        self, requests: Sequence[GenerationRequest], text_tokens: Sequence[int], params: SamplingParams
    ) -> Iterator[Completion]:
        """Finished requests, by number, as they end. `text_tokens`: positions of each caption. Each request says
        its `max_new_tokens`; a seed of None is any."""
        limits = [_limit(request) for request in requests]
        order = sorted(range(len(requests)), key=lambda p: -limits[p])  # as the scheduler takes them
        no_text = self._no_text() if params.is_guided else None
        texts = TextPrefetch(self.encoder, [r.caption for r in requests], text_tokens, order, self._device)
        if self.free_encoder:
            texts.encode_all()
            self.encoder.free()
        inference = inference_model(self.model)  # before rows are counted, as a second copy of weights takes memory
        work = DecodeRequests(
            texts=texts,
            max_new_tokens=limits,
            max_seq_len=max((n + limit for n, limit in zip(text_tokens, limits, strict=True)), default=1),
            min_new_tokens=[request.min_new_tokens for request in requests],
            uniforms=_draws([r.seed for r in requests], max(limits, default=0)) if params.do_sample else None,
            no_text=no_text,
        )
        rows = self.rows or rows_that_fit(inference, work.max_seq_len, guided=params.is_guided)
        left = dict.fromkeys(order)
        while left:
            scheduler = Scheduler(inference_model(self.model), rows, params)
            try:
                for done in scheduler.run(work, list(left)):
                    del left[done.prompt]
                    yield done
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or rows == 1:
                    raise
                rows //= 2
                log.warning("out of memory; continuing with batches of %d", rows)
            finally:
                self.occupancy.computed += scheduler.occupancy.computed
                self.occupancy.useful += scheduler.occupancy.useful
            if left:
                self._release()

    def _no_text(self) -> tuple[Tensor, Tensor]:
        encoded = self.encoder([""])
        return encoded.features.to(self._device), encoded.mask.to(self._device)

    @property
    def _device(self) -> torch.device:
        return self.model.lm_head.weight.device

    def _release(self) -> None:
        inference_model(self.model).workspace = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class TextPrefetch:
    """Features of captions, encoded before they are asked for: many at a time, like lengths together, each once."""

    def __init__(
        self,
        encoder: Encoder,
        captions: Sequence[str],
        text_tokens: Sequence[int],
        order: Sequence[int],
        device: torch.device,
    ):
        self.encoder, self.captions, self.text_tokens, self.device = encoder, captions, text_tokens, device
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
            encoded = self.encoder(part)
            counts = encoded.mask.sum(dim=1).tolist()
            features = encoded.features.to(self.device)
            self.ready.update({text: features[i, : counts[i]] for i, text in enumerate(part)})


def rows_that_fit(model: InferenceLLaMA, max_seq_len: int, *, guided: bool = False) -> int:
    """Rows whose caches and logits, two each if `guided`, fit into two thirds of the free memory, at most as many as
    are worthwhile."""
    config, kept = model.config, model.workspace
    most = _ROWS.get(model.device.type, 32)
    if kept is not None and kept.max_seq_len >= max_seq_len and not (guided and kept.guidance is None):
        return min(len(kept), most)  # what is there already needs no memory
    a_row = (model.row_bytes(max_seq_len) + 4 * 4 * config.vocab_size) * (2 if guided else 1)
    return max(1, min(int(_free(model) * 2 / 3 / a_row), most))


def _free(model: InferenceLLaMA) -> int:
    """Bytes that can be allocated; those of a kept batch count, as it makes room for a larger one."""
    if model.device.type == "cuda":
        kept: Any = model.workspace
        return free_memory(model.device) + (kept.cache.blocks.nbytes if kept is not None else 0)
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 4 * 2**30  # another system's CPU: as a small laptop has it


def _limit(request: GenerationRequest) -> int:
    if request.max_new_tokens is None:
        raise ValueError("a request says how many codes it may have at most: max_new_tokens is None")
    return request.max_new_tokens


def _draws(seeds: Sequence[int | None], steps: int) -> Tensor:
    generators = [torch.Generator() if seed is None else torch.Generator().manual_seed(seed) for seed in seeds]
    for generator, seed in zip(generators, seeds, strict=True):
        if seed is None:
            generator.seed()
    return draw_uniforms(generators, len(seeds), steps)


def _out_of_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text or "out of memory" in text
