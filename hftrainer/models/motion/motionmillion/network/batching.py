"""Many prompts through a fixed number of rows: a row that has ended is refilled with the next prompt.

Batches of prompts that all wait for their longest waste a third to a half of the work; here a row is empty for a few
steps only. What a prompt becomes does not depend on its row, its neighbours or the order (up to rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.network.cached import CachedLLaMA, KVCache
from hftrainer.models.motion.motionmillion.network.choosing import Choice
from hftrainer.models.motion.motionmillion.network.graphs import StepGraphs

TextSource = Callable[[list[int]], tuple[Tensor, Tensor]]


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
    """Row-steps that were computed, and those that made a code or END of some prompt; steps, and refills of rows."""

    computed: int = 0
    useful: int = 0
    steps: int = 0
    refills: int = 0

    @property
    def share(self) -> float:
        """Useful over computed."""
        return self.useful / max(self.computed, 1)


class RowState:
    """Where each of `rows` rows is; lives on the device, and `step` never waits for it."""

    def __init__(self, model: CachedLLaMA, rows: int, longest: int, slots: int, choice: Choice, floors: bool):
        self.model, self.choice, self.has_floors = model, choice, floors
        self.cache: KVCache = model.new_cache(rows, slots)
        device, pad = self.cache.blocks.device, model.config.pad_id
        self.ids, self.text, self.counts, self.limits, self.floors = torch.zeros(
            5, rows, dtype=torch.long, device=device
        )
        self.done = torch.ones(rows, dtype=torch.bool, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self.codes = torch.full((rows, longest + 1), pad, dtype=torch.long, device=device)
        wide = longest + 1 if choice.do_sample else 0
        self.uniforms = torch.zeros(rows, wide, dtype=torch.float64, device=device)
        self.every = torch.arange(rows, device=device)

    def fill(
        self, rows: Tensor, features: Tensor, mask: Tensor, limits: Tensor, floors: Tensor, uniforms: Tensor | None
    ) -> None:
        """Put new prompts into rows (r,) and choose their first code."""
        self.text[rows], self.counts[rows] = mask.bool().sum(dim=1), 0
        self.limits[rows], self.floors[rows] = limits, floors
        self.done[rows], self.ended[rows] = False, False
        if uniforms is not None:
            self.uniforms[rows] = uniforms
        self._choose(rows, self.model.prefill(features, mask, self.cache, rows))

    def step(self, live: int) -> None:
        """One more code for every row that has not ended."""
        positions = (self.text + self.counts - 1).clamp(min=0)
        self._choose(None, self.model.decode(self.ids, positions, self.cache, live))

    def _choose(self, rows: Tensor | None, logits: Tensor) -> None:
        """Choose for `rows` (r,), or for all of them, which need not be gathered."""
        every = self.every if rows is None else rows
        of: Tensor | slice = slice(None) if rows is None else rows
        config, counts, done = self.model.config, self.counts[of], self.done[of]
        if self.has_floors:
            logits[:, config.end_id].masked_fill_(counts < self.floors[of], -torch.inf)
        ids = self.choice(logits, self.uniforms[every, counts] if self.choice.do_sample else None)
        ended = (ids == config.end_id) & ~done
        done = done | ended
        self.codes[every, counts] = torch.where(done, config.pad_id, ids)
        counts = counts + ~done
        self.ids[of], self.counts[of] = ids, counts
        self.ended[of] = self.ended[of] | ended
        self.done[of] = done | (counts >= self.limits[of])

    _PER_ROW = ("ids", "text", "counts", "limits", "floors", "done", "ended", "codes", "uniforms")

    @property
    def slots(self) -> int:
        """Positions of a row."""
        return self.cache.slots

    def tensors(self) -> list[Tensor]:
        """Everything but the cache."""
        return [getattr(self, name) for name in self._PER_ROW]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        for name in self._PER_ROW:
            setattr(self, name, getattr(self, name)[rows])
        self.cache.keep(rows)
        self.every = self.every[: len(rows)]


class BatchDecoder:
    """Decodes `Work` in `rows` rows at a time.

    The host looks at which rows have ended every `check_every` steps (a look waits for the device: 1 on a CPU, 8 else)
    and refills once `refill_at` rows are free. When no prompt waits, the batch shrinks with the rows that
    are left (`shrink`).
    """

    def __init__(
        self,
        model: CachedLLaMA,
        rows: int,
        choice: Choice | None = None,
        *,
        check_every: int | None = None,
        refill_at: int | None = None,
        shrink: bool = True,
    ):
        on_cpu = model.lm_head.weight.device.type == "cpu"
        self.graphs = model.lm_head.weight.device.type == "cuda"
        self.shrink = shrink
        self.model, self.rows, self.choice = model, rows, choice or Choice()
        self.check_every = check_every or (1 if on_cpu else 8)
        self.refill_at = refill_at or max(1, rows // 16)
        self.occupancy = Occupancy()

    @torch.inference_mode()
    def run(self, work: Work, prompts: Sequence[int] | None = None) -> Iterator[Finished]:
        """Finished prompts, in the order in which they end. `prompts`: those to decode, by default all.

        Prompts with large limits go first, so that no long one starts last.
        """
        todo = list(range(len(work.limits)) if prompts is None else prompts)
        for prompt in [p for p in todo if work.limits[p] == 0]:
            yield Finished(prompt, torch.zeros(0, dtype=torch.long), False)
        waiting = sorted((p for p in todo if work.limits[p] > 0), key=lambda p: -work.limits[p])
        if not waiting:
            return
        rows, longest = min(self.rows, len(waiting)), max(work.limits)
        state = RowState(self.model, rows, longest, work.slots, self.choice, work.floors is not None)
        running: list[int | None] = [None] * rows
        reach = [0] * rows  # upper bound of a row's position, kept by the host so that it need not ask
        step = StepGraphs(state).step if self.graphs else state.step
        while True:
            free = [i for i, prompt in enumerate(running) if prompt is None]
            if waiting and (len(free) >= min(self.refill_at, len(waiting)) or len(free) == len(running)):
                self._refill(state, work, waiting, free, running, reach)
            elif len(free) == len(running):
                return
            else:
                smaller = self._smaller(len(running), len(free)) if self.shrink and not waiting else len(running)
                if smaller < len(running):
                    running, reach = _shrink(state, running, reach, smaller)
                    step = StepGraphs(state).step if self.graphs else state.step
                self._steps(state, step, running, reach)
            yield from self._harvest(state, running)

    def _refill(
        self,
        state: RowState,
        work: Work,
        waiting: list[int],
        free: list[int],
        running: list[int | None],
        reach: list[int],
    ) -> None:
        prompts = [waiting.pop(0) for _ in range(min(len(free), len(waiting)))]
        features, mask = work.texts(prompts)
        device, used = state.done.device, free[: len(prompts)]
        floors = [0] * len(prompts) if work.floors is None else [work.floors[p] for p in prompts]
        uniforms = None
        if self.choice.do_sample:
            assert work.uniforms is not None
            uniforms = work.uniforms[prompts, : state.uniforms.shape[1]].to(device)
            uniforms = torch.nn.functional.pad(uniforms, (0, state.uniforms.shape[1] - uniforms.shape[1]))
        limits = torch.tensor([work.limits[p] for p in prompts], device=device)
        rows = torch.tensor(used, device=device)
        state.fill(rows, features, mask, limits, torch.tensor(floors, device=device), uniforms)
        for row, prompt in zip(used, prompts, strict=True):
            running[row], reach[row] = prompt, features.shape[1]
        self.occupancy.refills += 1

    def _smaller(self, rows: int, free: int) -> int:
        """Rows to go on with when `free` of `rows` stay empty: graphs want powers of two, else a quarter pays."""
        live = rows - free
        if self.graphs:
            return min(rows, 1 << (live - 1).bit_length())
        return live if free >= max(1, rows // 4) else rows

    def _steps(self, state: RowState, step: Callable[[int], None], running: list[int | None], reach: list[int]) -> None:
        for _ in range(self.check_every):
            for row, prompt in enumerate(running):
                reach[row] = min(reach[row] + 1, state.cache.slots) if prompt is not None else 0
            step(max(reach))
            self.occupancy.computed += len(running)
            self.occupancy.steps += 1

    def _harvest(self, state: RowState, running: list[int | None]) -> Iterator[Finished]:
        done = state.done.tolist()
        over = [row for row, prompt in enumerate(running) if prompt is not None and done[row]]
        if not over:
            return
        codes, counts, ended = state.codes[over].cpu(), state.counts[over].tolist(), state.ended[over].tolist()
        for i, row in enumerate(over):
            prompt = running[row]
            assert prompt is not None
            running[row] = None
            self.occupancy.useful += max(counts[i] + ended[i] - 1, 0)  # the prefill chose the first
            yield Finished(prompt, codes[i, : counts[i]], ended[i])


def _shrink(
    state: RowState, running: list[int | None], reach: list[int], rows: int
) -> tuple[list[int | None], list[int]]:
    """The busy rows, and empty ones up to `rows`, move together."""
    kept = sorted(range(len(running)), key=lambda row: running[row] is None)[:rows]
    state.keep(torch.tensor(kept, device=state.done.device))
    return [running[row] for row in kept], [reach[row] for row in kept]
