"""The transformer as decoding runs it: texts into a cache, one step a code, and the choice of the best id."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hftrainer.models.motion.motionmillion.engine.cuda_graphs import KV_MULTIPLE
from hftrainer.models.motion.motionmillion.engine.fast_linear import is_plain, prepack_linear, unpacked_linear
from hftrainer.models.motion.motionmillion.engine.int8_argmax import Int8ArgMax, can_use_int8
from hftrainer.models.motion.motionmillion.engine.prepare import Product, can_prepack, fast_transformer
from hftrainer.models.motion.motionmillion.engine.row_groups import RowGroups
from hftrainer.models.motion.motionmillion.engine.row_lengths import FROM, RowLengths, find_kernel
from hftrainer.models.motion.motionmillion.network.attention import Reads, additive, padded_head
from hftrainer.models.motion.motionmillion.network.kv_cache import KVCache, cache_dtype
from hftrainer.models.motion.motionmillion.network.llama import prefix_mask
from hftrainer.models.motion.motionmillion.network.sampler import best_ids

if TYPE_CHECKING:
    from hftrainer.models.motion.motionmillion.network.llama import LLaMAHF

_PREPACKED_ON_CPU = 2**31  # bytes of weights up to which a second copy is no matter
_REFINED = 16  # ids whose bfloat16 logits are computed again in float32: rounding ties the best few, not more


class Prefix(NamedTuple):
    """Texts that have been run: keys and values of every position, the input vectors (r, d) of the last ones, whose
    outputs choose the first codes, and numbers of positions (r,)."""

    cache: KVCache
    last: Tensor
    lengths: Tensor
    width: int  # of the longest


class InferenceLLaMA:
    """Prefill and decode steps of `model`; `prepack` as `fast_transformer` takes it, and the head in 8 bits."""

    def __init__(self, model: LLaMAHF, *, prepack: bool = False):
        self.config, self.prepacked = model.config, prepack
        self.device = model.lm_head.weight.device
        self.on_cpu = self.device.type == "cpu"
        # the parts and not the model, which holds this
        self.text_projection, self.lm_head = model.llama_proj, model.lm_head
        self.transformer = fast_transformer(model.transformer, model.config.head_size, prepack=prepack)
        self._head = unpacked_linear(self.lm_head)
        self._rotary = self._rotary_table(model.rotary(self.device))
        like, head = self.transformer.wte.weight, padded_head(self.config.head_size, self.device)
        self._lengths_kernel = find_kernel(like, self.config.n_head, head)
        self.lengths_from = FROM  # rows from which it is used; see `reads_lengths`
        self.compile_steps = model.compile_steps  # by inductor, inside graphs; see `cuda_graphs`
        self.workspace: Any = None  # on CUDA, the batch that is kept between calls; see `decode_batch.reserve`

    def new_cache(self, rows: int, max_seq_len: int) -> KVCache:
        """Room for `rows` rows of up to `max_seq_len` positions, on CUDA rounded up as a graph reads them."""
        c = self.config
        c.check_length(max_seq_len)
        return KVCache(c.n_layer, rows, c.n_head, self._slots(max_seq_len), c.head_size, self.transformer.wte.weight)

    def row_bytes(self, max_seq_len: int) -> int:
        """Bytes of the cache of one row."""
        c, like = self.config, self.transformer.wte.weight
        width = 2 * c.n_layer * c.n_head * padded_head(c.head_size, self.device)
        return width * self._slots(max_seq_len) * cache_dtype(like).itemsize

    def _slots(self, max_seq_len: int) -> int:
        return max_seq_len if self.on_cpu else -(-max_seq_len // KV_MULTIPLE) * KV_MULTIPLE

    def embed(self, ids: Tensor) -> Tensor:
        """Input vectors (b, d) of codes (b,)."""
        return self.transformer.wte(ids)  # type: ignore[no-any-return]

    def prefill(self, text_features: Tensor, text_mask: Tensor, codes: Tensor | None = None) -> Prefix:
        """Run texts (r, n, clip_dim), right-padded, and the codes (r, m) that each continues from. The first `decode`
        of a row repeats its last position, so that one head serves rows that begin and rows under way."""
        text_mask = text_mask.bool()
        x = self.text_projection(text_features.to(self.transformer.wte.weight.dtype))
        lengths = text_mask.sum(dim=1)
        if codes is None:  # text sees all text of its row; padding is seen by none
            return self._run(x, lengths, text_mask[:, None, None])
        count = codes.shape[1]
        place = torch.arange(x.shape[1] + count, device=x.device) - lengths[:, None]  # among a row's codes
        motion = self.embed(codes.gather(1, place.clamp(0, count - 1)))
        x = torch.where((place < 0)[..., None], F.pad(x, (0, 0, 0, count)), motion)
        return self._run(x, lengths + count, prefix_mask(place < 0))

    def _run(self, x: Tensor, lengths: Tensor, seen: Tensor) -> Prefix:
        rows, width, _ = x.shape
        last = x[torch.arange(rows, device=x.device), lengths - 1]
        cache = self.new_cache(rows, width)
        self.transformer(x, self._rotary[:width, None, None], additive(seen, x.dtype), cache.prefill())
        return Prefix(cache, last, lengths, width)

    def reads_lengths(self, rows: int) -> bool:
        """Whether attention over so many rows reads each as far as it goes, whatever bound `decode` is given."""
        return self._lengths_kernel is not None and rows >= self.lengths_from

    def decode(self, inputs: Tensor, positions: Tensor, cache: KVCache, kv_len_bound: int) -> Tensor:
        """Append one input vector a row (b, d) at `positions` (b,); last hidden states (b, d), from which `best` or
        `logits` say what comes next.

        `kv_len_bound` > every position: slots that are read of each row, unless the rows' own lengths are used (CPUs,
        by groups; `reads_lengths`).
        """
        mask: Tensor | Reads
        if self.on_cpu:
            mask = RowGroups(positions, cache.blocks.dtype)
            step = cache.step(positions, max(span.kv_len for span in mask.spans), even=mask.even)
        elif self._lengths_kernel is not None and self.reads_lengths(len(inputs)):
            mask = RowLengths(positions, cache.max_seq_len, self._lengths_kernel)
            step = cache.step(positions, cache.max_seq_len)
        else:
            seen = torch.arange(kv_len_bound, device=self.device) <= positions[:, None]
            mask = additive(seen[:, None, None], cache.blocks.dtype)
            step = cache.step(positions, kv_len_bound)
        rotary = self._rotary[positions][:, None, None, None]
        return self.transformer(inputs[:, None], rotary, mask, step)[:, 0]  # type: ignore[no-any-return]

    def best(self, hidden: Tensor, may_end: Tensor | None = None) -> Tensor:
        """Ids (b,) of the largest logits of hidden states (b, d); END only in rows where `may_end` (b,)."""
        if self.on_cpu and self.uses_int8:
            assert self._int8 is not None
            ids = self._int8.best(self.transformer.ln_f(hidden).float(), may_end)
            if ids is not None:
                return ids
        return best_ids(self.logits(hidden, may_end))

    @property
    def uses_int8(self) -> bool:
        """Whether `best` reads an 8-bit copy of the head instead of the head."""
        return self._int8 is not None and self._int8.is_worthwhile

    def logits(self, hidden: Tensor, may_end: Tensor | None = None) -> Tensor:
        """Float32 logits (b, v - 1) of last hidden states (b, d); float64 for a float64 model. END's are -inf in rows
        that may not end.

        Rounded to bfloat16, one step in twenty has two best ids; so the head's output is kept in float32 where the
        device can (prepacked, CUDA), and else the best few are computed again.
        """
        logits = self._all_logits(self.transformer.ln_f(hidden))
        if may_end is not None:
            logits[:, self.config.end_id].masked_fill_(~may_end, -torch.inf)
        return logits

    # --- inside -----------------------------------------------------------------------------------------------------

    def _all_logits(self, x: Tensor) -> Tensor:
        if self.prepacked and self.on_cpu:
            return self._prepacked_head(x.float())
        if x.dtype == torch.bfloat16 and x.is_cuda and is_plain(self.lm_head):
            return torch.mm(x, self._head_rows.T, out_dtype=torch.float32)
        logits: Tensor = self._head(x)[:, : self.config.vocab_size - 1]
        if x.dtype != torch.bfloat16 or not is_plain(self.lm_head):
            return logits if logits.dtype == torch.float64 else logits.float()
        logits = logits.float()
        best = logits.topk(min(_REFINED, logits.shape[1]), dim=-1).indices
        exact = (self.lm_head.weight[best].float() @ x.float()[:, :, None])[..., 0]
        return logits.scatter(1, best, exact)

    @cached_property
    def _prepacked_head(self) -> Product:
        return prepack_linear(self._head_rows.float())

    @cached_property
    def _int8(self) -> Int8ArgMax | None:
        """Where weights may be copied; made when a best id is first asked for."""
        return Int8ArgMax(self._head_rows) if self.prepacked and can_use_int8(self.lm_head.weight) else None

    @property
    def _head_rows(self) -> Tensor:
        return self.lm_head.weight[: self.config.vocab_size - 1]  # a tied table has a row for PAD

    def _rotary_table(self, rotary: Tensor) -> Tensor:
        """For heads as wide as the blocks have them: a padded channel pair is not rotated."""
        width = padded_head(self.config.head_size, self.device) if self.prepacked else self.config.head_size
        rotary = F.pad(rotary, (0, (width - self.config.head_size) // 2), value=1.0)
        return rotary if self.on_cpu else torch.view_as_real(rotary)


def inference_model(model: LLaMAHF, prepack: bool | None = None) -> InferenceLLaMA:
    """An `InferenceLLaMA` of a model, the same one until its weights change, or whether steps are compiled; training
    frees it (`LLaMAHF.train`).

    By default weights are packed on CPUs if the second copy is small (2 GiB), and on GPUs if it fits into half of what
    was free when the model was first sampled from; a model that fills the memory is never copied.
    """
    weights = list(model.parameters())
    state = [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]
    known = model.prepared
    if known is None or known[0] != (prepack, model.compile_steps, state):
        model.prepared = None  # the old copy's memory is free before the new one's is taken
        chosen = can_prepack(model) and _has_room(weights) if prepack is None else prepack
        known = model.prepared = ((prepack, model.compile_steps, state), InferenceLLaMA(model, prepack=chosen))
    inference: InferenceLLaMA = known[1]
    return inference


def free_memory(device: torch.device) -> int:
    """Bytes of a CUDA device that can be allocated, those included that torch's allocator holds unused."""
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held


def _has_room(weights: list[torch.nn.Parameter]) -> bool:
    size = sum(w.numel() * w.element_size() for w in weights)
    device = weights[0].device
    return size <= (free_memory(device) // 2 if device.type == "cuda" else _PREPACKED_ON_CPU)
