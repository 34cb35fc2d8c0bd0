"""Cards come from the package, plug-ins and the user; a broken one is named and harms no other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hftrainer.cli import main
from hftrainer.config import ConfigError
from hftrainer.zoo import cards, find_card, problems
from hftrainer.zoo.collection import BUILT_IN
from tests.zoo.plugin import TOY_CARD, TOY_PIPELINE, install, install_toy

BUILT_INS = sorted(path.stem for path in BUILT_IN.glob("*.yaml"))
CARD = TOY_CARD.format(pipeline="toy263")


def test_the_packages_own_cards():
    assert set(BUILT_INS) <= set(cards())
    assert find_card("motionmillion-7b") == find_card("gotozero-7b-train")
    with pytest.raises(ConfigError, match=r"no model called 'gotozero-8b'. Did you mean 'gotozero-.b'"):
        find_card("gotozero-8b")


def test_a_plug_in_ships_cards(site):
    install_toy(site)
    assert find_card("toy") == cards()["toy-263"]
    assert find_card("toy").file == site / "toyplug" / "cards" / "toy-263.yaml"
    assert sorted(cards()) == sorted([*BUILT_INS, "toy-263"])
    assert problems() == []
    assert "toyplug" not in sys.modules  # cards are read without importing the plug-in


def test_a_plug_in_of_one_module_needs_no_cards(site):
    install(site, "small", "small:register", {"small.py": "def register(): ...\n"})
    (site / "cards").mkdir()  # beside the module, so not its own
    (site / "cards" / "toy-263.yaml").write_text(CARD)
    assert sorted(cards()) == BUILT_INS


def test_a_folder_of_cards_works(user_zoo, tmp_path, monkeypatch):
    (user_zoo / "mine.yaml").write_text(CARD)
    other = tmp_path / "other"
    other.mkdir()
    (other / "second.yml").write_text(CARD.replace("[toy]", "[]"))
    monkeypatch.setenv("HFTRAINER_ZOO", f"{user_zoo}:{other}:{user_zoo}")
    assert find_card("toy").name == "mine"
    assert find_card("second").file == other / "second.yml"
    monkeypatch.setenv("HFTRAINER_ZOO", f"{user_zoo}")
    assert "second" not in cards()  # what the variable says now counts
    monkeypatch.setenv("HFTRAINER_ZOO", str(tmp_path / "nowhere"))
    assert problems() == [f"HFTRAINER_ZOO names '{tmp_path / 'nowhere'}', which is not a folder"]
    assert sorted(cards()) == BUILT_INS


def test_a_broken_card_is_named_and_harms_no_other(user_zoo):
    (user_zoo / "bad.yaml").write_text(CARD.replace("text-to-motion", "text2motion"))
    (user_zoo / "worse.yaml").write_text("task: [\n")
    (user_zoo / "good.yaml").write_text(CARD)
    assert sorted(cards()) == sorted([*BUILT_INS, "good"])
    bad, worse = problems()
    assert f"{user_zoo / 'bad.yaml'}: task must be one of" in bad
    assert f"{user_zoo / 'worse.yaml'} is not YAML: " in worse
    assert "line 2, column 1" in worse
    with pytest.raises(ConfigError, match=r"no model called 'bad'.*cannot be used: .*bad\.yaml: task must be"):
        find_card("bad")
    with pytest.raises(ConfigError, match=r"no model called 'other'.*`hftrainer zoo list` says why"):
        find_card("other")


@pytest.mark.parametrize("taken", ["gotozero-nano", "nano"])
def test_a_built_in_name_cannot_be_taken_over(site, user_zoo, taken):
    install(site, "taker", "taker", {"taker/__init__.py": "", f"taker/cards/{taken}.yaml": CARD})
    assert find_card(taken).file == BUILT_IN / "gotozero-nano.yaml"
    assert cards()["gotozero-nano"].file == BUILT_IN / "gotozero-nano.yaml"
    (problem,) = problems()
    assert str(BUILT_IN / "gotozero-nano.yaml") in problem
    assert str(site / "taker" / "cards" / f"{taken}.yaml") in problem
    assert f"'{taken}' of the package's own card cannot be overridden" in problem


def test_two_strangers_with_one_name_are_both_named(site, user_zoo):
    install_toy(site)
    (user_zoo / "toy-263.yaml").write_text(CARD.replace("[toy]", "[mine]"))
    assert "toy-263" not in cards()
    with pytest.raises(
        ConfigError, match=rf"^the name 'toy-263' is used by {site}.* and {user_zoo}.*; rename one of them"
    ):
        find_card("toy-263")
    assert find_card("mine").file == user_zoo / "toy-263.yaml"  # what only one claims stays clear


def test_broken_plug_ins_are_named_by_the_command(site, capsys):
    """badplug cannot be imported, badover wants to replace a built-in; both call their entry point "bad"."""
    install_toy(site)
    install(site, "badplug", "badplug", {"badplug.py": "import nonexistent_thing\n"}, entry="bad")
    over = TOY_PIPELINE.replace("toy263", "motionmillion")
    card = CARD.replace("[toy]", "[]").replace("weights", "elsewhere")
    install(site, "badover", "badover", {"badover/__init__.py": over, "badover/cards/over.yaml": card}, entry="bad")
    assert main(["zoo", "list"]) == 0
    said = capsys.readouterr()
    assert all(name in said.out for name in [*BUILT_INS, "toy-263", "over"])
    assert "warning: The plug-in 'bad' (badplug) cannot be loaded" in said.err
    assert "nonexistent_thing" in said.err
    assert "warning: The plug-in 'bad' (badover) cannot be loaded" in said.err
    assert "'motionmillion' is built in" in said.err
    assert "'toyplug'" not in said.err
    assert "toy-263.yaml" not in said.err


def test_a_card_whose_pipeline_is_not_installed_is_named(user_zoo, capsys):
    (user_zoo / "mine.yaml").write_text(TOY_CARD.format(pipeline="toy265"))
    (user_zoo / "path.yaml").write_text(TOY_CARD.format(pipeline="my.module:Pipeline").replace("[toy]", "[]"))
    assert main(["zoo", "list"]) == 0
    said = capsys.readouterr()
    assert f"warning: {user_zoo / 'mine.yaml'}: the pipeline 'toy265' of mine is not installed; known: " in said.err
    assert len(said.err.splitlines()) == 1
    assert "mine" in said.out


def test_reading_cards_loads_nothing_heavy():
    code = (
        "import sys; from hftrainer.zoo import cards; cards()\n"
        "print([m for m in ('torch', 'numpy', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
