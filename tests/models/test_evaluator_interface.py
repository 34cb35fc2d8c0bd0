"""Every evaluator offers the interface: what it reads, how much of it, and what its embeddings depend on."""

from __future__ import annotations

import pytest

from hftrainer.interfaces import Evaluator
from hftrainer.motion.representation.base import get_representation
from hftrainer.registry import EVALUATORS
from tests.models.test_humanml263 import evaluator as evaluator263  # noqa: F401 -- a fixture
from tests.models.test_motionclip import evaluator as evaluator135  # noqa: F401 -- a fixture
from tests.models.test_motionclip import tokenizer  # noqa: F401 -- a fixture
from tests.tiny import tiny_evaluator


@pytest.fixture
def evaluators(request):
    made = {
        "humanml263": request.getfixturevalue("evaluator263"),
        "motionclip135": request.getfixturevalue("evaluator135"),
    }
    return {"motionstreamer272": tiny_evaluator(), **made}


@pytest.mark.parametrize(
    ("name", "representation", "frames"),
    [
        ("motionstreamer272", "motion272", 300),
        ("humanml263", "hml263", 196),
        ("motionclip135", "motion135", 300),
    ],
)
def test_the_interface(evaluators, name, representation, frames):
    judge = evaluators[name]
    assert isinstance(judge, Evaluator)
    assert isinstance(judge, EVALUATORS.get(name))
    assert (judge.representation, judge.max_frames) == (representation, frames)
    assert get_representation(judge.representation).width == len(judge.mean)


@pytest.mark.parametrize("name", ["motionstreamer272", "humanml263", "motionclip135"])
def test_identity_depends_on_weights_and_statistics(evaluators, name):
    judge = evaluators[name]
    before = judge.identity()
    assert len(before) == 64
    assert judge.identity() == before
    judge.mean = judge.mean + 1e-3
    moved = judge.identity()
    assert moved != before
    network = getattr(judge, "matcher", getattr(judge, "network", judge))
    parameter = next(iter(network.parameters()))
    parameter.data.view(-1)[0] += 1e-3
    assert judge.identity() != moved
