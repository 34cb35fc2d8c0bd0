"""Many prompts through a fixed number of rows: a row that has ended is refilled with the next prompt.

Batches of prompts that all wait for their longest waste a third to a half of the work; here a row is empty for a few
steps only. What a prompt becomes does not depend on its row, its neighbours or the order (up to rounding).

Texts are prefilled before a row is free for them, many at once, and copied into the row; the step that all rows share
then chooses the first code as it does every other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.engine.decode_batch import DecodeBatch, HostBatch, compact, reserve
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA, Prefix
from hftrainer.requests import SamplingParams

TextSource = Callable[[list[int]], tuple[Tensor, Tensor]]
PREFILLED = 16  # texts at once: some 300 positions, enough for a matrix product to be at its best
SMALLEST = 32  # rows below which a batch on CUDA no longer shrinks: weights are what such a step reads


@dataclass
class DecodeRequests:
    """What is to be decoded: prompts 0 .. n - 1.

    `texts` gives features (r, n, c) and mask (r, n) of prompts by number; `max_new_tokens` are the most codes for each,
    `min_new_tokens` the number of codes before which END is not allowed, `uniforms` (n, at least max(max_new_tokens))
    one number in [0, 1) for each choice, if choices are drawn. `max_seq_len`: at least text and codes of any prompt.
    `no_text`: features (1, n, c) and mask (1, n) of an empty text, for guidance.
    """

    texts: TextSource
    max_new_tokens: Sequence[int]
    max_seq_len: int
    min_new_tokens: Sequence[int] | None = None
    uniforms: Tensor | None = None
    no_text: tuple[Tensor, Tensor] | None = None


class Completion(NamedTuple):
    """Prompt number, its codes (l,) on the CPU, and whether END came (else the limit cut it off)."""

    prompt: int
    codes: Tensor
    ended: bool


@dataclass
class Occupancy:
    """Row-steps that were computed, and those that made a code or END of some prompt; steps, and batches of texts that
    were prefilled."""

    computed: int = 0
    useful: int = 0
    steps: int = 0
    prefills: int = 0

    @property
    def share(self) -> float:
        """Useful over computed."""
        return self.useful / max(self.computed, 1)


class Scheduler:
    """Decodes `DecodeRequests` in `rows` rows at a time.

    The host looks at which rows have ended every `check_every` steps (a look waits for the device: 1 on a CPU, 8 else)
    and refills them. When no prompt waits, the batch shrinks with the rows that are left (`shrink`).
    """

    def __init__(
        self,
        model: InferenceLLaMA,
        rows: int,
        params: SamplingParams | None = None,
        *,
        check_every: int | None = None,
        shrink: bool = True,
    ):
        self.on_cpu = model.on_cpu
        self.graphs = model.device.type == "cuda"
        self.shrink = shrink
        self.model, self.rows, self.params = model, rows, params or SamplingParams()
        self.check_every = check_every or (1 if self.on_cpu else 8)
        self.occupancy = Occupancy()
        self._cancelled: set[int] = set()
        self._no_text: Prefix | None = None

    def cancel(self, prompt: int) -> None:
        """Drop a prompt: it is not finished, and its row is free at the next look."""
        self._cancelled.add(prompt)

    @torch.inference_mode()
    def run(self, requests: DecodeRequests, prompts: Sequence[int] | None = None) -> Iterator[Completion]:
        """Finished prompts, in the order in which they end. `prompts`: those to decode, by default all.

        Prompts with large limits go first, so that no long one starts last.
        """
        limits = requests.max_new_tokens
        todo = list(range(len(limits)) if prompts is None else prompts)
        for prompt in [p for p in todo if limits[p] == 0]:
            yield Completion(prompt, torch.zeros(0, dtype=torch.long), False)
        waiting = deque(sorted((p for p in todo if limits[p] > 0), key=lambda p: -limits[p]))
        if not waiting:
            return
        count = self._count(min(self.rows, len(waiting)))
        batch = reserve(self.model, count, max(limits), requests.max_seq_len, self.params)
        host = HostBatch(count)
        self._no_text = self._prefill_no_text(requests)
        ready = _Ready(self.model, requests, waiting, min(count, PREFILLED), self.occupancy)
        while True:
            self._drop_cancelled(batch, host, ready)
            free = len(host.free)
            if free and ready:
                self._refill(batch, requests, ready, host)
            elif free == len(host):
                return
            elif self.shrink and (smaller := self._smaller(len(host), free)) < len(host):
                compact(batch, host)
                batch = batch.first(smaller)
                host.keep(smaller)
            self._steps(batch, host, limits)
            yield from self._harvest(batch, host)

    def _prefill_no_text(self, requests: DecodeRequests) -> Prefix | None:
        if not self.params.is_guided:
            return None
        if requests.no_text is None:
            raise ValueError("guidance_scale needs the features of an empty text: DecodeRequests(no_text=...)")
        return self.model.prefill(*requests.no_text)

    def _count(self, rows: int) -> int:
        """Rows to begin with: graphs are kept for powers of two, so that few of them serve all calls."""
        return min(1 << (rows - 1).bit_length(), self.rows) if self.graphs else rows

    def _smaller(self, rows: int, free: int) -> int:
        """Rows to continue with when `free` of `rows` stay empty."""
        live = rows - free
        return min(rows, max(1 << (live - 1).bit_length(), SMALLEST)) if self.graphs else live

    def _refill(self, batch: DecodeBatch, requests: DecodeRequests, ready: _Ready, host: HostBatch) -> None:
        if self.on_cpu:
            compact(batch, host)
        free = deque(host.free)
        while free and ready:
            prefix, prompts, theirs = ready.take(len(free))
            used = [free.popleft() for _ in prompts]
            self._fill(batch, requests, used, prefix, prompts, theirs)
            for row, prompt in zip(used, prompts, strict=True):
                # the first step repeats the last position of the text
                host.fill(row, prompt, prefix.width - 1)

    def _fill(
        self,
        batch: DecodeBatch,
        requests: DecodeRequests,
        rows: list[int],
        prefix: Prefix,
        prompts: list[int],
        theirs: list[int],
    ) -> None:
        device = batch.done.device
        uniforms = None
        if self.params.do_sample:
            assert requests.uniforms is not None
            uniforms = requests.uniforms[prompts, : batch.uniforms.shape[1]].to(device)
        limits = [requests.max_new_tokens[p] for p in prompts]
        floors = (
            [0] * len(prompts) if requests.min_new_tokens is None else [requests.min_new_tokens[p] for p in prompts]
        )
        numbers = torch.tensor([rows, theirs, limits, floors], device=device)
        batch.fill(numbers[0], prefix, numbers[1], numbers[2], numbers[3], uniforms, self._no_text)

    def _steps(self, batch: DecodeBatch, host: HostBatch, limits: Sequence[int]) -> None:
        for _ in range(self.check_every):
            bound = host.advance(batch.max_seq_len)
            if self.graphs:
                batch.replay(bound)
            else:
                batch.step(bound)
            self.occupancy.computed += len(host)
            self.occupancy.steps += 1
        host.check_ends(limits.__getitem__, 2 * self.check_every, batch.done.device)

    def _harvest(self, batch: DecodeBatch, host: HostBatch) -> Iterator[Completion]:
        done = batch.status()
        over = [(row, prompt) for row, prompt in enumerate(host.prompts) if prompt is not None and done[row]]
        if not over:
            return
        at = torch.tensor([row for row, _ in over], device=batch.done.device)
        rows = batch.results(at)
        batch.release(at)
        for (row, prompt), (codes, ended) in zip(over, rows, strict=True):
            host.free_row(row)
            self.occupancy.useful += len(codes) + ended
            yield Completion(prompt, codes, ended)

    def _drop_cancelled(self, batch: DecodeBatch, host: HostBatch, ready: _Ready) -> None:
        if not self._cancelled:
            return
        ready.drop(self._cancelled)
        rows = [row for row, prompt in enumerate(host.prompts) if prompt in self._cancelled]
        if rows:
            batch.release(torch.tensor(rows, device=batch.done.device))
        for row in rows:
            host.free_row(row)
        self._cancelled.clear()


class _Ready:
    """Waiting prompts, whose texts are prefilled `at_once`."""

    def __init__(
        self,
        model: InferenceLLaMA,
        requests: DecodeRequests,
        waiting: deque[int],
        at_once: int,
        occupancy: Occupancy,
    ):
        self.model, self.requests, self.waiting, self.at_once = model, requests, waiting, at_once
        self.occupancy = occupancy
        self.prefix: Prefix | None = None
        self.prompts: deque[tuple[int, int]] = deque()  # prompt, and its row in `prefix`

    def __bool__(self) -> bool:
        return bool(self.prompts or self.waiting)

    def take(self, most: int) -> tuple[Prefix, list[int], list[int]]:
        """Up to `most` prompts that were prefilled together: where, their numbers, their rows there."""
        if not self.prompts:
            coming = [self.waiting.popleft() for _ in range(min(self.at_once, len(self.waiting)))]
            self.prefix = self.model.prefill(*self.requests.texts(coming))
            self.prompts.extend((prompt, row) for row, prompt in enumerate(coming))
            self.occupancy.prefills += 1
        assert self.prefix is not None
        taken = [self.prompts.popleft() for _ in range(min(most, len(self.prompts)))]
        return self.prefix, [prompt for prompt, _ in taken], [row for _, row in taken]

    def drop(self, cancelled: set[int]) -> None:
        """Forget prompts that have not started."""
        self.prompts = deque((prompt, row) for prompt, row in self.prompts if prompt not in cancelled)
        kept = [prompt for prompt in self.waiting if prompt not in cancelled]
        self.waiting.clear()
        self.waiting.extend(kept)
