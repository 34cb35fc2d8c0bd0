"""T5's tokenizer: unigram pieces (Kudo 2018) of a tokenizer.json, by the `tokenizers` library."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hftrainer.files import write_json, write_text
from hftrainer.models.text_encoder_base import found, no_tokenizer, read_tokenizer
from hftrainer.readers import MAX_JSON, read_json, read_text

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
_SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


class T5Tokenizer:
    """Texts to ids; `settings` are those of tokenizer_config.json. Nothing is cut or padded."""

    def __init__(self, tokenizer: Any, settings: Mapping[str, Any] | None = None):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.settings = {"tokenizer_class": "T5Tokenizer", **_SPECIAL, **(settings or {})}
        self.pad_token_id, self.eos_token_id, self.unk_token_id = (self._special(name) for name in _SPECIAL)

    @classmethod
    def of_pieces(cls, pieces: Sequence[tuple[str, float]], *, normalizer: Any = None, **settings: Any) -> T5Tokenizer:
        """A tokenizer of unigram pieces with their scores; the first three are <pad>, </s> and <unk>. `normalizer`: one
        of the library's, which every text passes first."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

        if [piece for piece, _ in pieces[:3]] != list(_SPECIAL.values()):
            raise ValueError(f"the first pieces must be {', '.join(_SPECIAL.values())}, got {pieces[:3]}")
        tokenizer = Tokenizer(models.Unigram(list(pieces), unk_id=2, byte_fallback=False))
        words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
        tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)]
        )
        tokenizer.add_special_tokens(list(_SPECIAL.values()))
        if normalizer is None:
            return cls(tokenizer, {"extra_ids": 0, **settings})
        tokenizer.normalizer = normalizer  # which transformers' class of T5 drops; the general one keeps it
        return cls(tokenizer, {"tokenizer_class": "PreTrainedTokenizerFast", **settings})

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, the end of text included."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids)))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write tokenizer.json and tokenizer_config.json, which transformers' ``AutoTokenizer`` reads."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / FILE, self._tokenizer.to_str(pretty=True))
        write_json(Path(folder) / SETTINGS, self.settings)

    def _special(self, name: str) -> int:
        token = self.settings[name]
        token = token.get("content") if isinstance(token, Mapping) else token  # as older versions write it
        number = self._tokenizer.token_to_id(str(token))
        if number is None:
            raise ValueError(f"the tokenizer has no {name} {token!r}")
        return int(number)


def read_t5_tokenizer(source: str | os.PathLike[str], **hub: Any) -> T5Tokenizer:
    """The tokenizer beside a T5 encoder. A folder with only a spiece.model is converted by transformers."""
    folder = Path(found(source, **hub))
    if not (folder / FILE).is_file():
        theirs = read_tokenizer(source, **hub)
        return T5Tokenizer(theirs.backend_tokenizer, {name: str(getattr(theirs, name)) for name in _SPECIAL})
    from tokenizers import Tokenizer

    text = read_text(folder / FILE, MAX_JSON)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more special
        raise no_tokenizer(source) from error
    if tokenizer.get_vocab_size() - len(tokenizer.get_added_tokens_decoder()) < 2:
        raise no_tokenizer(source)
    settings = folder / SETTINGS
    return T5Tokenizer(tokenizer, read_json(settings, dict) if settings.is_file() else None)
