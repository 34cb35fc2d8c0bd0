"""The rows of a batch that is decoded: where each is, on the device, and what the host knows of it without asking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.engine.cuda_graphs import StepGraphs, kv_bucket
from hftrainer.models.motion.motionmillion.engine.device_rows import DeviceRows
from hftrainer.models.motion.motionmillion.engine.guidance import Guidance
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA, Prefix
from hftrainer.models.motion.motionmillion.engine.row_groups import plan_compaction
from hftrainer.models.motion.motionmillion.network.sampler import best_ids, sample_ids
from hftrainer.requests import SamplingParams


class DecodeBatch(DeviceRows):
    """Where each of `rows` rows is; lives on the device, and `step` never waits for it.

    `counts` codes of at most `limits` have been made, END is not allowed before `floors`; `fault` is not a number where
    the network's output was not. All rows choose by `params`, or those of each of `groups` by its own; CUDA graphs know
    nothing of groups.
    """

    per_row = ("inputs", "text", "counts", "limits", "floors", "done", "ended", "fault", "codes", "uniforms")

    def __init__(self, model: InferenceLLaMA, rows: int, max_new_tokens: int, max_seq_len: int, params: SamplingParams):
        self.model, self.params = model, params
        self.groups: list[tuple[SamplingParams, Tensor]] = []
        self.cache = model.new_cache(rows, max_seq_len)
        device, pad = model.device, model.config.pad_id
        self.text, self.counts, self.limits, self.floors = torch.zeros(4, rows, dtype=torch.long, device=device)
        self.inputs = model.embed(torch.full((rows,), pad, device=device))
        self.done = torch.ones(rows, dtype=torch.bool, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self.fault = torch.zeros(rows, device=device)
        self.codes = torch.full((rows, max_new_tokens + 1), pad, dtype=torch.long, device=device)
        wide = max_new_tokens + 1 if params.do_sample else 0
        self.uniforms = torch.zeros(rows, wide, dtype=torch.float64, device=device)
        self.index = torch.arange(rows, device=device)
        self.guidance: Guidance | None = Guidance(model, rows, max_seq_len) if params.is_guided else None
        self.graphs = StepGraphs(device)

    def __len__(self) -> int:
        return len(self.done)

    @property
    def max_seq_len(self) -> int:
        """Positions of a row."""
        return self.cache.max_seq_len

    def fill(
        self,
        rows: Tensor,
        prefix: Prefix,
        theirs: Tensor,
        limits: Tensor,
        floors: Tensor,
        uniforms: Tensor | None,
        no_text: Prefix | None = None,
        scales: Tensor | None = None,
    ) -> None:
        """Put texts `theirs` (r,) of `prefix` into rows (r,); where some are guided, also `no_text`, with `scales` (r,)
        or that of `params`."""
        if self.params.is_guided and no_text is None:
            raise ValueError("guidance_scale needs the features of an empty text: DecodeBatch.fill(no_text=...)")
        self.cache.write(rows, prefix.cache, theirs)
        self.inputs[rows], self.text[rows], self.counts[rows] = prefix.last[theirs], prefix.lengths[theirs], 0
        self.limits[rows], self.floors[rows], self.fault[rows] = limits, floors, 0.0
        self.done[rows], self.ended[rows] = False, False
        if uniforms is not None:
            self.uniforms[rows, : uniforms.shape[1]] = uniforms
        if self.guidance is not None and no_text is not None:
            if scales is None:
                scales = torch.full_like(rows, self.params.guidance_scale, dtype=torch.float32)  # type: ignore[arg-type]
            self.guidance.fill(rows, no_text, scales)

    def release(self, rows: Tensor) -> None:
        """Rows (r,) that are free read one slot and write none of a prompt's."""
        self.text[rows], self.counts[rows], self.done[rows] = 0, 0, True
        if self.guidance is not None:
            self.guidance.release(rows)

    def step(self, kv_len_bound: int) -> None:
        """One more code for every row that has not ended."""
        positions = (self.text + self.counts - 1).clamp(min=0)
        hidden = self.model.decode(self.inputs, positions, self.cache, kv_len_bound)
        self.fault += hidden.sum(dim=-1, dtype=torch.float32) * 0.0  # NaN stays, and infinity becomes NaN
        may_end = self.counts >= self.floors
        ids = self._choose(hidden, may_end, kv_len_bound)
        end, pad = self.model.config.end_id, self.model.config.pad_id
        self.ended |= (ids == end) & ~self.done
        self.done |= self.ended
        self.codes[self.index, self.counts] = torch.where(self.done, pad, ids)
        self.counts += ~self.done
        self.done |= self.counts >= self.limits
        self.inputs.copy_(self.model.embed(ids))
        if self.guidance is not None:
            self.guidance.inputs.copy_(self.inputs)

    def _choose(self, hidden: Tensor, may_end: Tensor, kv_len_bound: int) -> Tensor:
        """Ids (rows,) of hidden states (rows, d)."""
        greedy = not self.groups and not self.params.do_sample
        if greedy and self.guidance is None:
            return self.model.best(hidden, may_end)
        if self.guidance is None:
            logits = self.model.logits(hidden, may_end)
        else:
            without = self.guidance.hidden(self.counts, kv_len_bound)
            logits = self.guidance.logits(hidden, without, may_end)
        if greedy:
            return best_ids(logits)
        uniforms = self.uniforms[self.index, self.counts]
        if not self.groups:
            return sample_ids(logits, uniforms, self.params)
        ids = best_ids(logits)
        for params, rows in self.groups:
            if params.do_sample:
                ids[rows] = sample_ids(logits[rows], uniforms[rows], params)
        return ids

    def replay(self, kv_len_bound: int) -> None:
        """As `step`, from a CUDA graph."""
        self.graphs.step(self, kv_len_bound)

    def slots_of_graph(self, kv_len_bound: int) -> int:
        """As `cuda_graphs.Stepped` says."""
        every = self.model.reads_lengths(len(self))
        return self.max_seq_len if every else kv_bucket(kv_len_bound, self.max_seq_len)

    def status(self) -> list[bool]:
        """Which rows are done; waits for the device. ``ValueError`` if the network's output is not a number."""
        done, fault = torch.stack([self.done, self.fault.isnan()]).tolist()
        if any(fault):
            raise ValueError(
                f"the transformer's output is not a number (NaN or infinity) in {sum(fault)} of {len(fault)} rows, in "
                f"{str(self.cache.blocks.dtype).removeprefix('torch.')}; its weights may be damaged, or their values "
                "too large for this type: try dtype='bfloat16' or 'float32'"
            )
        return done  # type: ignore[no-any-return]

    def results(self, rows: Tensor) -> list[tuple[Tensor, bool]]:
        """Codes (l,) on the CPU of rows (r,), and whether each ended by itself; waits for the device."""
        numbers = torch.cat([self.counts[rows, None], self.ended[rows, None].long(), self.codes[rows]], dim=1).cpu()
        return [(codes[:count], bool(ended)) for (count, ended), codes in
                zip(numbers[:, :2].tolist(), numbers[:, 2:], strict=True)]  # fmt: skip

    def move(self, moves: Sequence[tuple[int, int]], kv_lens: Sequence[int]) -> None:
        """As `DeviceRows.move`; rows that are left are free."""
        super().move(moves, kv_lens)
        if self.guidance is not None:
            self.guidance.move(moves, kv_lens)
        left = sorted({source for source, _ in moves} - {target for _, target in moves})
        self.release(torch.tensor(left, device=self.done.device))

    def first(self, rows: int) -> DecodeBatch:
        """The first `rows` rows, in the same memory."""
        part = super().first(rows)
        part.index = self.index[:rows]
        part.guidance = self.guidance.first(rows) if self.guidance is not None else None
        return part

    def add_guidance(self) -> None:
        """Make room for guidance. It is kept with the batch that is kept between calls: captured graphs use it."""
        if self.guidance is not None:
            return
        kept: DecodeBatch | None = self.model.workspace
        if kept is None or kept.graphs is not self.graphs:
            kept = self
        if kept.guidance is None:
            kept.guidance = Guidance(self.model, len(kept), kept.max_seq_len)
        self.guidance = kept.guidance.first(len(self))


def reserve(
    model: InferenceLLaMA, rows: int, max_new_tokens: int, max_seq_len: int, params: SamplingParams
) -> DecodeBatch:
    """A batch of free rows. On CUDA its memory is kept with the model, and with it the graphs that were captured."""
    if model.on_cpu:
        return DecodeBatch(model, rows, max_new_tokens, max_seq_len, params)
    model.config.check_length(max_seq_len)
    kept: DecodeBatch | None = model.workspace
    if kept is None or len(kept) < rows or kept.max_seq_len < max_seq_len:
        model.workspace = None  # the old memory is free before the new one is taken
        widest = replace(params, do_sample=True, guidance_scale=None)  # room for draws, whatever this call does
        kept = model.workspace = DecodeBatch(model, rows, model.config.block_size, max_seq_len, widest)
    kept.release(kept.index)
    batch = kept.first(rows)
    batch.params = params
    if params.is_guided:
        batch.add_guidance()
    else:
        batch.guidance = None
    return batch


class HostBatch:
    """What the host knows of the rows: the prompt of each, its steps, and an upper bound of the slots it has filled."""

    def __init__(self, rows: int):
        self.prompts: list[int | None] = [None] * rows
        self.kv_lens, self.steps = [0] * rows, [0] * rows

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def free(self) -> list[int]:
        """Rows without a prompt."""
        return [row for row, prompt in enumerate(self.prompts) if prompt is None]

    def fill(self, row: int, prompt: int, kv_len: int) -> None:
        """A prompt has taken a row."""
        self.prompts[row], self.kv_lens[row], self.steps[row] = prompt, kv_len, 0

    def free_row(self, row: int) -> None:
        """Its prompt is done."""
        self.prompts[row], self.kv_lens[row], self.steps[row] = None, 0, 0

    def advance(self, max_seq_len: int) -> int:
        """Count a step; more slots than any row reads in it."""
        for row, prompt in enumerate(self.prompts):
            if prompt is not None:
                self.kv_lens[row] = min(self.kv_lens[row] + 1, max_seq_len)
                self.steps[row] += 1
        return max(self.kv_lens)

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        """As `plan_compaction` says."""
        for source, target in moves:
            self.prompts[target], self.steps[target] = self.prompts[source], self.steps[source]
            self.kv_lens[target] = self.kv_lens[source]
            self.free_row(source)

    def keep(self, rows: int) -> None:
        """Continue with the first `rows` rows."""
        self.prompts, self.kv_lens, self.steps = self.prompts[:rows], self.kv_lens[:rows], self.steps[:rows]

    def check_ends(self, limit_of: Callable[[int], int], late: int, device: torch.device) -> None:
        """Raise ``RuntimeError`` if a row runs `late` steps beyond its limit, so that nothing loops for ever."""
        for prompt, steps in zip(self.prompts, self.steps, strict=True):
            if prompt is not None and steps > limit_of(prompt) + late:
                raise RuntimeError(
                    f"prompt {prompt} has not ended after {steps} steps, its limit is {limit_of(prompt)} codes: the "
                    f"steps on {device} have no effect; this is a bug, please report it"
                )


def compact(batch: DecodeBatch, host: HostBatch) -> bool:
    """Move rows in use together, those of like length side by side; whether any was moved."""
    moves = plan_compaction(host.kv_lens)
    if moves:
        batch.move(moves, host.kv_lens)
        host.move(moves)
    return bool(moves)
