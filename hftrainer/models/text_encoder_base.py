"""What every text encoder of transformers shares: its files, when its weights are in memory, and padded batches.

A subclass says how the model's sizes, tokenizer and weights are read (the class methods below), and what features are
(`forward`). Register it in TEXT_ENCODERS, and `model.text_encoder.name` chooses it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from hftrainer.config import plain
from hftrainer.extras import quiet
from hftrainer.hub import ON_HUB, FolderMeant, ModelNotFound, find_model
from hftrainer.models.checkpoint import CheckpointError, find_weights
from hftrainer.models.outline import AbsentText
from hftrainer.plain_text import is_text
from hftrainer.readers import FileError, read_json

DTYPES = ("float64", "float32", "bfloat16")
MAX_TEXT = 100_000  # letters of a caption


class TextFeatures(NamedTuple):
    """`features` (b, n, c), zero where `mask` (b, n) is False; real words come first. `tokens` (b,) before any cut."""

    features: Tensor
    mask: Tensor
    tokens: Tensor


@dataclass
class EncoderConfig:
    """`source`: a folder with the encoder and its tokenizer, or a hub name. `max_tokens`: what the model is shown."""

    source: str
    max_tokens: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(
                f"a text encoder runs in float32 or bfloat16 (float16 overflows in T5), got dtype {self.dtype!r}"
            )
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")


class BaseTextEncoder(nn.Module):
    """Captions to `TextFeatures`; `width` is that of the features.

    With `on_demand`, or after `free`, the weights are not in memory until a batch is encoded. `model` and `tokenizer`:
    those of an encoder that was made in memory.
    """

    Config: ClassVar[type[EncoderConfig]] = EncoderConfig
    place: Tensor

    def __init__(
        self,
        config: Any,
        *,
        model: Any = None,
        tokenizer: Any = None,
        width: int | None = None,
        on_demand: bool = False,
        **hub: Any,
    ):
        super().__init__()
        self.config, self._hub = config, hub
        self._has_source = model is None
        self.tokenizer: Any = self.read_tokenizer(config, **hub) if tokenizer is None else tokenizer
        self.model: Any = model
        self.register_buffer("place", torch.zeros(0, dtype=torch.int8), persistent=False)  # moves with the module
        if width is None:
            width = self.width_of(config, model.config if model is not None else self.read_sizes(config, **hub))
        self.width = width
        if model is None and not on_demand:
            self.load()

    # --- what a kind of encoder says ------------------------------------------------------------------------------

    @classmethod
    def read_sizes(cls, config: Any, **hub: Any) -> Any:
        """The configuration of transformers in `config.source`. Raises ``ValueError`` for a model of another kind."""
        raise NotImplementedError

    @classmethod
    def published_sizes(cls, source: str) -> Any:
        """The same of a well-known encoder whose files are not here; None for any other."""
        return None

    @classmethod
    def width_of(cls, config: Any, sizes: Any) -> int:
        """Width of the features."""
        raise NotImplementedError

    @classmethod
    def new_model(cls, config: Any, sizes: Any) -> nn.Module:
        """The network with random weights."""
        raise NotImplementedError

    @classmethod
    def read_tokenizer(cls, config: Any, **hub: Any) -> Any:
        """The tokenizer in `config.source`."""
        return read_tokenizer(config.source, **hub)

    @classmethod
    def read_model(cls, config: Any, **hub: Any) -> Any:
        """The network with its weights, frozen and in evaluation mode."""
        raise NotImplementedError

    def sha256(self) -> str:
        """Identity of the weights; the same for any file layout. Reads them all."""
        raise NotImplementedError

    def save_artifact(self, folder: Path, *, dtype: torch.dtype | None = None) -> str:
        """Write the encoder into a model's folder, its weights in `dtype` where given; the hash of what was written."""
        raise NotImplementedError

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Ids and mask, padded to the longest, with the untruncated count of each row under "tokens"."""
        raise NotImplementedError

    def positions(self, tokens: Sequence[int]) -> list[int]:
        """Rows of features of texts with so many tokens."""
        return [min(count, self.max_tokens) for count in tokens]

    # --- what all of them do --------------------------------------------------------------------------------------

    @classmethod
    def outline(cls, config: Any, *, width: int | None = None) -> tuple[BaseTextEncoder | None, list[str]]:
        """The encoder on the meta device; `width`: of its features, where that is known from elsewhere.

        None where its size is not known and no `width` is given; see `hftrainer.interfaces.Outlinable`.
        """
        notes = []
        try:
            sizes = cls.read_sizes(config, local_files_only=True)
        except (AbsentEncoder, ModelNotFound):
            sizes = cls.published_sizes(config.source)
            if sizes is not None:
                notes.append(f"the text encoder {config.source} is not here: its published sizes are used")
        if sizes is None:
            notes.append(f"the text encoder {config.source} is not here and its size is not known: it is not counted")
            if width is None:
                return None, notes
            return cls(config, model=nn.Module(), tokenizer=AbsentText(), width=width).to("meta"), notes
        with torch.device("meta"):
            model = cls.new_model(config, sizes).to(getattr(torch, config.dtype)).eval()
        return cls(config, model=model, tokenizer=AbsentText()).to("meta"), notes

    @property
    def device(self) -> torch.device:
        """Where the encoder runs."""
        return self.place.device if self.model is None else torch.device(self.model.device)

    @property
    def max_tokens(self) -> int:
        """Tokens that the model is shown."""
        return int(self.config.max_tokens)

    @property
    def name(self) -> str:
        """The encoder's hub name, or the last part of its folder's path."""
        source: str = self.config.source
        return Path(source).name if Path(source).is_dir() else source

    def load(self) -> None:
        """Bring the weights into memory, if they are not there, and to `device`."""
        if self.model is None:
            self.model = self.read_model(self.config, **self._hub).to(self.place.device)

    def free(self) -> None:
        """Release the weights until the next batch. Only for an encoder from a folder or the hub, as it was there."""
        if not self._has_source:
            raise ValueError("this text encoder was made in memory, so its weights could not be loaded again")
        on_gpu = self.device.type == "cuda"
        self.place, self.model = self.place.to(self.device), None
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Tokens of each caption, special tokens included, before any cut."""
        counts: list[int] = self.tokenize(captions)["tokens"].tolist()
        return counts

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write encoder and tokenizer in the layout of transformers, safetensors only."""
        self.load()
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def kind_of(name: str, config: Any) -> dict[str, Any]:
    """What features are, beside the weights that make them: the encoder's name in the registry, and its pooling."""
    settings = {k: v for k, v in plain(config).items() if k not in ("source", "max_tokens", "dtype")}
    return {"name": name, **settings}


def spell_kind(kind: Mapping[str, Any]) -> str:
    """A kind as a user writes it: "name: clip, pooling: eos"."""
    return ", ".join(f"{key}: {value}" for key, value in kind.items())


def pad_rows(rows: Sequence[Sequence[int]], counts: Sequence[int], pad: int) -> dict[str, Tensor]:
    """Token ids of texts, padded on the right: what `BaseTextEncoder.tokenize` returns."""
    width = max(1, *(len(row) for row in rows)) if rows else 1
    ids = torch.full((len(rows), width), pad)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(width)[None] < lengths[:, None]
    return {"input_ids": ids, "attention_mask": mask, "tokens": torch.tensor(counts)}


def check_list(captions: Sequence[str]) -> list[str]:
    """The captions as a list; a single string is a mistake that would be read letter by letter.

    A caption of megabytes, of which a model sees the first words, takes gigabytes to tokenize, and halves of characters
    cannot be: ``ValueError``.
    """
    if isinstance(captions, str):
        raise TypeError("captions must be a list of strings, got one string")
    long = next((text for text in captions if len(text) > MAX_TEXT), None)
    if long is not None:
        raise ValueError(f"a text has {len(long)} letters, the limit is {MAX_TEXT}; it begins with {long[:60]!r}")
    half = next((text for text in captions if not is_text(text)), None)
    if half is not None:
        raise ValueError(f"a text is not UTF-8: {half[:60]!r}")
    return list(captions)


# --- files ------------------------------------------------------------------------------------------------------------


class AbsentEncoder(ValueError):
    """A text encoder whose files are neither here nor can be had."""


def read_tokenizer(source: str | os.PathLike[str], **hub: Any) -> Any:
    """The tokenizer beside an encoder. Code that a repository brings is never run."""
    with quiet():
        from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(found(source, **hub), trust_remote_code=False, **hub)
    except OSError as error:
        raise cannot_load(source, error) from error
    except ValueError as error:
        if isinstance(error, (AbsentEncoder, ModelNotFound)):
            raise
        raise no_tokenizer(source) from error
    # where files are missing, transformers makes one without words (T5's has the space)
    if len(tokenizer) - len(tokenizer.added_tokens_decoder) < 2:
        raise no_tokenizer(source)
    return tokenizer


def read_raw_sizes(source: str | os.PathLike[str], **hub: Any) -> Mapping[str, Any]:
    """The config.json of an encoder as it is, by which its kind is recognized."""
    path = Path(found(source, **hub)) / "config.json"
    try:
        raw: Mapping[str, Any] = read_json(path)
    except OSError as error:
        raise cannot_load(source, error) from error
    return raw


# which encoder reads a model of this type, where one does by name; "sentence" reads many more
READ_BY = {
    "t5": "t5", "mt5": "t5", "clip": "clip", "clip_text_model": "clip",
    "bert": "sentence", "distilbert": "sentence", "mpnet": "sentence", "roberta": "sentence", "xlm-roberta": "sentence",
}  # fmt: skip


def check_type(source: str, raw: Mapping[str, Any], name: str, *, only: bool = True) -> None:
    """Raise ``ValueError`` where the ``model_type`` in `raw` is another encoder's than `name`.

    Without `only`, types that no encoder is known for pass.
    """
    kind = raw.get("model_type")
    reader = READ_BY.get(str(kind))
    if kind and reader != name and (only or reader is not None):
        advice = f"write name: {reader}" if reader else "choose another encoder"
        raise FileError(
            f"{source!r} holds a model of type {kind}, which the text encoder {name} does not read; {advice}"
        )


def weights_of(folder: Path) -> Path | None:
    """The weight file of a folder; None for a name that only transformers finds, or torch files in pieces."""
    if not folder.is_dir():
        return None
    try:
        return find_weights(folder, "model")
    except CheckpointError:
        whole = folder / "pytorch_model.bin"
        return whole if whole.is_file() else None


def found(source: str | os.PathLike[str], **hub: Any) -> str:
    """The folder of a text encoder; its name where only transformers can find it in its cache."""
    if not Path(source).is_dir() and (str(source).startswith((".", "/")) or str(source).count("/") != 1):
        raise AbsentEncoder(f"there is no text encoder folder {str(source)!r}, and it is not a hub name (owner/model)")
    try:
        return str(find_model(source, without=("*.bin", "*.pt"), **hub))
    except FolderMeant:
        raise
    except ModelNotFound:
        return str(source).removeprefix(ON_HUB)


def no_tokenizer(source: str | os.PathLike[str]) -> ValueError:
    """A text encoder's folder has no tokenizer."""
    return ValueError(
        f"the text encoder {str(source)!r} has no tokenizer that transformers can read; put the model's tokenizer.json "
        "and tokenizer_config.json into its folder"
    )


def cannot_load(source: str | os.PathLike[str], error: Exception) -> AbsentEncoder:
    """What went wrong with an encoder's files, and what can be done."""
    return AbsentEncoder(
        f"the text encoder {str(source)!r} cannot be loaded: {str(error).splitlines()[0]} Download it first "
        "(hf download), give the folder where it is (text_encoder=...), or use stored features (text_features=...)."
    )
