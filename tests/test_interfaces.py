"""The built-in models offer what the interfaces ask for; `examples/t2m_gpt` is tested in tests/examples."""

from __future__ import annotations

import pytest

from hftrainer import interfaces
from hftrainer.pipelines.base import TextToMotionPipeline, pipeline_of
from hftrainer.registry import EVALUATORS, MODELS, REPRESENTATIONS
from hftrainer.zoo.load import load_pipeline, load_tokenizer
from tests.tiny import make_tiny_bundle, tiny_evaluator


def test_go_to_zero_is_a_tenant(tiny_model):
    pipeline = load_pipeline(tiny_model)
    assert isinstance(pipeline, interfaces.TextToMotion)
    assert isinstance(pipeline.bundle, interfaces.Bundle)
    assert isinstance(MODELS.get("motionmillion"), interfaces.Outlinable)
    tokenizer = load_tokenizer(tiny_model)
    assert isinstance(tokenizer, interfaces.MotionTokenizer)
    assert {pipeline.representation, tokenizer.representation} <= set(REPRESENTATIONS.names())


def test_a_bundle_in_memory_has_its_pipeline():
    bundle = make_tiny_bundle()
    assert pipeline_of(bundle).bundle is bundle
    with pytest.raises(ValueError, match="Linear names no pipeline"):
        pipeline_of(__import__("torch").nn.Linear(1, 1))


def test_evaluators_offer_their_interface():
    assert isinstance(tiny_evaluator(), interfaces.Evaluator)
    for name in EVALUATORS.names():
        for method in ("from_pretrained", "encode_motions", "encode_texts", "representation"):
            assert hasattr(EVALUATORS.get(name), method), (name, method)


def test_a_pipeline_says_what_a_model_has_to_add():
    class Bare(TextToMotionPipeline):
        pass

    pipeline = Bare(object())
    with pytest.raises(NotImplementedError):
        pipeline.run([], pipeline.sampling)
    with pytest.raises(ValueError, match="Bare have no motion tokenizer"):
        Bare.load_tokenizer("folder")
