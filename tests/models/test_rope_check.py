"""Which rotary table weights want: models of known kind are recognized, and noise decides nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hftrainer.models.motion.motionmillion import MotionMillionBundle
from hftrainer.models.motion.motionmillion.rope_check import RopeCheck, rope_check
from tests.tiny import SENTENCES, make_tiny_bundle

CODES = 120
TEXTS = SENTENCES * 4


def bundle_of(table: str) -> MotionMillionBundle:
    """A model that runs with `table`, its choices sharp enough that a clip of its own is likely under it alone."""
    bundle = make_tiny_bundle()
    bundle.ar.config.rope_dtype = table
    with torch.no_grad():
        for block in bundle.ar.transformer.h:
            block.attn.c_attn.weight.mul_(8)
            block.attn.c_proj.weight.mul_(8)
        bundle.ar.lm_head.weight.mul_(4)
    return bundle


@torch.no_grad()
def own_clips(bundle: MotionMillionBundle) -> list[tuple[str, np.ndarray]]:
    """Clips that the model itself would make, drawn."""
    text = bundle.encode_text(TEXTS)
    draws = [torch.Generator().manual_seed(i) for i in range(len(TEXTS))]
    options = {"min_new_tokens": CODES, "do_sample": True, "generator": draws}
    made = bundle.ar.generate(text.features, text.mask, CODES, **options)
    return [(text, codes.numpy()) for text, codes in zip(TEXTS, made.tokens, strict=True)]


@pytest.mark.parametrize("table", ["float32", "bfloat16"])
def test_a_models_own_clips_tell_its_table(table):
    bundle = bundle_of(table)
    found = rope_check(bundle, own_clips(bundle))
    assert found.wants == table
    assert (found.float32 < found.bfloat16) == (table == "float32")
    assert found.clips == len(TEXTS)
    assert found.lines()[-1] == f'these weights want rope_dtype: "{table}"'
    assert bundle.ar.config.rope_dtype == table  # as it was


def test_losses_are_the_models_own():
    bundle = make_tiny_bundle()
    clips = [(text, np.arange(5) + i) for i, text in enumerate(SENTENCES[:2])]
    want = []
    for caption, codes in clips:
        text = bundle.encode_text([caption])
        n = text.features.shape[1]
        row = torch.tensor([[bundle.ar.config.pad_id] * n + [*codes.tolist(), bundle.ar.config.end_id]])
        logits = bundle.ar(row[:, :-1], text.features, text.mask)[0, n - 1 :]
        want.append(torch.nn.functional.cross_entropy(logits, row[0, n:]).item())
    assert rope_check(bundle, clips).float32 == pytest.approx(np.mean(want), abs=1e-5)


@pytest.mark.parametrize(
    ("interval", "wants"), [((0.1, 0.3), "float32"), ((-0.3, -0.1), "bfloat16"), ((-0.1, 0.1), None)]
)
def test_an_interval_with_zero_decides_nothing(interval, wants):
    found = RopeCheck(10, 1.0, 1.0 + sum(interval) / 2, interval)
    assert found.wants == wants
    assert ("do not decide it" in found.lines()[-1]) == (wants is None)


def test_too_little_is_refused_and_the_table_put_back():
    bundle = make_tiny_bundle()
    with pytest.raises(ValueError, match="needs at least 2 clips, got 1"):
        rope_check(bundle, [(SENTENCES[0], np.arange(4))])
    assert bundle.ar.config.rope_dtype == "float32"
    bundle.ar = None
    with pytest.raises(ValueError, match="has no transformer"):
        rope_check(bundle, [])
