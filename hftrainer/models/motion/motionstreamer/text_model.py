"""The language model and tokenizer below the evaluator's text encoder: loaded, taken from files, or new."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from hftrainer.files import write_json, write_text
from hftrainer.models.checkpoint import CheckpointError
from hftrainer.models.motion.motionstreamer.config import TextModelConfig

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ENDINGS = ["##s", "##es", "##ed", "##ing", "##ly", "##er", "##est"]


def load_text_model(source: str | os.PathLike[str], *, weights: bool = True, **hub: Any) -> tuple[nn.Module, Any]:
    """A language model in eval mode and its tokenizer, from a folder or a hub name.

    Without `weights` only the configuration and the tokenizer are read: the weights are about to come from elsewhere.
    """
    from transformers import AutoConfig, AutoModelForTextEncoding, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **hub)
        if weights:
            model = AutoModelForTextEncoding.from_pretrained(source, **hub)
        else:
            model = AutoModelForTextEncoding.from_config(AutoConfig.from_pretrained(source, **hub))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"the text model {str(source)!r} cannot be loaded: {str(error).splitlines()[0]} Give a folder that holds "
            "its config.json and tokenizer (download one with: huggingface-cli download distilbert-base-uncased)"
        ) from error
    return model.eval(), tokenizer


def new_text_model(config: TextModelConfig) -> nn.Module:
    """A DistilBERT with random weights."""
    from transformers import DistilBertConfig, DistilBertModel

    sizes = DistilBertConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_tokens,
        dim=config.width,
        n_layers=config.layers,
        n_heads=config.heads,
        hidden_dim=config.hidden,
    )
    model: nn.Module = DistilBertModel(sizes)
    return model


def new_tokenizer(captions: Iterable[str], vocab_size: int) -> Any:
    """A WordPiece tokenizer of the most frequent words, with letters and endings for the others.

    The same captions give the same vocabulary, in any order, so that a resumed run has the one it began with.
    """
    counts = Counter(word for caption in captions for word in re.findall(r"\w+|[^\w\s]", caption.lower()))
    letters = sorted({letter for word in counts for letter in word} | set("abcdefghijklmnopqrstuvwxyz"))
    pieces = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), *_ENDINGS]
    if len(pieces) > vocab_size:
        raise ValueError(f"vocab_size={vocab_size} has no room for the {len(pieces)} letters and endings of the text")
    words = sorted(counts.keys() - set(pieces), key=lambda word: (-counts[word], word))
    return _tokenizer_of([*pieces, *words[: vocab_size - len(pieces)]])


def _tokenizer_of(pieces: list[str]) -> Any:
    """Through files, as a released tokenizer comes, so that saving and loading it changes nothing."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder) / "vocab.txt", "".join(f"{piece}\n" for piece in pieces))
        write_json(Path(folder) / "tokenizer.json", _wordpiece(pieces))
        names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), _SPECIAL, strict=True))
        write_json(Path(folder) / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})
        return AutoTokenizer.from_pretrained(folder)


def _wordpiece(pieces: list[str]) -> dict[str, Any]:
    """The content of a tokenizer.json: BERT's lower-casing and splitting, [CLS] before and [SEP] after."""
    import json

    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    )
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content
