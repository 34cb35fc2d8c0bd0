"""Rows that requests join and leave while they are decoded: what a server runs.

`Scheduler` knows all prompts beforehand; here one may come, or be cancelled, before every step, with sampling settings
of its own and codes that it continues. What a request becomes depends on its text, seed and settings, not on when it
joined or beside whom (up to rounding: products of matrices with more rows add in another order).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hftrainer.models.motion.motionmillion.engine.decode_batch import DecodeBatch, HostBatch, compact, reserve
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA, Prefix
from hftrainer.models.motion.motionmillion.engine.scheduler import PREFILLED, SMALLEST, Occupancy
from hftrainer.requests import SamplingParams

REPORTED = 4  # codes after which the codes of a watched row are reported again


@dataclass(eq=False)
class RowRequest:
    """A text's `features` (n, c), the codes that it continues, and at most `limit` new ones, END not before `floor`.

    `uniforms` (limit,): one number in [0, 1) for each choice, if choices are drawn. `watched` may change at any time:
    its codes are reported while they are made. `no_text`: features (n, c) of an empty text, for guidance.
    """

    features: Tensor
    limit: int
    floor: int = 0
    sampling: SamplingParams = field(default_factory=SamplingParams)
    uniforms: Tensor | None = None
    context: Sequence[int] = ()
    watched: bool = False
    no_text: Tensor | None = None

    @property
    def positions(self) -> int:
        """That its row takes."""
        return len(self.features) + len(self.context) + self.limit


class RowProgress(NamedTuple):
    """A request's new codes (l,) so far, on the CPU; whether it is done, and if so whether END came."""

    key: int
    codes: Tensor
    done: bool
    ended: bool


class RunningBatch:
    """Decodes requests in up to `rows` rows; belongs to one thread.

    On a CPU the rows in use are kept together, so that a step costs what they cost.
    """

    def __init__(
        self,
        model: InferenceLLaMA,
        rows: int,
        max_new_tokens: int,
        max_seq_len: int,
        *,
        check_every: int | None = None,
    ):
        self.model, self.max_new_tokens = model, max_new_tokens
        with torch.inference_mode():
            self._batch = reserve(model, rows, max_new_tokens, max_seq_len, SamplingParams(do_sample=True))
        self._view: DecodeBatch | None = None
        self._host = HostBatch(rows)
        self._requests: dict[int, RowRequest] = {}  # of rows
        self.waiting: deque[tuple[int, RowRequest]] = deque()
        self.check_every = check_every or (1 if model.on_cpu else 8)
        self.occupancy = Occupancy()

    @property
    def running(self) -> int:
        """Requests in rows."""
        return len(self._requests)

    def add(self, key: int, request: RowRequest, *, first: bool = False) -> None:
        """Put a request in line, at its head if `first`. ``ValueError`` if no row has room for it."""
        if request.limit > self.max_new_tokens or request.positions > self._batch.max_seq_len:
            raise ValueError(
                f"{request.positions} positions, {request.limit} of them codes, do not fit into a row, which has "
                f"{self._batch.max_seq_len}, {self.max_new_tokens} of them for codes; shorten text or motion"
            )
        if request.sampling.is_guided and request.no_text is None:
            raise ValueError("guidance_scale needs the features of an empty text: RowRequest(no_text=...)")
        if first:
            self.waiting.appendleft((key, request))
        else:
            self.waiting.append((key, request))

    def cancel(self, key: int) -> None:
        """Drop a request, wherever it is; its row is free for the next step."""
        if key in self._requests:
            self._free([self._host.prompts.index(key)])
        else:
            self.waiting = deque(item for item in self.waiting if item[0] != key)

    def clear(self) -> None:
        """Drop everything, as after an error."""
        self.waiting.clear()
        self._free([row for row, key in enumerate(self._host.prompts) if key is not None])

    def shares(self) -> dict[int, float]:
        """How far each row is, from 0 to 1 of its limit."""
        steps = zip(self._host.prompts, self._host.steps, strict=True)
        return {key: min(1.0, done / self._requests[key].limit) for key, done in steps if key is not None}

    @torch.inference_mode()
    def step(self) -> list[RowProgress]:
        """Fill free rows, decode `check_every` codes; what is done, and the codes of watched rows now and then."""
        changed = self._fill() | (self.model.on_cpu and compact(self._batch, self._host))
        if not self._requests:
            return []
        if changed or self._view is None:
            self._view = self._look()
        view = self._view
        for _ in range(self.check_every):
            bound = self._host.advance(view.max_seq_len)
            if self.model.on_cpu or view.groups:
                view.step(bound)
            else:
                view.replay(bound)
        self.occupancy.computed += self.check_every * len(view)
        self.occupancy.steps += self.check_every
        return self._report(view)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Prefill what waits into free rows; whether there was any."""
        free, device = deque(self._host.free), self.model.device
        filled = False
        while free and self.waiting:
            coming = self._next(min(len(free), PREFILLED))
            texts = pad_sequence([request.features for _, request in coming], batch_first=True).to(device)
            lengths = torch.tensor([len(request.features) for _, request in coming], device=device)
            mask = torch.arange(texts.shape[1], device=device)[None] < lengths[:, None]
            context = [list(request.context) for _, request in coming]
            prefix = self.model.prefill(texts, mask, torch.tensor(context, device=device) if context[0] else None)
            self.occupancy.prefills += 1
            rows = [free.popleft() for _ in coming]
            limits, floors = [r.limit for _, r in coming], [r.floor for _, r in coming]
            numbers = torch.tensor([rows, list(range(len(rows))), limits, floors], device=device)
            draws = [torch.zeros(1).double() if r.uniforms is None else r.uniforms for _, r in coming]
            uniforms = pad_sequence(draws, batch_first=True).to(device)
            guiding = self._guiding([request for _, request in coming], context[0])
            self._batch.fill(numbers[0], prefix, numbers[1], numbers[2], numbers[3], uniforms, *guiding)
            for row, (key, request) in zip(rows, coming, strict=True):
                self._host.fill(row, key, prefix.width - 1)  # the first step repeats the last position
                self._requests[key] = request
            filled = True
        return filled

    def _guiding(self, requests: list[RowRequest], context: list[int]) -> tuple[Prefix | None, Tensor | None]:
        """The empty text, with the codes that a request continues, and each request's scale; nothing if none is
        guided."""
        empty = next((request.no_text for request in requests if request.sampling.is_guided), None)
        if empty is None:
            return None, None
        device = self.model.device
        self._batch.add_guidance()
        mask = torch.ones(1, len(empty), dtype=torch.bool, device=device)
        codes = torch.tensor([context], device=device) if context else None
        scales = [request.sampling.guidance_scale if request.sampling.is_guided else 1.0 for request in requests]
        return self.model.prefill(empty[None].to(device), mask, codes), torch.tensor(scales, device=device)

    def _next(self, most: int) -> list[tuple[int, RowRequest]]:
        """Those that are prefilled together: texts without codes, or one that continues some."""
        taken = [self.waiting.popleft()]
        while not taken[0][1].context and self.waiting and len(taken) < most and not self.waiting[0][1].context:
            taken.append(self.waiting.popleft())
        return taken

    def _look(self) -> DecodeBatch:
        """The rows that a step computes, and how each chooses."""
        used = 1 + max((row for row, key in enumerate(self._host.prompts) if key is not None), default=0)
        if not self.model.on_cpu:  # powers of two, so that few graphs serve all numbers of rows
            used = min(len(self._host), max(1 << (used - 1).bit_length(), SMALLEST))
        view = self._batch.first(used)
        if not any(request.sampling.is_guided for request in self._requests.values()):
            view.guidance = None
        kinds: dict[SamplingParams, list[int]] = {}
        for row, key in enumerate(self._host.prompts):
            if key is not None:
                kinds.setdefault(_choosing(self._requests[key].sampling), []).append(row)
        view.params, view.groups = next(iter(kinds), SamplingParams()), []
        if len(kinds) > 1:
            device = self.model.device
            view.groups = [(params, torch.tensor(rows, device=device)) for params, rows in kinds.items()]
        return view

    def _report(self, view: DecodeBatch) -> list[RowProgress]:
        done = view.status()
        told = []
        for row, key in enumerate(self._host.prompts):
            if key is None:
                continue
            request, steps = self._requests[key], self._host.steps[row]
            if done[row] or (request.watched and steps % REPORTED < self.check_every):
                told.append((row, key))
        self._host.check_ends(lambda key: self._requests[key].limit, 2 * self.check_every, self.model.device)
        if not told:
            return []
        results = view.results(torch.tensor([row for row, _ in told], device=self.model.device))
        out = [
            RowProgress(key, codes.clone(), done[row], ended)
            for (row, key), (codes, ended) in zip(told, results, strict=True)
        ]
        self.occupancy.useful += sum(len(made.codes) + made.ended for made in out if made.done)
        self._free([row for row, _ in told if done[row]])
        return out

    def _free(self, rows: list[int]) -> None:
        if not rows:
            return
        with torch.inference_mode():
            self._batch.release(torch.tensor(rows, device=self.model.device))
        for row in rows:
            key = self._host.prompts[row]
            assert key is not None
            del self._requests[key]
            self._host.free_row(row)
        self._view = None


def _choosing(sampling: SamplingParams) -> SamplingParams:
    """Only what changes how a code is chosen, so that rows that choose alike are one group."""
    plain = replace(sampling, min_new_tokens=0, guidance_scale=None)  # each row has its own scale
    return plain if sampling.do_sample else SamplingParams()
