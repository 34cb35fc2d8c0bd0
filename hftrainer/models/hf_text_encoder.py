"""Text encoders of transformers beside T5: CLIP's, and sentence-transformers models (or any other encoder of text)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hftrainer.extras import quiet
from hftrainer.models.checkpoint import CheckpointError, open_checkpoint, tensor_hash
from hftrainer.models.text_encoder_base import (
    BaseTextEncoder,
    EncoderConfig,
    TextFeatures,
    cannot_load,
    check_list,
    check_type,
    found,
    pad_rows,
    read_raw_sizes,
    weights_of,
)
from hftrainer.models.text_sizes import clip_sizes, sentence_sizes
from hftrainer.readers import FileError, read_json
from hftrainer.registry import TEXT_ENCODERS

_POSITION_OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet")  # whose positions start behind the padding's
_HEADS = ("pooler.",)  # made for classification; no features go through them


@dataclass
class CLIPConfig(EncoderConfig):
    """`pooling`: "tokens" (every token), "eos" (the end of text), or "projected" (that in CLIP's shared space)."""

    source: str = "openai/clip-vit-base-patch32"
    max_tokens: int = 77
    pooling: str = "tokens"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_pooling(self.pooling, ("tokens", "eos", "projected"))


@dataclass
class SentenceConfig(EncoderConfig):
    """`pooling`: "tokens" (every token), "mean" (of the tokens) or "cls" (the first token)."""

    source: str = "sentence-transformers/all-MiniLM-L6-v2"
    max_tokens: int = 128
    pooling: str = "tokens"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_pooling(self.pooling, ("tokens", "mean", "cls"))


class HFTextEncoder(BaseTextEncoder):
    """An encoder whose weights transformers itself reads and writes. Long text is cut before its last special token."""

    def __init__(self, config: Any, **given: Any):
        super().__init__(config, **given)
        limit = self._longest()
        if config.max_tokens > limit:
            raise ValueError(
                f"the text encoder {config.source!r} reads {limit} tokens at most, got max_tokens={config.max_tokens}"
            )

    @classmethod
    def _reader(cls, config: Any) -> Any:
        """The class of transformers that reads the weights."""
        raise NotImplementedError

    @classmethod
    def read_model(cls, config: Any, **hub: Any) -> Any:
        """The encoder; a weight that the files do not have is an error, never a random one."""
        sizes, folder = cls.read_sizes(config, **hub), found(config.source, **hub)
        weights = weights_of(Path(folder))
        if weights is not None:
            open_checkpoint(weights)  # names a damaged file
        try:
            with quiet(), _without_bars():
                model, report = cls._reader(config).from_pretrained(
                    folder, config=sizes, dtype=getattr(torch, config.dtype), trust_remote_code=False,
                    output_loading_info=True, **hub,
                )  # fmt: skip
        except OSError as error:
            raise cannot_load(config.source, error) from error
        except RuntimeError as error:  # what transformers says of shapes is logged only
            raise CheckpointError(f"{config.source}: the weights do not have the sizes of its config.json") from error
        missing = sorted(name for name in report["missing_keys"] if not name.startswith(_HEADS))
        if missing:
            raise CheckpointError(
                f"{config.source} does not hold a {type(model).__name__}: {len(missing)} weights are missing, "
                f"e.g. {missing[0]}"
            )
        return _without_heads(model).eval().requires_grad_(False)

    def sha256(self) -> str:
        """Identity of weights and pooling; the same for any file layout. Reads the weights as they are in the files."""
        if not self._has_source:
            return self._hash(self.model)
        whole = {**vars(self.config), "dtype": "float32"}
        return self._hash(self.read_model(type(self.config)(**whole), **self._hub))

    def _hash(self, model: nn.Module) -> str:
        digest = hashlib.sha256(f"{type(self).__name__} {self.config.pooling}".encode())
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(f"{name} {tensor_hash(tensor.float().cpu())}".encode())
        return digest.hexdigest()

    def save_artifact(self, folder: Path, *, dtype: torch.dtype | None = None) -> str:
        """Write the encoder into a model's folder, its weights in `dtype` where given; the hash of what was written."""
        self.load()
        cast = {name: _cast(tensor, dtype) for name, tensor in self.model.state_dict().items()}
        with _without_bars():
            self.model.save_pretrained(folder, state_dict=cast)
        self.tokenizer.save_pretrained(folder)
        written = {**vars(self.config), "source": str(folder)}
        return type(self)(type(self.config)(**written), on_demand=True).sha256()

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Ids and mask, padded to the longest, with the untruncated count of each row under "tokens"."""
        texts = check_list(captions)
        rows = self.tokenizer(texts, padding=False, truncation=False, verbose=False)["input_ids"] if texts else []
        counts = [len(row) for row in rows]
        long = [i for i, count in enumerate(counts) if count > self.max_tokens]
        if long:  # the tokenizer itself keeps the end-of-text token, which pooling reads
            cut = self.tokenizer([texts[i] for i in long], truncation=True, max_length=self.max_tokens)["input_ids"]
            for i, row in zip(long, cut, strict=True):
                rows[i] = row
        pad = self.tokenizer.pad_token_id
        return pad_rows(rows, counts, int(pad if pad is not None else 0))

    def positions(self, tokens: Sequence[int]) -> list[int]:
        """Rows of features of texts with so many tokens: one, unless every token is kept."""
        return super().positions(tokens) if self.config.pooling == "tokens" else [1] * len(tokens)

    def forward(self, captions: Sequence[str]) -> TextFeatures:
        """Features of a batch of captions; text past `max_tokens` tokens is cut off."""
        self.load()
        batch = self.tokenize(captions)
        ids, mask = batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)
        output = self.model(input_ids=ids, attention_mask=mask.long())
        if self.config.pooling == "tokens":
            return TextFeatures(output.last_hidden_state * mask[..., None], mask, batch["tokens"])
        pooled = self.pool(output, mask)[:, None]
        return TextFeatures(pooled, torch.ones_like(mask[:, :1]), batch["tokens"])

    def pool(self, output: Any, mask: Tensor) -> Tensor:
        """One vector (b, c) a text of what transformers answers."""
        raise NotImplementedError

    def _longest(self) -> int:
        if isinstance(self.model, nn.Module) and not hasattr(self.model, "config"):
            return self.max_tokens  # an outline of unknown size
        sizes = self.model.config if self.model is not None else self.read_sizes(self.config, **self._hub)
        positions = getattr(sizes, "max_position_embeddings", None) or self.max_tokens
        if getattr(sizes, "model_type", "") in _POSITION_OFFSET:
            positions -= int(sizes.pad_token_id or 0) + 1
        return min(positions, getattr(self.tokenizer, "model_max_length", positions))


@TEXT_ENCODERS.register("clip")
class CLIPTextEncoder(HFTextEncoder):
    """The text half of a CLIP model (Radford et al., ICML 2021), from its own folder or that of both halves."""

    Config: ClassVar[type[EncoderConfig]] = CLIPConfig

    @classmethod
    def read_sizes(cls, config: CLIPConfig, **hub: Any) -> Any:
        """A ``CLIPTextConfig``."""
        with quiet():
            from transformers import CLIPTextConfig

        raw = read_raw_sizes(config.source, **hub)
        check_type(config.source, raw, "clip")
        sizes = CLIPTextConfig.from_pretrained(found(config.source, **hub), **hub)
        sizes.projection_dim = raw.get("projection_dim", sizes.projection_dim)  # of both halves, where both are there
        return sizes

    @classmethod
    def published_sizes(cls, source: str) -> Any:
        """Those of OpenAI's models."""
        return clip_sizes(source)

    @classmethod
    def width_of(cls, config: CLIPConfig, sizes: Any) -> int:
        """The text model's width, or that of the shared space."""
        return int(sizes.projection_dim if config.pooling == "projected" else sizes.hidden_size)

    @classmethod
    def _reader(cls, config: CLIPConfig) -> Any:
        with quiet():
            from transformers import CLIPTextModel, CLIPTextModelWithProjection

        return CLIPTextModelWithProjection if config.pooling == "projected" else CLIPTextModel

    @classmethod
    def new_model(cls, config: CLIPConfig, sizes: Any) -> nn.Module:
        """The text model with random weights."""
        model: nn.Module = cls._reader(config)(sizes)
        return model

    def pool(self, output: Any, mask: Tensor) -> Tensor:
        """The end-of-text token after the last layer norm, or its projection."""
        pooled: Tensor = output.text_embeds if self.config.pooling == "projected" else output.pooler_output
        return pooled


@TEXT_ENCODERS.register("sentence")
class SentenceTextEncoder(HFTextEncoder):
    """A sentence-transformers model, or any encoder of text that AutoModel reads. Its vectors are not normalized."""

    Config: ClassVar[type[EncoderConfig]] = SentenceConfig

    @classmethod
    def read_sizes(cls, config: SentenceConfig, **hub: Any) -> Any:
        """The configuration of transformers."""
        with quiet():
            from transformers import AutoConfig

        source = config.source
        raw = read_raw_sizes(source, **hub)
        kind = raw.get("model_type")
        check_type(source, raw, "sentence", only=False)
        try:
            sizes = AutoConfig.from_pretrained(found(source, **hub), trust_remote_code=False, **hub)
        except (ValueError, KeyError) as error:
            raise FileError(
                f"{source!r} holds a model of type {kind!r}, which this transformers does not have; code that a model "
                "brings is never run: choose another, or update transformers"
            ) from error
        if getattr(sizes, "is_encoder_decoder", False) or not hasattr(sizes, "hidden_size"):
            raise FileError(f"{source!r} holds a model of type {kind}, which is no encoder of text; choose another")
        if config.pooling != "tokens" and (dense := _dense_of(found(source, **hub))) is not None:
            raise ValueError(
                f"the sentence model {source!r} has a layer after its pooling ({dense}), which is not applied here; "
                "write pooling: tokens, or choose another model"
            )
        return sizes

    @classmethod
    def published_sizes(cls, source: str) -> Any:
        """Those of the widely used sentence-transformers models."""
        return sentence_sizes(source)

    @classmethod
    def width_of(cls, config: SentenceConfig, sizes: Any) -> int:
        """The model's width."""
        return int(sizes.hidden_size)

    @classmethod
    def _reader(cls, config: SentenceConfig) -> Any:
        with quiet():
            from transformers import AutoModel

        return AutoModel

    @classmethod
    def new_model(cls, config: SentenceConfig, sizes: Any) -> nn.Module:
        """The encoder with random weights."""
        return _without_heads(cls._reader(config).from_config(sizes, trust_remote_code=False))

    def pool(self, output: Any, mask: Tensor) -> Tensor:
        """The mean of the tokens, or the first of them."""
        hidden: Tensor = output.last_hidden_state
        if self.config.pooling == "cls":
            return hidden[:, 0]
        return (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _check_pooling(pooling: str, known: Sequence[str]) -> None:
    if pooling not in known:
        raise ValueError(f"pooling must be one of {', '.join(known)}, got {pooling!r}")


def _without_heads(model: nn.Module) -> nn.Module:
    """The model without a head that would take no part in features, and whose weights could not train."""
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model._modules["pooler"] = None
    return model


def _dense_of(folder: str | os.PathLike[str]) -> str | None:
    """The type of a layer that a sentence-transformers folder puts behind its pooling; None without one."""
    path = Path(folder) / "modules.json"
    if not path.is_file():
        return None
    kinds = [
        str(module.get("type", "")).rpartition(".")[2] for module in read_json(path, list) if isinstance(module, dict)
    ]
    return next((kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")), None)


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of transformers inside: a small model is read in no time."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
