"""Learning-rate schedules, value by value."""

from __future__ import annotations

import math

import pytest

from hftrainer.config import ConfigError
from hftrainer.registry import SCHEDULES


def schedule(name: str, total: int = 100, **fields: object):
    return SCHEDULES.build({"name": name, **fields}, total=total)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_a_warm_up_goes_from_0_to_the_full_rate(name):
    at = schedule(name, warmup=10)
    assert [at(step) for step in (0, 1, 5, 9)] == pytest.approx([0, 0.1, 0.5, 0.9])
    assert at(10) == pytest.approx(1)
    assert schedule(name)(0) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "fields", "values"),
    [
        ("constant", {"warmup": 20}, {20: 1, 60: 1, 100: 1, 500: 1}),
        ("cosine", {"warmup": 20}, {20: 1, 40: 0.5 + math.sqrt(2) / 4, 60: 0.5, 100: 0, 500: 0}),
        ("cosine", {"min_lr_ratio": 0.2}, {0: 1, 50: 0.6, 100: 0.2, 101: 0.2}),
        ("linear", {"warmup": 20, "min_lr_ratio": 0.5}, {20: 1, 60: 0.75, 100: 0.5, 101: 0.5}),
        ("wsd", {"decay": 40}, {0: 1, 60: 1, 80: 0.5, 90: 0.25, 100: 0, 101: 0}),
        ("inverse_sqrt", {"warmup": 4}, {4: 1, 16: 0.5, 100: 0.2}),
        ("steps", {"milestones": [30, 60], "gamma": 0.1}, {29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 200: 0.01}),
    ],
)
def test_values(name, fields, values):
    at = schedule(name, **fields)
    assert {step: at(step) for step in values} == pytest.approx(values, abs=1e-12)


def test_which_ones_depend_on_the_length_of_the_run():
    depends = {name for name in SCHEDULES.names() if SCHEDULES.get(name).uses_total}
    assert depends == {"cosine", "linear", "wsd"}
    for name in set(SCHEDULES.names()) - depends:
        fields = {"warmup": 5, **({"milestones": [50]} if name == "steps" else {})}
        short, long = schedule(name, 60, **fields), schedule(name, 90, **fields)
        assert [short(step) for step in range(60)] == [long(step) for step in range(60)]


def test_milestones_ascend():
    with pytest.raises(ConfigError, match=r"milestones must ascend, got \[60, 30\]"):
        schedule("steps", milestones=[60, 30])
