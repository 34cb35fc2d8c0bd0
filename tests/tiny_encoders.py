"""Tiny text encoders of other kinds than T5, as folders: CLIP (both halves or its text half) and BERT."""

from __future__ import annotations

from pathlib import Path

import torch

CLIP_SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 77,
}  # fmt: skip
WORDS = [
    "a", "person", "walks", "forward", "then", "waves", "run", "someone", "stands", "still", "and", "turns", "left",
    "while", "walking", "squats", ",",
]  # fmt: skip


def tiny_clip(folder: Path, *, both: bool = False) -> Path:
    """A CLIP folder whose projection is 16 wide; with `both`, as published: text and vision in one file."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    letters = [*"abcdefghijklmnopqrstuvwxyz,"]
    pieces = ["<|startoftext|>", *letters, *(f"{letter}</w>" for letter in letters), "<|endoftext|>"]
    vocab = {piece: i for i, piece in enumerate(pieces)}  # the end has the last id, as in the published vocabulary
    ids = {"bos_token_id": 0, "eos_token_id": len(vocab) - 1, "pad_token_id": len(vocab) - 1}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=CLIP_SIZES["max_position_embeddings"])
    torch.manual_seed(2)
    if both:
        vision = {"image_size": 16, "patch_size": 8, "hidden_size": 16, "intermediate_size": 16}
        vision |= {"num_hidden_layers": 1, "num_attention_heads": 2}
        text = {**CLIP_SIZES, **ids, "vocab_size": len(vocab)}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    else:
        model = CLIPTextModelWithProjection(
            CLIPTextConfig(**CLIP_SIZES, **ids, vocab_size=len(vocab), projection_dim=16)
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_bert(folder: Path, width: int = 32) -> Path:
    """A sentence model as sentence-transformers stores it: BERT with a pooler that nothing uses."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=128)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(words), hidden_size=width, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=128,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
