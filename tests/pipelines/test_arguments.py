"""Arguments that make no sense are refused by name before a model is loaded or run."""

from __future__ import annotations

import numpy as np
import pytest

import hftrainer
from hftrainer.pipelines.base import TextToMotionPipeline
from hftrainer.requests import SamplingParams


@pytest.mark.parametrize(
    ("prompts", "settings", "error", "words"),
    [
        ([], {}, ValueError, "the list of prompts is empty"),
        ([5], {}, TypeError, "prompt 1 of 1 must be a string, got 5"),
        (5, {}, TypeError, "must be a list of strings, got int 5"),
        ("a walk", {"num_motions": "2"}, TypeError, "num_motions must be a whole number, got '2'"),
        ("a walk", {"num_motions": 0}, ValueError, "num_motions must be at least 1"),
        ("a walk", {"batch_size": 1.5}, TypeError, "batch_size must be a whole number, got 1.5"),
        ("a walk", {"seed": "a"}, TypeError, "seed must be a whole number, got 'a'"),
        ("a walk", {"options": {"fps": 60}}, TypeError, "options must be ExportOptions"),
    ],
)
def test_generate_names_the_argument(tmp_path, prompts, settings, error, words):
    with pytest.raises(error, match=words):
        hftrainer.generate(prompts, out=tmp_path / "out", model="no-such-model", **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"seed": "a"}, TypeError, "seed must be a whole number, got 'a'"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number, got 1.5"),
        ({"seed": 2**64}, ValueError, "seed must fit into 64 bits"),
        ({"seed": 2**64 - 1, "num_motions": 2}, ValueError, "seed must fit into 64 bits"),
        ({"top_k": 1.5}, TypeError, "top_k must be a whole number, got 1.5"),
        ({"top_p": "0.9"}, TypeError, "top_p must be a number, got '0.9'"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number, got 'hot'"),
        ({"num_motions": "2"}, ValueError, "num_motions must be a whole number of at least 1, got '2'"),
        ({"sampling": {"top_k": 3}}, TypeError, "sampling must be SamplingParams"),
    ],
)
def test_a_pipeline_names_the_argument(settings, error, words):
    with pytest.raises(error, match=words):
        TextToMotionPipeline(bundle=None)("a walk", **settings)


def test_numbers_of_numpy_are_numbers():
    params = SamplingParams(True, np.float32(0.5), np.int64(3), np.float64(0.5))
    assert params.top_k == 3
