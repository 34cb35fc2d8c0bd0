"""Words as the HumanML3D matcher sees them: a GloVe vector, and a tag, a part of speech or a kind of motion word."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import read_npy
from hftrainer.models.checkpoint import CheckpointError
from hftrainer.models.checkpoint.safe_pickle import MAX_PICKLE, load_pickle
from hftrainer.readers import read_bytes

Float32 = NDArray[np.float32]

TAGS = (
    "VERB", "NOUN", "DET", "ADP", "NUM", "AUX", "PRON", "ADJ", "ADV",
    "Loc_VIP", "Body_VIP", "Obj_VIP", "Act_VIP", "Desc_VIP", "OTHER",
)  # fmt: skip
# Words that matter to motion have a tag of their own, whatever part of speech they are (text-to-motion's lists).
_IMPORTANT = {
    "Loc_VIP": "left right clockwise counterclockwise anticlockwise forward back backward up down straight curve",
    "Body_VIP": "arm chin foot feet face hand mouth leg waist eye knee shoulder thigh",
    "Obj_VIP": "stair dumbbell chair window floor car ball handrail baseball basketball",
    "Act_VIP": "walk run swing pick bring kick put squat throw hop dance jump turn stumble stop sit lift lower raise "
    "wash stand kneel stroll rub bend balance flap jog shuffle lean rotate spin spread climb",
    "Desc_VIP": "slowly carefully fast careful slow quickly happy angry sad happily angrily sadly",
}
_TAG_OF = {word: tag for tag, words in reversed(_IMPORTANT.items()) for word in words.split()}
_START, _END, _UNKNOWN = "sos", "eos", "unk"


class WordVectors:
    """A vocabulary and its vectors (words, 300); has to know "sos", "eos" and "unk"."""

    def __init__(self, words: Sequence[str], vectors: Float32):
        if vectors.ndim != 2 or len(vectors) != len(words) or vectors.dtype.kind != "f":
            raise ValueError(f"{len(words)} words need as many vectors, got {vectors.shape} of {vectors.dtype}")
        self.words, self.vectors = list(words), np.asarray(vectors, dtype=np.float32)
        self._row = {word: row for row, word in enumerate(self.words)}
        missing = [word for word in (_START, _END, _UNKNOWN) if word not in self._row]
        if missing:
            raise ValueError(f"the vocabulary has no {missing}; is it HumanML3D's (our_vab)?")

    @classmethod
    def from_released(cls, folder: str | os.PathLike[str], name: str = "our_vab") -> WordVectors:
        """The published files NAME_data.npy, NAME_words.pkl, NAME_idx.pkl; pickles are read without running code."""
        folder = Path(folder)
        data = _load_array(folder / f"{name}_data.npy")
        words, rows = _plain_pickle(folder / f"{name}_words.pkl"), _plain_pickle(folder / f"{name}_idx.pkl")
        listed = isinstance(words, (list, tuple)) and all(isinstance(word, str) for word in words)
        if not listed or not isinstance(rows, Mapping):
            raise CheckpointError(
                f"{folder}: expected a list of words and their rows, got a {type(words).__name__} and a "
                f"{type(rows).__name__}"
            )
        unknown = [word for word in words if type(rows.get(word)) is not int or not 0 <= rows[word] < len(data)]
        if unknown:
            raise CheckpointError(f"{folder}: {len(unknown)} words have no vector, e.g. {unknown[0]!r}")
        return cls([str(word) for word in words], data[[rows[word] for word in words]].astype(np.float32))

    @classmethod
    def from_pretrained(cls, folder: Path) -> WordVectors:
        """words.txt and word_vectors.npy of an artifact."""
        path = folder / "words.txt"
        if not path.is_file():
            raise CheckpointError(f"{folder} has no words.txt")
        return cls(path.read_text(encoding="utf-8").split("\n")[:-1], _load_array(folder / "word_vectors.npy"))

    def save_pretrained(self, folder: Path) -> None:
        """Write words.txt and word_vectors.npy."""
        if any("\n" in word for word in self.words):
            raise ValueError("a word holds a line break")
        (folder / "words.txt").write_text("".join(f"{word}\n" for word in self.words), encoding="utf-8")
        np.save(folder / "word_vectors.npy", self.vectors)

    def encode(self, sentence: str, max_words: int) -> tuple[Float32, Float32]:
        """Vectors (n + 2, 300) and one-hot tags (n + 2, 15) of "word/TAG word/TAG ...", start and end added.

        At most `max_words` words are kept. A word that is not in the vocabulary becomes "unk" with tag OTHER; an
        important word has its own tag; an unknown tag is OTHER.
        """
        pairs = [_split(item, sentence) for item in sentence.split()][:max_words]
        if not pairs:
            raise ValueError("a caption has no words; the matcher needs at least one word/TAG")
        rows, tags = [], []
        for word, tag in ((_START, "OTHER"), *pairs, (_END, "OTHER")):
            known = word in self._row
            rows.append(self._row[word if known else _UNKNOWN])
            chosen = _TAG_OF.get(word, tag) if known else "OTHER"
            tags.append(TAGS.index(chosen) if chosen in TAGS else TAGS.index("OTHER"))
        return self.vectors[rows], np.eye(len(TAGS), dtype=np.float32)[tags]


def _split(item: str, sentence: str) -> tuple[str, str]:
    word, slash, tag = item.rpartition("/")
    if not slash:
        raise ValueError(
            f"the HumanML3D matcher reads words with tags, as in the second field of HumanML3D's text lines "
            f"('a/DET man/NOUN walk/VERB'); {item!r} has none, in {sentence!r}"
        )
    return word, tag


def _load_array(path: Path) -> Any:
    try:
        return read_npy(path, shape=(None, None), finite=True, error=CheckpointError)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def _plain_pickle(path: Path) -> Any:
    def refuse(_: Any) -> Any:
        raise CheckpointError(f"{path} holds tensors, expected words")

    try:
        content = read_bytes(path, MAX_PICKLE, error=CheckpointError)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    return load_pickle(io.BytesIO(content), path, refuse).value
