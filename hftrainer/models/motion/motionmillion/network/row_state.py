"""The rows of a batch that is decoded: where each is, on the device, and what the host knows of it without asking."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.network.cache import KVCache
from hftrainer.models.motion.motionmillion.network.cached import CachedLLaMA, Prefix
from hftrainer.models.motion.motionmillion.network.choosing import Choice


class RowState:
    """Where each of `rows` rows is; lives on the device, and `step` never waits for it."""

    def __init__(self, model: CachedLLaMA, rows: int, longest: int, slots: int, choice: Choice, floors: bool):
        self.model, self.choice, self.has_floors = model, choice, floors
        self.cache: KVCache = model.new_cache(rows, slots)
        device, pad = self.cache.blocks.device, model.config.pad_id
        self.text, self.counts, self.limits, self.floors = torch.zeros(4, rows, dtype=torch.long, device=device)
        self.inputs = model.embed(torch.full((rows,), pad, device=device))
        self.done = torch.ones(rows, dtype=torch.bool, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self.codes = torch.full((rows, longest + 1), pad, dtype=torch.long, device=device)
        wide = longest + 1 if choice.do_sample else 0
        self.uniforms = torch.zeros(rows, wide, dtype=torch.float64, device=device)
        self.every = torch.arange(rows, device=device)

    def fill(
        self,
        rows: Tensor,
        prefix: Prefix,
        theirs: Tensor,
        limits: Tensor,
        floors: Tensor,
        uniforms: Tensor | None,
    ) -> None:
        """Put texts `theirs` (r,) of `prefix` into rows (r,)."""
        self.cache.write(rows, prefix.cache, theirs)
        self.inputs[rows], self.text[rows], self.counts[rows] = prefix.last[theirs], prefix.lengths[theirs], 0
        self.limits[rows], self.floors[rows] = limits, floors
        self.done[rows], self.ended[rows] = False, False
        if uniforms is not None:
            self.uniforms[rows] = uniforms

    def release(self, rows: Sequence[int]) -> None:
        """Rows that are free read one slot and write none of a prompt's."""
        at = torch.tensor(rows, device=self.done.device)
        self.text[at], self.counts[at], self.done[at] = 0, 0, True

    def step(self, live: int) -> None:
        """One more code for every row that has not ended."""
        positions = (self.text + self.counts - 1).clamp(min=0)
        hidden = self.model.decode(self.inputs, positions, self.cache, live)
        may_end = self.counts >= self.floors if self.has_floors else None
        if self.choice.do_sample:
            ids = self.choice.draw(self.model.logits(hidden, may_end), self.uniforms[self.every, self.counts])
        else:
            ids = self.model.best(hidden, may_end)
        end, pad = self.model.config.end_id, self.model.config.pad_id
        self.ended |= (ids == end) & ~self.done
        self.done |= self.ended
        self.codes[self.every, self.counts] = torch.where(self.done, pad, ids)
        self.counts += ~self.done
        self.done |= self.counts >= self.limits
        self.inputs.copy_(self.model.embed(ids))

    _PER_ROW = ("inputs", "text", "counts", "limits", "floors", "done", "ended", "codes", "uniforms")

    @property
    def slots(self) -> int:
        """Positions of a row."""
        return self.cache.slots

    def tensors(self) -> list[Tensor]:
        """Everything but the cache."""
        return [getattr(self, name) for name in self._PER_ROW]

    def move(self, moves: Sequence[tuple[int, int]], reach: Sequence[int]) -> None:
        """Move rows as `arrange` says; a row has written at most `reach` slots."""
        for source, target in moves:
            self.cache.move(source, target, reach[source])
        sources, targets = torch.tensor(moves, device=self.done.device).T
        for tensor in self.tensors():
            tensor[targets] = tensor[sources]
        self.release(sorted({source for source, _ in moves} - {target for _, target in moves}))

    def keep(self, rows: int) -> None:
        """Go on with the first `rows` rows."""
        for name in self._PER_ROW:
            setattr(self, name, getattr(self, name)[:rows])
        self.cache.keep(rows)
        self.every = self.every[:rows]


class HostRows:
    """What the host knows of the rows: the prompt of each, and an upper bound of the slots that it has filled."""

    def __init__(self, rows: int):
        self.prompts: list[int | None] = [None] * rows
        self.reach = [0] * rows

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def free(self) -> list[int]:
        """Rows without a prompt."""
        return [row for row, prompt in enumerate(self.prompts) if prompt is None]

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        """As `arrange` says."""
        for source, target in moves:
            self.prompts[target], self.reach[target] = self.prompts[source], self.reach[source]
            self.prompts[source], self.reach[source] = None, 0

    def keep(self, rows: int) -> None:
        """Go on with the first `rows` rows."""
        self.prompts, self.reach = self.prompts[:rows], self.reach[:rows]
