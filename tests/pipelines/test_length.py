"""Seconds in prompts."""

from __future__ import annotations

import pytest

from hftrainer.pipelines.knowledge.length import read_length

READ = {
    "a person walks for five seconds": ("a person walks", 5.0),
    "walk 5s": ("walk", 5.0),
    "a person walks for 2.5 sec": ("a person walks", 2.5),
    "a ten-second walk": ("a walk", 10.0),
    "a 10 s walk": ("a walk", 10.0),
    "5 seconds of walking": ("walking", 5.0),
    "wait for half a second": ("wait", 0.5),
    "spin for two and a half Seconds!": ("spin!", 2.5),
    "for twenty-five seconds walk": ("walk", 25.0),
    "walk for a minute": ("walk", 60.0),
    "walk for 3 seconds then run for 2 seconds": ("walk then run", 5.0),
    "walk forward then wave for 4 seconds": ("walk forward then wave", 4.0),
}


@pytest.mark.parametrize("prompt", READ)
def test_a_length_is_read_and_taken_out(prompt):
    found = read_length(prompt)
    assert (found.text, found.seconds) == READ[prompt]
    assert not found.ignored


@pytest.mark.parametrize(
    "prompt", ["the second person walks", "takes a second step", "do 3 steps", "walk 10 meters", "5 seconds", "seconds"]
)
def test_what_is_no_length_stays(prompt):
    assert read_length(prompt).text == prompt
    assert read_length(prompt).seconds is None


@pytest.mark.parametrize("prompt", ["stand for two seconds then walk", "after 3 seconds he runs", "hop every 2 s"])
def test_a_length_of_a_part_is_named_and_not_read(prompt):
    found = read_length(prompt)
    assert (found.text, found.seconds) == (prompt, None)
    assert found.ignored
