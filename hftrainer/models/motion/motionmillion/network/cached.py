"""The transformer laid out for decoding: a key-value cache, one step a token, weights packed where that pays.

The same function as `LLaMAHF.forward`, computed on what is new alone. Row i keeps its text in slots 0 .. n_i - 1 of the
cache and its motion right behind, so that slot and position are one number; text sees all text only while it is
prefilled, afterwards every position simply sees what is cached.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hftrainer.models.motion.motionmillion.network.cache import KVCache, Span, live_spans
from hftrainer.models.motion.motionmillion.network.choosing import best_ids
from hftrainer.models.motion.motionmillion.network.packing import pack_linear, packable, pad_heads, unpacked_linear
from hftrainer.models.motion.motionmillion.network.rope import rope_table
from hftrainer.models.motion.motionmillion.network.screening import ScreenedHead, can_screen

if TYPE_CHECKING:
    from hftrainer.models.motion.motionmillion.network.llama import Block, LLaMAHF

Linear = Callable[[Tensor], Tensor]
_PACKED_LIMIT = 2**31
_EPSILON = 1e-5
_EPSILON_TENSOR = torch.tensor(_EPSILON, dtype=torch.float64)
_EXACT = (torch.float32, torch.float64)
_REFINED = 16  # ids whose bfloat16 logits are computed again in float32: rounding ties the best few, not more


class Prefix(NamedTuple):
    """Texts that have been run: keys and values of every position, the input vectors (r, d) of the last ones, whose
    outputs choose the first codes, and numbers of positions (r,)."""

    cache: KVCache
    last: Tensor
    lengths: Tensor


class _Layer(NamedTuple):
    norm_1: Tensor
    qkv: Linear
    out: Linear
    norm_2: Tensor
    gate_up: Callable[[Tensor], tuple[Tensor, Tensor]]
    down: Linear


class CachedLLaMA:
    """Prefill and decode steps of `model`.

    `pack` allows second copies of the weights: in layouts that CPUs multiply fast (`packing`), the head in 8 bits
    (`screening`), gate and up projections fused and, where `head_multiple` asks for it, heads padded with zeros (exact;
    attention kernels of GPUs want head sizes of a multiple of 8 or 16). Without it the model's own modules run,
    whatever they are.
    """

    def __init__(self, model: LLaMAHF, *, pack: bool = False, head_multiple: int = 1):
        self.config, self.packed = model.config, pack
        # the parts and not the model itself, so that `cached_for` keeps no model alive
        self.transformer, self.text_projection, self.lm_head = model.transformer, model.llama_proj, model.lm_head
        self.scale = self.config.head_size**-0.5
        self.head_size = -(-self.config.head_size // head_multiple) * head_multiple if pack else self.config.head_size
        self.layers = [self._lay_out(block) for block in model.transformer.blocks()]
        self._head = unpacked_linear(self.lm_head)
        self._tables: dict[torch.device, Tensor] = {}

    def new_cache(self, rows: int, slots: int) -> KVCache:
        """Room for `rows` rows of up to `slots` positions."""
        c = self.config
        c.check_length(slots)
        return KVCache(c.n_layer, rows, c.n_head, slots, self.head_size, self.transformer.wte.weight)

    def embed(self, ids: Tensor) -> Tensor:
        """Input vectors (b, d) of codes (b,)."""
        return self.transformer.wte(ids)  # type: ignore[no-any-return]

    def prefill(self, text_features: Tensor, text_mask: Tensor) -> Prefix:
        """Run texts (r, n, clip_dim), right-padded. The first `decode` of a row repeats its last position, so that one
        head serves rows that begin and rows that go on; here no layer computes what only the head would read."""
        text_mask = text_mask.bool()
        rows, width = text_mask.shape
        x = self.text_projection(text_features.to(self.transformer.wte.weight.dtype))
        lengths = text_mask.sum(dim=1)
        last = x[torch.arange(rows, device=x.device), lengths - 1]
        mask = text_mask[:, None, None, :]  # text sees its row's text, whole; padding is seen by none
        turn = self._table(x.device)[:width, None, None]
        cache = self.new_cache(rows, width)
        for i, layer in enumerate(self.layers):
            qkv = self._qkv(x, layer, turn)
            cache.blocks[i] = qkv[:, 1:]
            if i + 1 < len(self.layers):
                q, k, v = qkv.unbind(dim=1)
                out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
                x = self._after_attention(x, layer, out)
        return Prefix(cache, last, lengths)

    def decode(self, inputs: Tensor, positions: Tensor, cache: KVCache, live: int) -> Tensor:
        """Append one input vector a row (b, d) at `positions` (b,); last hidden states (b, d), from which `best` or
        `logits` say what comes next.

        `live` > every position; a CPU looks at the positions and reads no more slots than groups of rows have.
        """
        x = inputs[:, None]
        turn = self._table(x.device)[positions][:, None, None, None]
        every, kind = torch.arange(len(inputs), device=x.device), cache.blocks.dtype
        spans = live_spans(positions.tolist()) if x.device.type == "cpu" else [Span(0, len(inputs), live, even=False)]
        masks = [self._seen(positions[s.start : s.stop], s.live, kind) if not s.even else None for s in spans]
        together = len(spans) == 1 and spans[0].even

        for i, layer in enumerate(self.layers):
            qkv = self._qkv(x, layer, turn)
            block, new = cache.blocks[i], qkv[:, 1:, :, 0].to(kind)
            if together:
                block[:, :, :, spans[0].live - 1] = new
            else:
                block[every, :, :, positions] = new
            q = qkv[:, 0].to(kind)
            parts = []
            for (start, stop, slots, _), mask in zip(spans, masks, strict=True):
                k, v = block[start:stop, :, :, :slots].unbind(dim=1)
                part = F.scaled_dot_product_attention(q[start:stop], k, v, attn_mask=mask, scale=self.scale)
                parts.append(part)
            out = parts[0] if len(parts) == 1 else torch.cat(parts)
            x = self._after_attention(x, layer, out.to(qkv.dtype))
        return x[:, 0]

    def best(self, hidden: Tensor, may_end: Tensor | None = None) -> Tensor:
        """Ids (b,) of the largest logits of hidden states (b, d); END only in rows where `may_end` (b,)."""
        if self.screens:
            assert self._screen is not None
            ids = self._screen.best(self.transformer.ln_f(hidden).float(), may_end)
            if ids is not None:
                return ids
        return best_ids(self.logits(hidden, may_end))

    @property
    def screens(self) -> bool:
        """Whether `best` reads an 8-bit copy of the head instead of the head."""
        return self._screen is not None and self._screen.pays

    def logits(self, hidden: Tensor, may_end: Tensor | None = None) -> Tensor:
        """Float32 logits (b, v - 1) of last hidden states (b, d); float64 for a float64 model. END's are -inf in rows
        that may not end.

        Rounded to bfloat16, one step in twenty has two best ids; so the head's output is kept in float32 where the
        device can (packed, CUDA), and else the best few are computed again.
        """
        logits = self._all_logits(self.transformer.ln_f(hidden))
        if may_end is not None:
            logits[:, self.config.end_id].masked_fill_(~may_end, -torch.inf)
        return logits

    # --- inside -----------------------------------------------------------------------------------------------------

    def _all_logits(self, x: Tensor) -> Tensor:
        if self.packed and x.device.type == "cpu":
            return self._packed_head(x.float())
        if x.dtype == torch.bfloat16 and x.is_cuda and packable(self.lm_head):
            return torch.mm(x, self._head_rows.T, out_dtype=torch.float32)
        logits: Tensor = self._head(x)[:, : self.config.vocab_size - 1]
        if x.dtype != torch.bfloat16 or not packable(self.lm_head):
            return logits if logits.dtype == torch.float64 else logits.float()
        logits = logits.float()
        best = logits.topk(min(_REFINED, logits.shape[1]), dim=-1).indices
        exact = (self.lm_head.weight[best].float() @ x.float()[:, :, None])[..., 0]
        return logits.scatter(1, best, exact)

    @cached_property
    def _packed_head(self) -> Linear:
        return pack_linear(self._head_rows.float())

    @cached_property
    def _screen(self) -> ScreenedHead | None:
        """Where weights may be copied; made when a best id is first asked for."""
        return ScreenedHead(self._head_rows) if self.packed and can_screen(self.lm_head.weight) else None

    @property
    def _head_rows(self) -> Tensor:
        return self.lm_head.weight[: self.config.vocab_size - 1]  # a tied table has a row for PAD

    def _seen(self, positions: Tensor, live: int, dtype: torch.dtype) -> Tensor:
        """Which of `live` slots each row sees, as attention wants it."""
        seen = (torch.arange(live, device=positions.device)[None] <= positions[:, None])[:, None, None]
        if positions.device.type != "cpu":
            return seen
        # what attention would make of it, once and not in every layer
        return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)

    def _qkv(self, x: Tensor, layer: _Layer, turn: Tensor) -> Tensor:
        """Queries, keys and values (b, 3, heads, t, head_size) of x (b, t, d), the first two turned."""
        rows, width, _ = x.shape
        qkv = layer.qkv(_rms(x, layer.norm_1)).view(rows, width, 3, self.config.n_head, self.head_size)
        return _turn(qkv, turn).permute(0, 2, 3, 1, 4)

    def _after_attention(self, x: Tensor, layer: _Layer, out: Tensor) -> Tensor:
        """The block's output, from its input x (b, t, d) and what attention gave (b, heads, t, head_size)."""
        rows, width, _ = x.shape
        x = layer.out(out.transpose(1, 2).reshape(rows, width, -1)).add_(x)
        gate, up = layer.gate_up(_rms(x, layer.norm_2))
        return layer.down(F.silu(gate).mul_(up)).add_(x)

    def _table(self, device: torch.device) -> Tensor:
        """e^(i angle) (positions, head_size / 2), complex; a padded channel pair is not turned."""
        if device not in self._tables:
            c = self.config
            table = torch.view_as_complex(rope_table(c.block_size, c.head_size, c.rope_dtype, device))
            self._tables[device] = F.pad(table, (0, (self.head_size - c.head_size) // 2), value=1.0)
        return self._tables[device]

    def _lay_out(self, block: Block) -> _Layer:
        attn, mlp = block.attn, block.mlp
        norms = block.rms_1.scale, block.rms_2.scale
        if not self.packed:
            plain = [unpacked_linear(part) for part in (attn.c_attn, attn.c_proj, mlp.c_fc1, mlp.c_fc2, mlp.c_proj)]

            def apart(x: Tensor) -> tuple[Tensor, Tensor]:
                return plain[2](x), plain[3](x)

            return _Layer(norms[0], plain[0], plain[1], norms[1], apart, plain[4])

        qkv, out = pad_heads(attn.c_attn.weight, attn.c_proj.weight, self.config.n_head, self.head_size)
        both = pack_linear(torch.cat([mlp.c_fc1.weight, mlp.c_fc2.weight]))

        def fused(x: Tensor) -> tuple[Tensor, Tensor]:
            gate, up = both(x).chunk(2, dim=-1)
            return gate, up

        return _Layer(norms[0], pack_linear(qkv), pack_linear(out), norms[1], fused, pack_linear(mlp.c_proj.weight))


_READY: WeakKeyDictionary[LLaMAHF, tuple[object, CachedLLaMA]] = WeakKeyDictionary()


def cached_for(model: LLaMAHF, pack: bool | None = None) -> CachedLLaMA:
    """A `CachedLLaMA` of a model, the same one until its weights change.

    By default weights are packed on CPUs if the second copy is small (2 GiB), and on GPUs if it fits
    into half of what is free; a model that fills the memory is never copied.
    """
    weights = list(model.parameters())
    if pack is None:
        size = sum(w.numel() * w.element_size() for w in weights)
        room = _PACKED_LIMIT
        if weights[0].is_cuda:
            room = torch.cuda.mem_get_info(weights[0].device)[0] // 2
        pack = size <= room and can_pack(model)
    state = (pack, [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights])
    known = _READY.get(model)
    if known is None or known[0] != state:
        known = _READY[model] = (state, CachedLLaMA(model, pack=pack, head_multiple=8 if weights[0].is_cuda else 1))
    return known[1]


def can_pack(model: nn.Module) -> bool:
    """Whether every linear layer of a model is a plain one, of a dtype that packing helps."""
    return all(packable(module) for module in model.modules() if isinstance(module, nn.Linear))


def _rms(x: Tensor, scale: Tensor) -> Tensor:
    if x.dtype in _EXACT:
        if x.device.type != "cpu":
            return F.rms_norm(x, scale.shape, scale, _EPSILON)
        # the same function; torch's own is eight operations on a CPU
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * torch.addcmul(_EPSILON_TENSOR, norm, norm, value=1 / x.shape[-1]).rsqrt_()).mul_(scale)
    # in bfloat16 torch's own does not round where the released model does
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + _EPSILON) * scale


def _turn(qkv: Tensor, turn: Tensor) -> Tensor:
    """Rotate queries and keys of qkv (b, t, 3, heads, head_size) by complex `turn`, broadcast to them; in place if the
    arithmetic is that of qkv."""
    if qkv.dtype in _EXACT:
        torch.view_as_complex(qkv.view(*qkv.shape[:-1], -1, 2))[:, :, :2].mul_(turn)
        return qkv
    both = qkv[:, :, :2]
    pairs = torch.view_as_complex(both.float().reshape(*both.shape[:-1], -1, 2))
    return torch.cat([torch.view_as_real(pairs * turn).flatten(-2).to(qkv.dtype), qkv[:, :, 2:]], dim=2)
