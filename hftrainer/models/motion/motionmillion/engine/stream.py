"""Codes of one motion, one after another, without an end in sight: the text may change while they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.engine.decode_batch import DecodeBatch
from hftrainer.models.motion.motionmillion.engine.inference import inference_model
from hftrainer.models.motion.motionmillion.network.llama import LLaMAHF
from hftrainer.requests import SamplingParams

# Codes that what follows is conditioned on when a row begins again. A small model that sees more of them continues
# what it did and ignores the new text: the prompts after the first of gotozero-nano's timelines are followed in 69 %
# of parts with 4 codes, in 66 % with 8, in 16 % with 48; with fewer than 4 joints move faster at the seams than real
# motion does (`hftrainer bench stream`, docs/streaming.md).
CONTEXT = 4
TRIES_AT_ONCE = 32


class CodeStream:
    """`say` a text, then ask for codes by `next`, in memory that does not grow.

    A row holds the text, the last `context` codes and up to `window` new ones; when it is full, or the text changes,
    the next begins with the last `context` codes. `codes`: those of a motion to continue from. `no_text`: features and
    mask of an empty text, for guidance.
    """

    def __init__(
        self,
        model: LLaMAHF,
        params: SamplingParams,
        seed: int | None,
        *,
        window: int,
        context: int = CONTEXT,
        codes: Iterable[int] = (),
        no_text: tuple[Tensor, Tensor] | None = None,
    ):
        if window < 1 or context < 0:
            raise ValueError(f"a stream needs window >= 1 and context >= 0, got {window} and {context}")
        if params.is_guided and no_text is None:
            raise ValueError("guidance_scale needs the features of an empty text: CodeStream(no_text=...)")
        self.model, self.params, self.window = inference_model(model), params, window
        self.recent: deque[int] = deque(codes, maxlen=context)
        self.generator = _generator(seed)
        self._text: tuple[Tensor, Tensor] | None = None
        self._no_text = no_text
        self._batch: DecodeBatch | None = None  # one for all texts, as on CUDA its graphs are captured once
        self._begun = False
        self._made = self._bound = self._room = 0

    def say(self, features: Tensor, mask: Tensor) -> None:
        """The text (1, n, c) with its mask (1, n) that codes follow from now on."""
        self._text, self._begun = (features, mask), False

    @torch.inference_mode()
    def next(self, *, may_end: bool) -> int | None:
        """One more code; None where the model ends the motion, which only `may_end` allows."""
        if self._batch is None or not self._begun or self._made == self._room:
            self._batch = self._begin()
        batch = self._batch
        batch.floors.fill_(0 if may_end else self._room + 1)
        self._bound += 1
        if self.model.on_cpu:
            batch.step(self._bound)
        else:
            batch.replay(self._bound)
        batch.status()
        ((codes, ended),) = batch.results(batch.index)
        if ended:
            self._begun = False
            return None
        self._made += 1
        code = int(codes[-1])
        self.recent.append(code)
        return code

    def _begin(self) -> DecodeBatch:
        if self._text is None:
            raise ValueError("no prompt yet: give a text first")
        features, mask = self._text
        device = self.model.device
        codes = torch.tensor([list(self.recent)], dtype=torch.long, device=device) if self.recent else None
        prefix = self.model.prefill(features, mask, codes)
        self._room = min(self.window, self.model.config.block_size - prefix.width)
        if self._room < 1:
            raise ValueError(f"text and context fill all {prefix.width} positions of the model; shorten the text")
        batch = self._batch or DecodeBatch(self.model, 1, self.window, self.model.config.block_size, self.params)
        uniforms = None
        if self.params.do_sample:
            uniforms = torch.rand(1, self._room, generator=self.generator, dtype=torch.float64).to(device)
        limit, floor = torch.full_like(batch.index, self._room), torch.zeros_like(batch.index)
        no_text = self.model.prefill(*self._no_text, codes) if self._no_text is not None else None
        batch.fill(batch.index, prefix, batch.index, limit, floor, uniforms, no_text)
        self._begun, self._made, self._bound = True, 0, prefix.width - 1
        return batch


def _generator(seed: int | None) -> torch.Generator:
    """Random numbers of a seed; None: others each time."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


@torch.inference_mode()
def between(
    model: LLaMAHF,
    text: tuple[Tensor, Tensor],
    start: Sequence[int],
    end: Sequence[int],
    count: int,
    *,
    tries: int,
    params: SamplingParams,
    seed: int | None,
    no_text: tuple[Tensor, Tensor] | None = None,
) -> tuple[list[int], list[float]]:
    """`count` codes between the codes `start` and `end`: of `tries` that are drawn after `start`, those after which
    `end` is likeliest. Also the mean log-likelihood of a code of `end` after each try, best first.

    The model only knows the past: what is drawn does not aim at `end`, it is chosen by it. `no_text`: features and mask
    of an empty text, for guidance.
    """
    inference, device = inference_model(model), model.lm_head.weight.device
    features, mask = text
    words = int(mask.sum())
    features, mask = features[:, :words], mask[:, :words]
    inference.config.check_length(words + len(start) + count + len(end))
    generator = _generator(seed)
    found: list[tuple[float, list[int]]] = []
    for first in range(0, tries, TRIES_AT_ONCE):
        rows = min(TRIES_AT_ONCE, tries - first)
        known = torch.tensor([list(start)] * rows, dtype=torch.long, device=device)
        texts = features.expand(rows, -1, -1), mask.expand(rows, -1)
        prefix = inference.prefill(*texts, known if len(start) else None)
        free = inference.prefill(*no_text, known[:1] if len(start) else None) if no_text is not None else None
        batch = DecodeBatch(inference, rows, count, prefix.width + count, params)
        limit = torch.full_like(batch.index, count)
        uniforms = torch.rand(rows, count, generator=generator, dtype=torch.float64).to(device)
        batch.fill(batch.index, prefix, batch.index, limit, limit, uniforms if params.do_sample else None, free)
        for step in range(count):
            batch.step(prefix.width + step)
        batch.status()
        middle = batch.codes[:, :count]
        ids = torch.cat(
            [
                torch.full((rows, words), inference.config.pad_id, device=device),
                known,
                middle,
                torch.tensor([list(end)] * rows, dtype=torch.long, device=device),
            ],
            dim=1,
        )
        hidden = model.hidden(ids[:, :-1], *texts)[:, -len(end) :]
        chances = model.head(hidden).float().log_softmax(dim=-1).gather(-1, ids[:, -len(end) :, None])[..., 0]
        found += zip(chances.mean(dim=1).tolist(), middle.tolist(), strict=True)
    found.sort(key=lambda pair: -pair[0])
    return found[0][1], [score for score, _ in found]
