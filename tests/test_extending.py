"""docs/extending.md: what it quotes is in the example, and what it shows works."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.representation.base import get_representation
from hftrainer.motion.representation.convert import convert
from hftrainer.registry import TEXT_ENCODERS, withdraw
from tests.conftest import REPOSITORY
from tests.tiny_encoders import tiny_bert

PAGE = (REPOSITORY / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```(?:python|toml|yaml)\n# ([\w./]+)\n(.*?)```", PAGE, flags=re.S)
QUOTED = [(name, text) for name, text in BLOCKS if name.startswith("examples/")]
SHOWN = {name: text for name, text in BLOCKS if not name.startswith("examples/")}


@pytest.mark.parametrize(("name", "text"), QUOTED, ids=[f"{i} {name}" for i, (name, _) in enumerate(QUOTED)])
def test_quotations_are_in_the_example(name, text):
    rest = (REPOSITORY / name).read_text().splitlines()
    for line in text.splitlines():
        if line.strip() and line != "...":
            assert line in rest, f"{name} has no {line!r} after the lines quoted before it"
            rest = rest[rest.index(line) + 1 :]


def test_every_file_of_the_example_is_quoted():
    assert len(QUOTED) >= 7
    assert {name.rpartition("/")[2] for name, _ in QUOTED} == {
        "pyproject.toml", "__init__.py", "bundle.py", "tasks.py", "pipeline.py",
    }  # fmt: skip


@pytest.fixture
def plugin(monkeypatch):
    """The registries as they are when a plug-in has registered what the page shows."""
    for name, text in SHOWN.items():
        module = ModuleType(name.replace("/", ".").removesuffix(".py"))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)
    yield
    withdraw("my_plugin")
    get_representation.cache_clear()


def test_the_representation_converts_both_ways(plugin):
    motion = make_motion("walk", 61, 0)
    made = convert(motion, "motion272", "pelvis_first")
    assert (made.fps, made.values.shape[1]) == (20, 66)
    joints = convert(made.values, "pelvis_first", "joints").values
    want = get_representation("motion272").to_joints(motion)
    # every third frame of 30 a second is every second one of 20
    np.testing.assert_allclose(joints[::2], want[::3][: len(joints[::2])], atol=1e-6)
    held = get_representation("pelvis_first").pad_at_rest(made.values, 100)
    assert np.array_equal(held[-1], made.values[-1])


@torch.no_grad()
def test_the_text_encoder_pools_by_the_maximum(plugin, tmp_path):
    source = {"source": str(tiny_bert(tmp_path / "bert"))}
    encoder = TEXT_ENCODERS.build({"name": "sentence_max", **source})
    texts = ["run", "a person walks forward"]
    rows = TEXT_ENCODERS.build({"name": "sentence", **source})(texts)
    for i, features in enumerate(rows.features):
        want = features[rows.mask[i]].amax(dim=0)
        torch.testing.assert_close(encoder(texts).features[i, 0], want, atol=1e-6, rtol=0)
    assert encoder.positions([3, 6]) == [1, 1]
