"""Downloading by a card: the pinned commit is asked for, and what comes is compared with the hashes."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from hftrainer.cli import main
from hftrainer.files import sha256
from tests.zoo.plugin import TOY_CARD

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Stands for the hub: a repository of two files, and what was asked of it."""
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"weights")
    (folder / "model_index.json").write_text('{"pipeline": "toy263"}')
    kept = SimpleNamespace(folder=folder, asked=[], cached=True)

    def download(name, **options):
        kept.asked.append({"name": name, **options})
        if options["local_files_only"] and not kept.cached:
            raise errors.LocalEntryNotFoundError("not in the cache")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return kept


@pytest.fixture
def card(user_zoo, hub):
    """Writes the toy's card, with its files on the hub."""

    def write(revision=COMMIT, digest=None):
        digest = digest or sha256(hub.folder / "weights.bin")
        lines = [
            f"hub: {{repository: someone/toy, revision: {revision or 'null'}}}",
            f"files: {{weights.bin: {digest}}}",
        ]
        text = TOY_CARD.format(pipeline="toy263").replace("folders: [../weights]\n", "")
        (user_zoo / "toy-263.yaml").write_text(text + "\n".join(lines) + "\n")

    return write


def test_pull_asks_for_the_commit_and_compares(card, hub, tmp_path, capsys):
    card()
    assert main(["zoo", "pull", "toy", "--cache_dir", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{hub.folder}: 1 files match their hashes\n"
    assert said.err == ""
    (asked,) = hub.asked
    assert (asked["name"], asked["revision"], asked["cache_dir"]) == ("someone/toy", COMMIT, tmp_path)


def test_other_files_than_the_cards_are_an_error(card, hub, capsys):
    card()
    (hub.folder / "weights.bin").write_bytes(b"others")
    assert main(["zoo", "pull", "toy"]) == 1
    assert "does not match the card of toy-263: weights.bin missing or with another hash" in capsys.readouterr().err
    (hub.folder / "weights.bin").unlink()
    assert main(["zoo", "pull", "toy"]) == 1


def test_another_revision_is_not_held_to_the_cards_hashes(card, hub, capsys):
    card(digest="f" * 64)
    assert main(["zoo", "pull", "toy"]) == 1
    assert main(["zoo", "pull", "toy", "--revision", "v2"]) == 0
    assert hub.asked[-1]["revision"] == "v2"
    assert "no known hashes" in capsys.readouterr().out


def test_a_card_that_is_not_pinned_says_so(card, hub, capsys):
    card(revision=None)
    assert main(["zoo", "pull", "toy"]) == 0
    assert "warning: toy-263 is not pinned to a commit of someone/toy" in capsys.readouterr().err


def test_path_asks_no_network(card, hub, capsys):
    card()
    assert main(["zoo", "path", "toy"]) == 0
    assert capsys.readouterr().out == f"{hub.folder}\n"
    assert hub.asked[-1]["local_files_only"] is True
    assert hub.asked[-1]["revision"] == COMMIT
    hub.cached = False
    assert main(["zoo", "path", "toy"]) == 1
    assert "get them with: hftrainer zoo pull toy-263" in capsys.readouterr().err


def test_a_committed_model_is_compared_where_it_is(tmp_path, monkeypatch, capsys):
    from hftrainer.zoo.files import REPOSITORY

    target = tmp_path / "checkpoints" / "motionstreamer272-nano"
    shutil.copytree(REPOSITORY / "checkpoints" / "motionstreamer272-nano", target)
    monkeypatch.chdir(tmp_path)
    assert main(["zoo", "pull", "motionstreamer272-nano"]) == 0
    assert f"{target}: 9 files match their hashes" in capsys.readouterr().out
    (target / "stats" / "mean.npy").write_bytes(b"")
    assert main(["zoo", "pull", "motionstreamer272-nano"]) == 1
    assert "stats/mean.npy" in capsys.readouterr().err


def test_files_that_are_nowhere_are_an_error(user_zoo, capsys):
    (user_zoo / "toy-263.yaml").write_text(TOY_CARD.format(pipeline="toy263"))
    for what in ("path", "pull"):
        assert main(["zoo", what, "toy"]) == 1
        assert "the files of toy-263 are not on this machine and not on a hub" in capsys.readouterr().err


def test_the_vocabulary_is_read_from_the_models_folder(card, hub, capsys):
    card()
    assert main(["zoo", "show", "toy", "--vocabulary"]) == 1
    assert "toy-263 comes without a list of the words it was trained on" in capsys.readouterr().err
    (hub.folder / "vocabulary.json").write_text(json.dumps({"verbs": {"walk": 3, "run": 12}, "styles": {"slow": 1}}))
    assert main(["zoo", "show", "toy", "--vocabulary"]) == 0
    assert capsys.readouterr().out == "verbs:\n  run   12\n  walk  3\nstyles:\n  slow  1\n"
    (hub.folder / "vocabulary.json").write_text('{"verbs": ["walk"]}')
    assert main(["zoo", "show", "toy", "--vocabulary"]) == 1
    assert "vocabulary.json must be" in capsys.readouterr().err
