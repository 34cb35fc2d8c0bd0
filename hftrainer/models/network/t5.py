"""The encoder of T5 (Raffel et al., JMLR 2020), and of T5 v1.1, whose feed-forward layers are gated (Shazeer 2020).

Tensors have the names of the published files. The arithmetic is that of transformers' ``T5EncoderModel``, operation by
operation, so that features, dropout and gradients are the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gelu_new(x: Tensor) -> Tensor:
    """The tanh form of GELU (Hendrycks and Gimpel 2016, section 2), rounded where T5 v1.1's features were."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "swish": F.silu,
}
_UNSEEN = torch.finfo(torch.bfloat16).min  # finite under autocast, too: a row without any token stays free of NaN
_COUNTS = (
    "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_num_buckets",
    "relative_attention_max_distance",
)  # fmt: skip


@dataclass(frozen=True)
class T5Sizes:
    """What a T5's config.json says of its encoder, under the names and with the defaults that it has there.

    `d_kv`: channels of a head. Relative positions (in tokens) fall into `relative_attention_num_buckets`, half of them
    for either direction, the last of them from `relative_attention_max_distance` on. `feed_forward_proj`: "relu" or
    another of `ACTIVATIONS`, "gated-" before it for two projections; "gated-gelu" is gated gelu_new. Raises
    ``ValueError`` for what is not computed here.
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("dropout_rate", "layer_norm_epsilon", "initializer_factor"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
        if self.dropout_rate >= 1:
            raise ValueError(f"dropout_rate must be below 1, got {self.dropout_rate}")
        exact = self.relative_attention_num_buckets // 4  # distances with a bucket of their own, either way
        if exact < 1 or self.relative_attention_max_distance <= exact:
            raise ValueError(
                "relative positions need at least 4 buckets and a largest distance above a quarter of their number, "
                f"got {self.relative_attention_num_buckets} and {self.relative_attention_max_distance}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"feed_forward_proj is {self.feed_forward_proj!r}; known: {', '.join(ACTIVATIONS)}, or gated-..."
            )

    @property
    def gated(self) -> bool:
        """Whether feed-forward layers have two projections, one of which gates the other."""
        return str(self.feed_forward_proj).startswith("gated-")

    @property
    def activation(self) -> str:
        """The name of the activation."""
        name = str(self.feed_forward_proj).removeprefix("gated-")
        return "gelu_new" if self.gated and name == "gelu" else name


class T5Encoder(nn.Module):
    """Ids to hidden states; `config` is its `T5Sizes`."""

    def __init__(self, config: T5Sizes):
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = _Stack(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.shared.weight.device

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Hidden states (b, n, d_model) of ids (b, n). `mask` (b, n) is False where a row has no token: no other
        position sees it."""
        bias = self.encoder.position_bias(ids.shape[1])
        if mask is not None:
            bias = torch.where(mask.bool()[:, None, None, :], bias, _UNSEEN)
        x = F.dropout(self.shared(ids), self.config.dropout_rate, self.training)
        hidden: Tensor = self.encoder(x, bias.contiguous())
        return hidden

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """First values as T5's authors drew them (Mesh TensorFlow), which the unscaled attention needs."""
        c = self.config
        spread = {
            "q": (c.d_model * c.d_kv) ** -0.5, "k": c.d_model**-0.5, "v": c.d_model**-0.5,
            "o": (c.num_heads * c.d_kv) ** -0.5, "wo": c.d_ff**-0.5, "relative_attention_bias": c.d_model**-0.5,
            "wi": c.d_model**-0.5, "wi_0": c.d_model**-0.5, "wi_1": c.d_model**-0.5, "shared": 1.0,
        }  # fmt: skip
        for name, tensor in self.named_parameters():
            part = name.split(".")[-2]
            if part.endswith("layer_norm"):
                nn.init.constant_(tensor, c.initializer_factor)
            else:
                nn.init.normal_(tensor, std=c.initializer_factor * spread[part])


class _Stack(nn.Module):
    def __init__(self, config: T5Sizes):
        super().__init__()
        self.config = config
        self.block = nn.ModuleList(_Block(config, first=i == 0) for i in range(config.num_layers))
        self.final_layer_norm = T5Norm(config)

    def position_bias(self, length: int) -> Tensor:
        """What the first block adds to the attention of all of them, (1, heads, n, n)."""
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias  # type: ignore[index,union-attr]
        buckets = relative_buckets(
            length, self.config.relative_attention_num_buckets, self.config.relative_attention_max_distance,
            device=table.weight.device,  # type: ignore[union-attr]
        )  # fmt: skip
        return table(buckets).permute(2, 0, 1)[None]  # type: ignore[operator,no-any-return]

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        for block in self.block:
            x = block(x, bias)
        return F.dropout(self.final_layer_norm(x), self.config.dropout_rate, self.training)


class _Block(nn.Module):
    def __init__(self, config: T5Sizes, *, first: bool):
        super().__init__()
        self.layer = nn.ModuleList([_AttentionLayer(config, first=first), _FeedForwardLayer(config)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        attention, feed_forward = self.layer
        return feed_forward(attention(x, bias))  # type: ignore[no-any-return]


class _AttentionLayer(nn.Module):
    def __init__(self, config: T5Sizes, *, first: bool):
        super().__init__()
        self.dropout_rate = config.dropout_rate
        self.SelfAttention = T5Attention(config, first=first)
        self.layer_norm = T5Norm(config)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + F.dropout(self.SelfAttention(self.layer_norm(x), bias), self.dropout_rate, self.training)


class _FeedForwardLayer(nn.Module):
    def __init__(self, config: T5Sizes):
        super().__init__()
        self.dropout_rate = config.dropout_rate
        self.DenseReluDense = T5FeedForward(config)
        self.layer_norm = T5Norm(config)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.dropout(self.DenseReluDense(self.layer_norm(x)), self.dropout_rate, self.training)


class T5Attention(nn.Module):
    """Self-attention without scaling: the spread of the first queries stands for it."""

    def __init__(self, config: T5Sizes, *, first: bool):
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.heads, self.dropout_rate = config.num_heads, config.dropout_rate
        self.q, self.k, self.v = (nn.Linear(config.d_model, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if first:
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(b, n, d) to (b, n, d); `bias` (1 or b, heads, n, n) is added to the products of queries and keys."""
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        rate = self.dropout_rate if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=rate, scale=1.0)
        return self.o(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class T5FeedForward(nn.Module):
    """Two matrices with an activation between them, or three where it is gated."""

    def __init__(self, config: T5Sizes):
        super().__init__()
        self.gated, self.dropout_rate = config.gated, config.dropout_rate
        self.act = ACTIVATIONS[config.activation]
        if config.gated:
            self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
            self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        else:
            self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, d) to (b, n, d)."""
        hidden = self.act(self.wi_0(x)) * self.wi_1(x) if self.gated else self.act(self.wi(x))
        return self.wo(F.dropout(hidden, self.dropout_rate, self.training))  # type: ignore[no-any-return]


class T5Norm(nn.Module):
    """Root mean square norm (Zhang and Sennrich 2019); the mean square is float32 whatever the weights are."""

    def __init__(self, config: T5Sizes):
        super().__init__()
        self.epsilon = config.layer_norm_epsilon
        self.weight = nn.Parameter(torch.ones(config.d_model))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) to (..., d)."""
        square = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        x = x * torch.rsqrt(square + self.epsilon)
        half = self.weight.dtype in (torch.bfloat16, torch.float16)
        return self.weight * (x.to(self.weight.dtype) if half else x)


def relative_buckets(length: int, buckets: int, max_distance: int, *, device: torch.device | None = None) -> Tensor:
    """The bucket (n, n) of each key's distance from each query (Raffel et al., section 2.1).

    Half of the buckets are for keys behind, the others for keys ahead. The first half of either have one distance each,
    the rest grow with its logarithm, and the last holds everything from `max_distance` tokens on.
    """
    place = torch.arange(length, device=device)
    distance = place[None, :] - place[:, None]
    one_way = buckets // 2
    exact = one_way // 2
    far = distance.abs()
    # in float32, in which the published weights were trained
    share = torch.log(far.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    grown = (exact + (share * (one_way - exact)).long()).clamp(max=one_way - 1)
    return torch.where(far < exact, far, grown) + one_way * (distance > 0)
