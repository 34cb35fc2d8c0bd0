"""``hftrainer zoo``: lists, filters, cards as text and as JSON; and the pages that are made of cards."""

from __future__ import annotations

import json
import re
import runpy
import sys

import pytest

from hftrainer.cli import main
from hftrainer.zoo.show import count, size
from tests.conftest import REPOSITORY
from tests.zoo.plugin import install_toy


def listed(capsys, *arguments):
    assert main(["zoo", "list", "--json", *arguments]) == 0
    return [card["name"] for card in json.loads(capsys.readouterr().out)]


def test_list_filters_by_task_and_representation(site, capsys):
    install_toy(site)
    assert {"gotozero-nano", "motionstreamer272-nano", "toy-263"} <= set(listed(capsys))
    assert listed(capsys, "--task", "evaluator") == ["motionstreamer272-mini", "motionstreamer272-nano"]
    assert listed(capsys, "--representation", "hml263") == ["toy-263"]
    assert listed(capsys, "--task", "evaluator", "--representation", "hml263") == []
    assert main(["zoo", "list", "--task", "evaluator", "--representation", "hml263"]) == 0
    assert capsys.readouterr().out == "no model fits\n"
    assert main(["zoo", "list", "--task", "judge"]) == 1
    assert "there is no task 'judge'; tasks: text-to-motion, " in capsys.readouterr().err
    assert main(["zoo", "list", "--representation", "motion273"]) == 1
    assert "those with cards: hml263, motion272" in capsys.readouterr().err


def test_without_a_word_it_lists(capsys):
    assert main(["zoo"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["name", "task", "representation"]
    row = next(line for line in lines if line.startswith("gotozero-7b-train"))
    assert "9.05 B" in row
    assert "not stated" in row


def test_show_has_what_a_user_needs_to_know(capsys):
    assert main(["zoo", "show", "motionmillion-7b"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "ZeyuLing/hftrainer-gotozero-7b-train-humanml272 (not pinned to a commit)", "transformer 7.82 B",
        "weights 36.2 GB in float32, 20.6 GB in bfloat16", "commercial use not stated", "FID 3.081",
        "eligible: trained on the train split", "@inproceedings{fan2025gotozero",
    ):  # fmt: skip
        assert part in text
    assert main(["zoo", "show", "motionmillion-7b", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["parameters"] == 7818498048 + 11349782 + 1223527424
    assert card["memory_bytes"]["bfloat16"] == 2 * 7818498048 + 4 * (11349782 + 1223527424)
    assert card["hub"] == {"repository": "ZeyuLing/hftrainer-gotozero-7b-train-humanml272", "revision": None}


@pytest.mark.parametrize(("n", "text"), [(999, "999"), (1234, "1.23 k"), (22460629, "22.5 M"), (9053375254, "9.05 B")])
def test_counts_are_rounded_to_three_digits(n, text):
    assert count(n) == text


def test_sizes_are_powers_of_ten():
    assert size(15_640_000_000) == "15.6 GB"
    assert size(45_400_000) == "45 MB"


TOOL = REPOSITORY / "tools" / "build_model_pages.py"


def test_the_committed_pages_are_those_of_the_cards(monkeypatch, capsys):
    """If this fails: python tools/build_model_pages.py."""
    monkeypatch.setattr(sys, "argv", ["build_model_pages.py", "--check"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOL), run_name="__main__")
    assert (stop.value.code, capsys.readouterr().out) == (0, "")


def test_a_page_that_differs_is_noticed(monkeypatch, tmp_path, capsys):
    tool = runpy.run_path(str(TOOL))
    for path, text in tool["pages"]().items():
        target = tmp_path / path.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    monkeypatch.setitem(tool["main"].__globals__, "REPOSITORY", tmp_path)
    monkeypatch.setattr(sys, "argv", ["build_model_pages.py", "--check"])
    assert tool["main"]() == 0
    page = tmp_path / "docs" / "models" / "gotozero-nano.md"
    page.write_text(page.read_text().replace("22.5 M", "22 M"))
    assert tool["main"]() == 1
    assert capsys.readouterr().out == "out of date: docs/models/gotozero-nano.md\n"
    assert "22 M" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["build_model_pages.py"])
    assert tool["main"]() == 0
    assert "22.5 M" in page.read_text()


def test_no_page_is_left_of_a_card_that_went():
    made = {
        path.stem
        for path in (REPOSITORY / "docs" / "models").glob("*.md")
        if re.match("<!-- Generated from the model's card", path.read_text())
    }
    assert made == {path.stem for path in runpy.run_path(str(TOOL))["pages"]()} - {"zoo"}
