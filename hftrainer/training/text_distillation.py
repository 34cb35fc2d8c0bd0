"""Training a small T5 encoder to see sentences as a larger sentence encoder does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hftrainer.data.text_motion.sentences import SentenceBatch
from hftrainer.models.t5_files import new_t5_model
from hftrainer.models.t5_tokenizer import T5Tokenizer
from hftrainer.models.text_encoder import TextEncoder
from hftrainer.registry import TASKS, Part
from hftrainer.training.released import optimizer_part
from hftrainer.training.task import Task


@dataclass
class TextDistillationConfig:
    """`teacher_width`: channels of the teacher's vectors. `relations`: weight of the batch's similarity matrix."""

    teacher_width: int = 384
    relations: float = 1.0
    optimizer: Part = optimizer_part(lr=1e-3, schedule={"name": "cosine", "warmup": 500})


@TASKS.register("text_distillation")
class TextDistillation(Task):
    """Mean of the encoder's features, through a linear map, against the teacher's unit vector of the sentence."""

    Config = TextDistillationConfig
    bundle: TextEncoder
    validates_in_shards = True
    logged = ("val/loss", "val/cosine")

    def __init__(self, config: TextDistillationConfig, *, bundle: TextEncoder, source: object = None):
        super().__init__(bundle, config.optimizer)
        self.config = config
        self.to_teacher = nn.Linear(bundle.width, config.teacher_width)
        self.freeze_the_rest()

    def trained(self) -> list[nn.Module]:
        """The encoder and the map to the teacher's space, which is thrown away afterwards."""
        return [self.bundle.model, self.to_teacher]

    def training_step(self, batch: SentenceBatch, index: int) -> Tensor:
        """Loss of one batch."""
        loss, cosine = self.losses(batch)
        self.log_step({"loss": loss, "cosine": cosine}, shown=["loss", "cosine"])
        return loss

    def validation_step(self, batch: SentenceBatch, index: int) -> None:
        """The same on unseen sentences."""
        loss, cosine = self.losses(batch)
        self.log_validation({"loss": loss, "cosine": cosine}, len(batch.texts))

    def losses(self, batch: SentenceBatch) -> tuple[Tensor, Tensor]:
        """The loss, and the mean cosine to the teacher."""
        text = self.bundle(batch.texts)
        pooled = text.features.sum(dim=1) / text.mask.sum(dim=1, keepdim=True)
        got = F.normalize(self.to_teacher(pooled), dim=-1)
        want = F.normalize(batch.embeddings, dim=-1)
        cosine = (got * want).sum(dim=-1).mean()
        relations = (got @ got.T - want @ want.T).square().mean()
        return (1 - cosine) + self.config.relations * relations, cosine.detach()


def new_t5_encoder(*, vocab_size: int, d_model: int, num_layers: int, num_heads: int, d_ff: int) -> nn.Module:
    """A T5 v1.1 encoder (gated GELU) with fresh weights, no dropout."""
    return new_t5_model(
        vocab_size=vocab_size, d_model=d_model, d_kv=d_model // num_heads, d_ff=d_ff, num_layers=num_layers,
        num_heads=num_heads, feed_forward_proj="gated-gelu", dropout_rate=0.0,
    )  # fmt: skip


def new_t5_tokenizer(pieces: list[tuple[str, float]], max_length: int = 512, *, normalize: bool = False) -> T5Tokenizer:
    """A T5 tokenizer over unigram pieces with their scores; the first three are <pad>, </s> and <unk>.

    `normalize`: case, punctuation and repeated spaces make no difference (`text_normalizer`).
    """
    normalizer = text_normalizer() if normalize else None
    return T5Tokenizer.of_pieces(pieces, normalizer=normalizer, model_max_length=max_length)


def text_normalizer() -> Any:
    """Lower case, compatible characters made equal (NFKC), anything but letters, digits and apostrophes a space."""
    from tokenizers import Regex, normalizers

    steps = [
        normalizers.NFKC(),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"[^\w']+"), " "),
        normalizers.Strip(),
    ]
    return normalizers.Sequence(steps)


def normalized_text(text: str) -> str:
    """A sentence as a tokenizer with `text_normalizer` sees it."""
    return str(text_normalizer().normalize_str(text))


def learn_pieces(sentences: list[str], vocab_size: int) -> list[tuple[str, float]]:
    """Unigram pieces (Kudo 2018) of lower- and upper-case text, by the tokenizers library."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]


def parameter_count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def sentence_vectors(encoder: TextEncoder, texts: list[str]) -> Tensor:
    """Mean features (n, c): what distillation shaped, without the teacher's map."""
    text = encoder(texts)
    mean: Tensor = text.features.sum(dim=1) / text.mask.sum(dim=1, keepdim=True)
    return mean
