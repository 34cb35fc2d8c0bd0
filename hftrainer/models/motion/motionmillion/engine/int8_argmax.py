"""The likeliest of 64,000 codes without 64,000 exact logits.

Greedy decoding needs the arg-max of W x and nothing else of it. A product in 8-bit integers reads a quarter of the
bytes and multiplies several times as fast; what it can be off by is known. With W' and x' as they are after rounding,

    | w_v x - w'_v x' |  <=  |w_v - w'_v| |x|  +  |w'_v| |x - x'|        (Cauchy-Schwarz)

so that only ids whose rounded logit comes within twice the largest such bound of the best one can be the arg-max. There
are some dozens of them, and these are computed in float32: the choice is that of the exact product.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 64  # ids whose rounded logits are first looked at together, by their maximum
_MOST = 192  # blocks a row, on average, beyond which the exact product is the faster way
_FEW = 16  # rows up to which a second row of what rounding left over costs next to nothing
_SLACK = 1.0001  # float32 rounds in computing the bound, too
_LEVELS = 127.0


def can_use_int8(weight: Tensor) -> bool:
    """Whether the processor multiplies 8-bit integers without saturating (VNNI), and torch has oneDNN to do so."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    on_cpu = weight.device.type == "cpu"
    return on_cpu and has_onednn and torch.cpu._is_vnni_supported() and hasattr(torch.ops.onednn, "qlinear_pointwise")


class Int8ArgMax:
    """Arg-max of `weight` (v, d) times hidden states, from an 8-bit copy; the last id is END."""

    def __init__(self, weight: Tensor):
        self.weight, self.ids = weight.detach(), len(weight)
        scales, codes, off, norm = [], [], 0.0, 0.0
        for part in torch.split(self.weight, 2**13):  # never a second copy in float32
            exact = part.float()
            scale = exact.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / _LEVELS
            rounded = (exact / scale).round()
            off = max(off, float((exact - rounded * scale).norm(dim=1).max()))
            norm = max(norm, float((rounded * scale).norm(dim=1).max()))
            scales.append(scale[:, 0])
            codes.append(rounded.to(torch.int8))
        missing = -self.ids % _BLOCK
        self.scales = torch.nn.functional.pad(torch.cat(scales), (0, missing), value=1.0)
        self.zeros = torch.zeros(len(self.scales), dtype=torch.long)
        self.packed = torch.ops.onednn.qlinear_prepack(
            torch.nn.functional.pad(torch.cat(codes), (0, 0, 0, missing)), None
        )
        self.off, self.norm = off, norm
        self.found = self.missed = 0

    @property
    def is_worthwhile(self) -> bool:
        """Whether it mostly finds the best id; weights may be such that too many ids come close."""
        return self.missed <= self.found + 8

    def best(self, x: Tensor, may_end: Tensor | None = None) -> Tensor | None:
        """Ids (b,) for hidden states (b, d) in float32; END only in rows where `may_end` (b,), by default in all.

        None where too many ids come close to the best, or numbers are not finite; then the exact product is needed.
        """
        ids = self._best(x, may_end)
        self.found, self.missed = self.found + (ids is not None), self.missed + (ids is None)
        return ids

    def _best(self, x: Tensor, may_end: Tensor | None) -> Tensor | None:
        scores, bound = self._rounded(x)
        scores[:, self.ids :] = -torch.inf
        if may_end is not None:
            scores[:, self.ids - 1].masked_fill_(~may_end, -torch.inf)
        blocks = scores.view(len(x), -1, _BLOCK)
        tops = blocks.amax(dim=-1)
        least = tops.amax(dim=-1) - 2 * bound
        row, block = (tops >= least[:, None]).nonzero(as_tuple=True)
        if len(row) > _MOST * len(x):
            return None
        place, offset = (blocks[row, block] >= least[row, None]).nonzero(as_tuple=True)
        row, candidate = row[place], block[place] * _BLOCK + offset
        weights = self.weight.index_select(0, candidate).to(x.dtype)
        counts = torch.bincount(row, minlength=len(x)).tolist()  # candidates stand in the order of their rows
        exact = torch.cat([part @ state for part, state in zip(torch.split(weights, counts), x, strict=True)])
        return self._first_best(row, candidate, self._settle_ties(row, exact, weights, x), len(x))

    def _settle_ties(self, row: Tensor, exact: Tensor, weights: Tensor, x: Tensor) -> Tensor:
        """`exact`, with float64 products where rounding decides; smaller ones of those rows are -inf.

        Matrix products round by where a row of the matrix stands, so that equal rows may differ; a sum of one row's
        products does not, and the first of equals wins on every processor.
        """
        slack = x.shape[1] * 2.0**-23 * (self.norm + self.off) * torch.linalg.vector_norm(x, dim=-1)
        best = exact.new_full((len(x),), -torch.inf).scatter_reduce_(0, row, exact, "amax")
        close = (exact >= (best - slack)[row]).nonzero()[:, 0]
        if len(close) == len(x):
            return exact
        settled = torch.full_like(exact, -torch.inf, dtype=torch.float64)
        settled[close] = (weights[close].double() * x[row[close]].double()).sum(dim=-1)
        return settled

    def _rounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, ids and padding) of what is rounded, and how far each row's can be off (b,); both in units of the
        step that the row of x is rounded by."""
        scaled = x * (_LEVELS / x.abs().amax(dim=-1, keepdim=True))
        rounded = scaled.round()
        left = scaled - rounded
        if len(x) > _FEW:
            scores = self._multiply(rounded)
        else:  # what is left of x, at most half a step, in steps 254 times as fine
            fine = (left * (2 * _LEVELS)).round()
            scores, more = self._multiply(torch.cat([rounded, fine])).chunk(2)
            scores.add_(more, alpha=1 / (2 * _LEVELS))
            left = left - fine / (2 * _LEVELS)
        off = self.off * torch.linalg.vector_norm(scaled, dim=-1) + self.norm * torch.linalg.vector_norm(left, dim=-1)
        return scores, off * _SLACK

    def _multiply(self, integers: Tensor) -> Tensor:
        """Integers (b, d) from -127 to 127 times the rounded weights, (b, ids and padding)."""
        return torch.ops.onednn.qlinear_pointwise(  # type: ignore[no-any-return]
            (integers + 128).to(torch.uint8), 1.0, 128, self.packed, self.scales, self.zeros, None, 1.0, 0,
            torch.float32, "none", [], "",
        )  # fmt: skip

    def _first_best(self, row: Tensor, candidate: Tensor, exact: Tensor, rows: int) -> Tensor | None:
        """The first of the best candidates of each row; None if a row has none, as one that is not a number."""
        best = exact.new_full((rows,), -torch.inf).scatter_reduce_(0, row, exact, "amax")
        winner = exact == best[row]
        ids = candidate.new_full((rows,), self.ids).scatter_reduce_(0, row[winner], candidate[winner], "amin")
        return None if int(ids.max()) == self.ids else ids
