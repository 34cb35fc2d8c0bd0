"""From captions to what a model knows: the command, its files, and the check of how good it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hftrainer.apps.prompt_check import check_prompts
from hftrainer.cli import main
from hftrainer.data.prepare.english_words import read_wordnet
from hftrainer.manifest import verify_manifest


def write_wordnet(folder: Path) -> Path:
    """Files in WordNet's form with a handful of words."""
    folder.mkdir()
    glosses = "the cook boils pasta; the bank pays the rates; a dog barks; a person walks; stocks fall; paint the wall"
    line = "{offset} {file} n 01 word 0 000 | {gloss}\n"
    for kind, offset, file in (("noun", "00000010", "05"), ("verb", "00000020", "30"), ("adj", "00000030", "00"),
                               ("adv", "00000040", "02")):  # fmt: skip
        (folder / f"data.{kind}").write_text("  1 licence\n" + line.format(offset=offset, file=file, gloss=glosses))
    (folder / "index.noun").write_text("  1 licence\ndog n 1 0 1 0 00000010\nbank n 1 1 @ 1 0 00000099\n")
    verbs = ("cook", "walk", "pay", "fall", "squat", "wave", "turn", "raise", "run", "stand")
    (folder / "index.verb").write_text("".join(f"{verb} v 1 0 1 0 00000020\n" for verb in verbs))
    return folder


def test_words_of_wordnet(tmp_path):
    found = read_wordnet(write_wordnet(tmp_path / "wn"))
    assert found.levels["the"] == 4  # 16 times
    assert found.levels["bank"] == 2
    assert found.verbs == {"cook", "fall"}  # those that occur in definitions as they are
    assert found.animals == {"dog"}
    with pytest.raises(ValueError, match=r"there is no .*data\.noun; install WordNet"):
        read_wordnet(tmp_path)


def test_the_command_teaches_a_model_what_it_knows(synthetic, tiny_model, tmp_path, capsys, monkeypatch):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    wordnet = write_wordnet(tmp_path / "wn")
    assert main(["evaluate", "prompts", str(model), "--data", str(synthetic), "--split", "val"]) == 1
    assert "cannot tell which prompts it knows" in capsys.readouterr().err
    command = ["data", "vocabulary", str(synthetic), "--model", str(model), "--wordnet", str(wordnet), "--normalize"]
    assert main(command) == 0
    assert "absurd prompts caught" in capsys.readouterr().out
    verify_manifest(model)
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    monkeypatch.setattr("hftrainer.pipelines.knowledge.files.write_safetensors", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # with some of the new files only, the model once could not be loaded
        main([*command, "--seconds"])
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "wn"]
    groups = json.loads((model / "vocabulary.json").read_text())
    assert set(groups) == {"actions", "verbs", "words"}
    assert sum(groups["actions"].values()) > 20
    (tmp_path / "more.txt").write_text("a person walks forward\na person squats down\n")
    more = ["--split", "val", "--captions", str(tmp_path / "more.txt"), "--out", str(tmp_path / "out")]
    assert main(["evaluate", "prompts", str(model), "--data", str(synthetic), *more]) == 0
    assert "| all | 243 |" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "prompts.json").read_text())
    assert found["absurd"]["doubted"] > 0.8
    assert "| absurd prompts | number | doubted |" in (tmp_path / "out" / "prompts.md").read_text()
    checked = check_prompts(model, synthetic, split="val", captions=[tmp_path / "more.txt"])
    assert len(checked.mistaken) == len(found["mistaken"])
    assert (
        main(["generate", "the stock market crashed", "--model", str(model), "--strict", "--out", str(tmp_path)]) == 1
    )


def test_a_dataset_without_captions_is_refused(synthetic, tiny_model, tmp_path, capsys):
    root = shutil.copytree(synthetic, tmp_path / "data")
    shutil.rmtree(root / "texts")
    wordnet = write_wordnet(tmp_path / "wn")
    assert main(["data", "vocabulary", str(root), "--model", str(tiny_model), "--wordnet", str(wordnet)]) == 1
    assert "no clip of the split 'train' has a caption" in capsys.readouterr().err
