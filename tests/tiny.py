"""Tiny models for tests: seconds on a CPU, every part real."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from hftrainer.models.motion.motionmillion.artifact import Parts
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.config import HumanVQVAEConfig, MotionMillionConfig
from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionstreamer import MotionStreamer272Config, MotionStreamer272Evaluator
from hftrainer.models.motion.motionstreamer.config import TextModelConfig
from hftrainer.models.motion.motionstreamer.text_model import new_tokenizer
from hftrainer.models.text_encoder import TextEncoder, TextEncoderConfig
from hftrainer.training.text_distillation import new_t5_encoder, new_t5_tokenizer

SENTENCES = [
    "a person walks forward, then waves", "someone is walking ahead", "turn left while walking", "a person squats",
    "the character raises the left hand and the right hand", "run as fast as possible", "someone stands still",
]  # fmt: skip


def tiny_vqvae_config() -> HumanVQVAEConfig:
    """The smallest released level table at width 32."""
    return HumanVQVAEConfig(nb_code=256, width=32, code_dim=32, output_emb_width=32)


def pieces() -> list[tuple[str, float]]:
    """Words and letters, the same every time (learning pieces is not: the library hashes with a random seed)."""
    words = sorted({word.strip(",") for sentence in SENTENCES for word in sentence.split()})
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz,."]
    scored = [(f"▁{word}", -3.0) for word in words] + [(letter, -8.0) for letter in letters]
    return [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *scored]


def tiny_text_encoder(width: int = 32) -> TextEncoder:
    """A T5 encoder with its own tokenizer."""
    torch.manual_seed(1)
    tokenizer = new_t5_tokenizer(pieces())
    model = new_t5_encoder(vocab_size=len(tokenizer), d_model=width, num_layers=1, num_heads=2, d_ff=32)
    return TextEncoder(TextEncoderConfig(source="tiny"), model=model.eval().requires_grad_(False), tokenizer=tokenizer)


def make_tiny_bundle(seed: int = 0) -> MotionMillionBundle:
    """A whole model with random weights."""
    torch.manual_seed(seed)
    vqvae = tiny_vqvae_config()
    ar = LLaMAHFConfig(vocab_size=vqvae.codebook_size + 2, n_layer=2, n_head=4, n_embd=32, clip_dim=32)
    config = MotionMillionConfig(tokenizer=vqvae, ar=ar, text_encoder=TextEncoderConfig(source="text_encoder"))
    mean, std = np.zeros(272, np.float32), np.full(272, 0.05, np.float32)
    mean[9] = 0.9
    network = HumanVQVAE(nb_code=256, width=32, code_dim=32, output_emb_width=32)
    return MotionMillionBundle(parts=Parts(config, network, LLaMAHF(ar), tiny_text_encoder(), mean, std))


def golden_fill() -> ModuleType:
    """tests/golden/fill.py, which is not part of a package."""
    path = Path(__file__).parent / "golden" / "fill.py"
    spec = importlib.util.spec_from_file_location("golden_fill", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny_evaluator(seed: int = 0) -> MotionStreamer272Evaluator:
    """An evaluator with random weights and a tokenizer of `SENTENCES`, frozen as a loaded one is."""
    torch.manual_seed(seed)
    text = TextModelConfig(source=None, vocab_size=120, width=16, layers=1, heads=2, hidden=32, max_tokens=24)
    config = MotionStreamer272Config(latent_dim=16, num_layers=2, num_heads=2, ff_size=32, positions=302, text=text)
    evaluator = MotionStreamer272Evaluator.from_config(config)
    evaluator.tokenizer = new_tokenizer(SENTENCES, text.vocab_size)
    return evaluator.requires_grad_(False)
