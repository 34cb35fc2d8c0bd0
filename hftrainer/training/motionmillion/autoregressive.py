"""Training the transformer to continue motion codes given text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from hftrainer.config import ConfigError, renamed
from hftrainer.data.tokens.table import TokenBatch
from hftrainer.fields import choice, number
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.rows import build_prefix_sequences
from hftrainer.models.shard_building import is_given_up
from hftrainer.registry import TASKS, Part
from hftrainer.training.fsdp import FSDP2
from hftrainer.training.lora import LoRAConfig, adapters, add_lora, merged_state, save_adapter
from hftrainer.training.released import optimizer_part
from hftrainer.training.sharding import full_state, is_sharded
from hftrainer.training.task import BatchShape, Task, compile_forward

if TYPE_CHECKING:
    from hftrainer.models.motion.motionmillion.network import LLaMAHF


RELEASED = {"lr": 4e-4, "eps": 1e-6, "weight_decay": 1e-6, "schedule": {"name": "cosine", "warmup": 12_000}}


@dataclass
class ARTaskConfig:
    """Optimizer and choices; the defaults are the release's, with its mistakes put right.

    `train_text_encoder`: the release keeps it frozen; `text_encoder_lr_scale` is its learning rate in units of the
    transformer's. `text_dtype`: features are rounded to it before they enter the transformer; the release trained on
    bfloat16 features. `text_dropout`: the share of rows that are trained on an empty text, so that the model also knows
    motions without a text. `fsq_init`: start embedding and head from the codes' own coordinates, so that codes that are
    neighbours in the tokenizer start as neighbours here (0 is upstream's independent start; the value is the share of
    variance that coordinates explain). `lora`: train a low-rank correction of the transformer of ``model.init.ar``
    instead of all of it.
    """

    optimizer: Part = optimizer_part(**RELEASED)
    train_text_encoder: bool = False
    text_encoder_lr_scale: float = number(1.0, at_least=0)
    text_dtype: str = choice("bfloat16", ["bfloat16", "float16", "float32"])
    text_dropout: float = number(0.0, at_least=0, at_most=1)
    fsq_init: float = number(0.0, at_least=0, at_most=1)
    init_std: float | None = number(None, above=0)
    lora: LoRAConfig | None = None

    @classmethod
    def upgrade(cls, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """Names of an earlier release."""
        return renamed(fields, path, {"text_encoder_rate": "text_encoder_lr_scale"})


@TASKS.register("motionmillion_ar")
class ARTask(Task):
    """Captions and codes in, next-token loss out; logs ``train/*`` and ``val/*``."""

    Config = ARTaskConfig
    bundle: MotionMillionBundle
    supports_bf16_params = True
    validates_in_shards = True
    logged = ("val/loss", "val/accuracy")

    def __init__(self, config: ARTaskConfig, *, bundle: MotionMillionBundle, source: Any):
        super().__init__(bundle, config.optimizer)
        if bundle.ar is None or bundle.text_encoder is None:
            raise ConfigError("training the transformer needs the sections model.ar and model.text_encoder")
        if config.train_text_encoder and getattr(bundle.text_encoder, "model", None) is None:
            raise ConfigError(
                f"task.train_text_encoder: {type(bundle.text_encoder).__name__} has no `model` to train; stored "
                "features (model.init.text_features) cannot be trained"
            )
        if bundle.config.init.ar is not None and (config.init_std is not None or config.fsq_init):
            raise ConfigError("task.init_std and task.fsq_init would overwrite the weights of model.init.ar")
        _check_tokens(bundle, source)
        if bundle.tokenizer_sha256 is None and source.statistics is not None:
            bundle.set_statistics(*source.statistics)  # a tokenizer of no artifact has none of its own
        self.config = config
        init_transformer(bundle, std=config.init_std, fsq_share=config.fsq_init)
        self.supports_sharding = config.lora is None and not config.train_text_encoder
        if config.lora is not None:
            if bundle.config.init.ar is None:
                raise ConfigError("task.lora needs a pretrained transformer; give one in model.init.ar")
            add_lora(bundle.ar, config.lora)
        self.freeze_the_rest()

    def trained(self) -> list[nn.Module]:
        """The transformer, or its adapters; and the text encoder if asked for."""
        parts = adapters(self.ar) if self.config.lora is not None else [self.ar]
        return [*parts, *([self.text_encoder.model] if self.config.train_text_encoder else [])]

    @property
    def ar(self) -> LLaMAHF:
        """The bundle's transformer; a second registration would be a second name for each of its tensors."""
        assert self.bundle.ar is not None
        return self.bundle.ar

    @property
    def text_encoder(self) -> Any:
        """The bundle's text encoder."""
        return self.bundle.text_encoder

    def lr_scale(self, part: nn.Module) -> float:
        """See `ARTaskConfig.text_encoder_lr_scale`."""
        of_text = self.config.train_text_encoder and part is self.text_encoder.model
        return self.config.text_encoder_lr_scale if of_text else 1.0

    def training_step(self, batch: TokenBatch, index: int) -> Tensor:
        """Loss of one batch."""
        loss, accuracy = self.loss(self._without_some_texts(batch))
        self.log_step({"loss": loss, "accuracy": accuracy}, shown=["loss"])
        return loss

    def validation_step(self, batch: TokenBatch, index: int) -> None:
        """The same on complete validation clips."""
        loss, accuracy = self.loss(batch)
        tokens = int(batch.lengths.sum()) + len(batch.captions)
        self.log_validation({"loss": loss, "accuracy": accuracy}, tokens)

    def _without_some_texts(self, batch: TokenBatch) -> TokenBatch:
        """See `ARTaskConfig.text_dropout`; draws depend on seed, step and process."""
        if not self.config.text_dropout:
            return batch
        dropped = (torch.rand(len(batch.captions)) < self.config.text_dropout).tolist()
        return batch._replace(captions=["" if no else text for text, no in zip(batch.captions, dropped, strict=True)])

    def loss(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy over codes and END, and arg-max accuracy."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_text_encoder):
            text = self.text_encoder(batch.captions)
        features = text.features.to(getattr(torch, self.config.text_dtype)).to(text.features.dtype)
        config = self.ar.config
        rows = build_prefix_sequences(batch.codes, batch.lengths, text.mask.sum(dim=1), config.end_id, config.pad_id)
        if rows.shape[1] - 1 > config.block_size:
            raise ValueError(f"a row of {rows.shape[1]} positions exceeds block_size={config.block_size}")
        return self.ar.next_token_loss(rows, features, text.mask)

    def outline_step(self, shape: BatchShape) -> Tensor:
        """The loss of a batch of the longest rows, on tensors without content; see `hftrainer.training.activations`."""
        config = self.ar.config
        with unset_fake_temporarily():  # the table is kept for every later use, which may be real
            self.ar.rotary(torch.device("cpu"))
        text = min(shape.text, config.block_size - shape.codes)
        features = torch.empty(shape.rows, text, config.clip_dim)
        rows = torch.zeros(shape.rows, text + shape.codes, dtype=torch.long)
        hidden = self.ar.hidden(rows, features, torch.ones(shape.rows, text, dtype=torch.bool))
        wanted = hidden[:, text - 1 :].reshape(-1, hidden.shape[-1])  # the positions that have a target
        logits = self.ar.head(wanted).float()
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))

    def flops_per_token(self) -> float:
        """Six operations for each parameter that is multiplied, and attention (arXiv 2204.02311, appendix B)."""
        config = self.ar.config
        table = 0 if config.tie_weights else self.ar.transformer.wte.weight.numel()
        numbers = sum(p.numel() for p in self.ar.parameters()) - table
        return 6.0 * numbers + 12.0 * config.n_layer * config.n_embd * config.block_size / 2

    # --- what `trainer` asks for --------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Under fsdp2, shard the transformer block by block."""
        strategy = self.trainer.strategy
        if isinstance(strategy, FSDP2):
            strategy.shard(*self.sharding_units(), ["next_token_loss"])

    def sharding_units(self) -> tuple[list[nn.Module], nn.Module]:
        """What is gathered one at a time, and the module that holds them."""
        return list(self.ar.transformer.blocks()), self.ar

    def checkpoint_activations(self) -> None:
        """Keep only what enters each block."""
        self.ar.transformer.checkpoint_blocks = True

    def compile_parts(self) -> None:
        """Compile the blocks: one compilation serves all of them."""
        for block in self.ar.transformer.blocks():
            compile_forward(block)

    @contextlib.contextmanager
    def inference_bundle(self, *, everywhere: bool = True) -> Iterator[MotionMillionBundle | None]:
        """See `Task.inference_bundle`. A sharded transformer, or one with adapters, is gathered into a second one."""
        mine = everywhere or self.global_rank == 0
        if self.config.lora is not None:
            state = merged_state(self.ar) if mine else {}
        elif is_sharded(self.ar):
            state = full_state(self.ar, keep=mine)
        else:
            yield self.bundle if mine else None
            return
        yield self.bundle.with_transformer(state, device=self.device if everywhere else "cpu") if mine else None

    def save_beside(self, folder: Path) -> None:
        """Only the adapter, in ``<folder>-adapter``."""
        if self.config.lora is not None:
            save_adapter(self.ar, self.config.lora, folder.with_name(f"{folder.name}-adapter"))

    def to_half(self, dtype: torch.dtype) -> None:
        """Adapters stay float32: they are small, and steps of a small rate would be lost to rounding."""
        if self.config.lora is None:
            super().to_half(dtype)
            return
        for p in self.ar.parameters():
            if not p.requires_grad:
                p.data = p.data.to(dtype)


def _check_tokens(bundle: MotionMillionBundle, source: Any) -> None:
    """Refuse tokens that this model's tokenizer did not make."""
    tokens = getattr(source, "tokens", None)
    if tokens is None:
        raise ConfigError("data: training the transformer needs captions and tokens, e.g. name: text_tokens")
    if tokens.codebook_size != bundle.vqvae.codebook_size:
        raise ConfigError(
            f"the tokens in {tokens.folder} are from a tokenizer with {tokens.codebook_size} "
            "codes, but the model's has "
            f"{bundle.vqvae.codebook_size}"
        )
    if bundle.tokenizer_sha256 is not None:
        tokens.check_tokenizer(bundle.tokenizer_sha256)


@torch.no_grad()
def init_transformer(bundle: MotionMillionBundle, *, std: float | None, fsq_share: float) -> None:
    """Fresh weights: normal with `std` (residual outputs scaled by depth) instead of torch's defaults, and tables
    whose rows share directions where codes share coordinates."""
    ar = bundle.ar
    assert ar is not None
    config = ar.config
    if is_given_up(ar) and (std is not None or fsq_share):
        raise ConfigError("task.init_std and task.fsq_init need a transformer that is not built in shards")
    if ar.lm_head.weight.is_meta:
        return  # an outline (training/dry_run.py) has no values; what was built in shards has those of its layers
    if std is not None:
        for name, p in ar.named_parameters():
            if p.ndim == 2:
                scale = std / (2 * config.n_layer) ** 0.5 if name.endswith("c_proj.weight") else std
                nn.init.normal_(p, std=scale)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
    if fsq_share:
        codes = bundle.vqvae.vqvae.quantizer.coordinates().to(ar.lm_head.weight.device)
        # products of pairs let near codes be nearer than only a linear map would make them
        pairs = torch.combinations(torch.arange(codes.shape[1]), 2)
        basis = torch.cat([codes, codes**2, codes[:, pairs[:, 0]] * codes[:, pairs[:, 1]]], dim=1)
        basis = (basis - basis.mean(dim=0)) / basis.std(dim=0)
        tables: list[Tensor] = [ar.transformer.wte.weight, ar.lm_head.weight]
        for table in {id(t): t for t in tables}.values():
            rows = table[: len(basis)]
            scale = rows.std()
            shared = basis @ torch.randn(basis.shape[1], table.shape[1]) / basis.shape[1] ** 0.5
            rows.mul_((1 - fsq_share) ** 0.5).add_(shared * scale * fsq_share**0.5)
