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

from hftrainer.models.motion.motionmillion.network.cache import arrange
from hftrainer.models.motion.motionmillion.network.cached import CachedLLaMA, Prefix
from hftrainer.models.motion.motionmillion.network.choosing import Choice
from hftrainer.models.motion.motionmillion.network.graphs import StepGraphs
from hftrainer.models.motion.motionmillion.network.row_state import HostRows, RowState

TextSource = Callable[[list[int]], tuple[Tensor, Tensor]]
_PREFILLED = 16  # texts at once: some 300 positions, enough for a matrix product to be at its best


@dataclass
class Work:
    """What is to be decoded: prompts 0 .. n - 1.

    `texts` gives features (r, n, c) and mask (r, n) of prompts by number; `limits` are the most codes for each,
    `floors` the number of codes before which END is not allowed, `uniforms` (n, at least max(limits)) one number in
    [0, 1) for each choice, if choices are drawn. `slots`: at least text and limit of any prompt together.
    """

    texts: TextSource
    limits: Sequence[int]
    slots: int
    floors: Sequence[int] | None = None
    uniforms: Tensor | None = None


class Finished(NamedTuple):
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


class BatchDecoder:
    """Decodes `Work` in `rows` rows at a time.

    The host looks at which rows have ended every `check_every` steps (a look waits for the device: 1 on a CPU, 8 else)
    and refills them. When no prompt waits, the batch shrinks with the rows that are left (`shrink`).
    """

    def __init__(
        self,
        model: CachedLLaMA,
        rows: int,
        choice: Choice | None = None,
        *,
        check_every: int | None = None,
        shrink: bool = True,
    ):
        self.on_cpu = model.lm_head.weight.device.type == "cpu"
        self.graphs = model.lm_head.weight.device.type == "cuda"
        self.shrink = shrink
        self.model, self.rows, self.choice = model, rows, choice or Choice()
        self.check_every = check_every or (1 if self.on_cpu else 8)
        self.occupancy = Occupancy()

    @torch.inference_mode()
    def run(self, work: Work, prompts: Sequence[int] | None = None) -> Iterator[Finished]:
        """Finished prompts, in the order in which they end. `prompts`: those to decode, by default all.

        Prompts with large limits go first, so that no long one starts last.
        """
        todo = list(range(len(work.limits)) if prompts is None else prompts)
        for prompt in [p for p in todo if work.limits[p] == 0]:
            yield Finished(prompt, torch.zeros(0, dtype=torch.long), False)
        waiting = deque(sorted((p for p in todo if work.limits[p] > 0), key=lambda p: -work.limits[p]))
        if not waiting:
            return
        rows = HostRows(min(self.rows, len(waiting)))
        state = RowState(self.model, len(rows), max(work.limits), work.slots, self.choice, work.floors is not None)
        ready = _Ready(self.model, work, waiting, min(len(rows), _PREFILLED), self.occupancy)
        step = StepGraphs(state).step if self.graphs else state.step
        while True:
            free = len(rows.free)
            if free and ready:
                self._refill(state, work, ready, rows)
            elif free == len(rows):
                return
            elif self.shrink and (smaller := self._smaller(len(rows), free)) < len(rows):
                self._arrange(state, rows)
                state.keep(smaller)
                rows.keep(smaller)
                step = StepGraphs(state).step if self.graphs else state.step
            self._steps(state, step, rows)
            yield from self._harvest(state, rows)

    def _refill(self, state: RowState, work: Work, ready: _Ready, rows: HostRows) -> None:
        if self.on_cpu:
            self._arrange(state, rows)
        free = deque(rows.free)
        while free and ready:
            prefix, prompts, theirs = ready.take(len(free))
            used = [free.popleft() for _ in prompts]
            self._fill(state, work, used, prefix, prompts, theirs)
            for row, prompt in zip(used, prompts, strict=True):
                # the first step repeats the last position of the text
                rows.prompts[row], rows.reach[row] = prompt, prefix.cache.slots - 1

    def _fill(
        self, state: RowState, work: Work, rows: list[int], prefix: Prefix, prompts: list[int], theirs: list[int]
    ) -> None:
        device = state.done.device
        uniforms = None
        if self.choice.do_sample:
            assert work.uniforms is not None
            uniforms = work.uniforms[prompts, : state.uniforms.shape[1]].to(device)
            uniforms = torch.nn.functional.pad(uniforms, (0, state.uniforms.shape[1] - uniforms.shape[1]))
        limits = [work.limits[p] for p in prompts]
        floors = [0] * len(prompts) if work.floors is None else [work.floors[p] for p in prompts]
        numbers = torch.tensor([rows, theirs, limits, floors], device=device)
        state.fill(numbers[0], prefix, numbers[1], numbers[2], numbers[3], uniforms)

    def _arrange(self, state: RowState, rows: HostRows) -> None:
        if moves := arrange(rows.reach):
            state.move(moves, rows.reach)
            rows.move(moves)

    def _smaller(self, rows: int, free: int) -> int:
        """Rows to go on with when `free` of `rows` stay empty; graphs want powers of two."""
        live = rows - free
        return min(rows, 1 << (live - 1).bit_length()) if self.graphs else live

    def _steps(self, state: RowState, step: Callable[[int], None], rows: HostRows) -> None:
        for _ in range(self.check_every):
            rows.reach = [
                min(reach + 1, state.slots) if prompt is not None else 0
                for reach, prompt in zip(rows.reach, rows.prompts, strict=True)
            ]
            step(max(rows.reach))
            self.occupancy.computed += len(rows)
            self.occupancy.steps += 1

    def _harvest(self, state: RowState, rows: HostRows) -> Iterator[Finished]:
        done = state.done.tolist()
        over = [(row, prompt) for row, prompt in enumerate(rows.prompts) if prompt is not None and done[row]]
        if not over:
            return
        at = [row for row, _ in over]
        codes, counts, ended = state.codes[at].cpu(), state.counts[at].tolist(), state.ended[at].tolist()
        state.release(at)
        for i, (row, prompt) in enumerate(over):
            rows.prompts[row], rows.reach[row] = None, 0
            self.occupancy.useful += counts[i] + ended[i]
            yield Finished(prompt, codes[i, : counts[i]], ended[i])


class _Ready:
    """Waiting prompts, whose texts are prefilled `at_once`."""

    def __init__(self, model: CachedLLaMA, work: Work, waiting: deque[int], at_once: int, occupancy: Occupancy):
        self.model, self.work, self.waiting, self.at_once = model, work, waiting, at_once
        self.occupancy = occupancy
        self.prefix: Prefix | None = None
        self.prompts: deque[tuple[int, int]] = deque()  # prompt, and its row in `prefix`

    def __bool__(self) -> bool:
        return bool(self.prompts or self.waiting)

    def take(self, most: int) -> tuple[Prefix, list[int], list[int]]:
        """Up to `most` prompts that were prefilled together: where, their numbers, their rows there."""
        if not self.prompts:
            coming = [self.waiting.popleft() for _ in range(min(self.at_once, len(self.waiting)))]
            self.prefix = self.model.prefill(*self.work.texts(coming))
            self.prompts.extend((prompt, row) for row, prompt in enumerate(coming))
            self.occupancy.prefills += 1
        assert self.prefix is not None
        taken = [self.prompts.popleft() for _ in range(min(most, len(self.prompts)))]
        return self.prefix, [prompt for prompt, _ in taken], [row for _, row in taken]
