"""The text and motion matcher that HumanML3D-263 is evaluated with (Guo et al., CVPR 2022; text-to-motion at 72df96ec).

Shapes: b clips, t frames, n words, l = t // 4 movements, e embedding. Two bidirectional GRUs, one over words and one
over movements (four frames each), trained with a contrastive loss on Euclidean distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

FRAMES_PER_MOVEMENT = 4


@dataclass
class MatcherConfig:
    """Sizes; the defaults are the published ones for HumanML3D."""

    features: int = 259  # of 263: foot contacts are not looked at
    movement_hidden: int = 512
    movement: int = 512
    motion_hidden: int = 1024
    word: int = 300
    tags: int = 15
    text_hidden: int = 512
    embedding: int = 512


class Matcher(nn.Module):
    """Words and motion to embeddings whose Euclidean distance is small where they belong together."""

    def __init__(self, config: MatcherConfig):
        super().__init__()
        self.config = config
        self.movement_encoder = MovementEncoder(config.features, config.movement_hidden, config.movement)
        self.motion_encoder = SequenceEncoder(config.movement, config.motion_hidden, config.embedding)
        self.text_encoder = WordEncoder(config.word, config.tags, config.text_hidden, config.embedding)

    def embed_motion(self, motion: Tensor, lengths: Tensor) -> Tensor:
        """Motions (b, t, 263), normalized, zero past `lengths` (b,) frames, to embeddings (b, e).

        The last movement sees two frames past the end, so `t` changes the numbers: the protocol pads to 196.
        """
        movements = self.movement_encoder(motion[..., : self.config.features])
        embedding: Tensor = self.motion_encoder(movements, lengths // FRAMES_PER_MOVEMENT)
        return embedding

    def embed_text(self, words: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Word vectors (b, n, 300) and one-hot tags (b, n, 15), `lengths` (b,) of them real, to embeddings (b, e)."""
        embedding: Tensor = self.text_encoder(words, tags, lengths)
        return embedding


class MovementEncoder(nn.Module):
    """Two strided convolutions: (b, t, d) to (b, t // 4, movement)."""

    def __init__(self, features: int, hidden: int, out: int):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv1d(features, hidden, 4, 2, 1),
            nn.Dropout(0.2),
            nn.LeakyReLU(0.2),
            nn.Conv1d(hidden, out, 4, 2, 1),
            nn.Dropout(0.2),
            nn.LeakyReLU(0.2),
        )
        self.out_net = nn.Linear(out, out)

    def forward(self, motion: Tensor) -> Tensor:
        """Movements."""
        out: Tensor = self.out_net(self.main(motion.transpose(1, 2)).transpose(1, 2))
        return out


class SequenceEncoder(nn.Module):
    """A bidirectional GRU from a learned start; its two last states become one embedding."""

    def __init__(self, features: int, hidden: int, out: int):
        super().__init__()
        self.input_emb = nn.Linear(features, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.output_net = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.LayerNorm(hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, out)
        )
        self.hidden = nn.Parameter(torch.randn(2, 1, hidden))

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """Sequences (b, l, features), the first `lengths` (b,) steps of each real, to (b, out)."""
        packed = pack_padded_sequence(self.input_emb(sequence), lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed, self.hidden.expand(-1, len(sequence), -1).contiguous())
        out: Tensor = self.output_net(torch.cat([last[0], last[1]], dim=-1))
        return out


class WordEncoder(SequenceEncoder):
    """`SequenceEncoder` over word vectors plus an embedding of each word's tag."""

    def __init__(self, word: int, tags: int, hidden: int, out: int):
        super().__init__(word, hidden, out)
        self.pos_emb = nn.Linear(tags, word)

    def forward(self, words: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """Words (b, n, word) and tags (b, n, tags) to (b, out)."""
        return super().forward(words + self.pos_emb(tags), lengths)
