"""Go to Zero's parts on motions of another representation than motion272: HumanML3D-263 at 20 fps."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.cli import main
from hftrainer.config import ConfigError, load_experiment
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.motion.packed import pack_motions
from hftrainer.data.prepare.convert_dataset import convert_dataset
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.training.dry_run import dry_run
from hftrainer.training.fit import fit
from tests.conftest import REPOSITORY

CONFIG = REPOSITORY / "configs" / "gotozero" / "debug_tokenizer.yaml"
QUIET = ["trainer.progress_bar=false", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def hml(synthetic, tmp_path_factory) -> DatasetFolder:
    out = tmp_path_factory.mktemp("hml263")
    convert_dataset(synthetic, out, "hml263")
    return DatasetFolder(out)


def experiment(folder: Path, data: Path | str, *overrides: str):
    return load_experiment(CONFIG, [f"output_dir={folder}", f"data.root={data}", *QUIET, *overrides])


def column(run: Path, name: str) -> list[float]:
    rows = [
        row
        for path in sorted(run.glob("logs/version_*/metrics.csv"))
        for row in csv.DictReader(path.read_text().splitlines())
    ]
    return [float(row[name]) for row in rows if row.get(name)]


@pytest.fixture(scope="module")
def trained(hml, tmp_path_factory) -> Path:
    """Every term of the loss, mirrored windows, and validation by joints at 20 fps."""
    terms = ("velocity", "acceleration", "root", "joints", "joint_velocity", "slide")
    run = tmp_path_factory.mktemp("run") / "hml263"
    return fit(
        experiment(
            run,
            hml.root,
            "model.tokenizer.input_dim=263",
            "data.mirror=0.5",
            "task.loss.name=reconstruction",
            *(f"task.loss.{term}=0.1" for term in terms),
        )
    )


def test_a_tokenizer_learns_hml263(trained):
    values = column(trained, "train/loss")
    assert len(values) == 40
    assert sum(values[-5:]) < 0.9 * sum(values[:5])
    assert column(trained, "train/root")
    errors = column(trained, "val/mpjpe_mm")
    assert errors[-1] < errors[0]
    assert (trained / "samples" / "step-00000040" / "reconstructions.html").is_file()


def test_its_artifact_says_what_it_reads(trained, hml, tmp_path):
    folder = trained / "last"
    assert json.loads((folder / "mm_config.json").read_text())["representation"] == "hml263"
    assert json.loads((folder / "model_index.json").read_text())["representation"] == "hml263"
    bundle = MotionMillionBundle.from_pretrained(folder)
    assert bundle.representation == "hml263"
    np.testing.assert_array_equal(np.stack([bundle.mean, bundle.std]), np.stack(hml.statistics()))
    clip = torch.from_numpy(hml.motion(hml.names()[0]))[None]
    codes = bundle.encode_motion(clip)
    again = bundle.decode_codes(codes)
    assert again.shape == (1, 2 * codes.shape[1], 263)
    # better than the mean of the data set, in units of its standard deviation
    error = (bundle.normalize(again) - bundle.normalize(clip[:, : again.shape[1]])).abs().mean()
    assert error < bundle.normalize(clip).abs().mean()
    other = tmp_path / "other"
    bundle.save_pretrained(other)
    assert MotionMillionBundle.from_pretrained(other).representation == "hml263"


def test_a_transformer_takes_the_representation_of_its_tokenizer(trained):
    from hftrainer.models.motion.motionmillion.config import InitFrom, MotionMillionConfig

    built = MotionMillionBundle.from_config(MotionMillionConfig(init=InitFrom(tokenizer=str(trained / "last"))))
    assert (built.representation, len(built.mean)) == ("hml263", 263)
    wrong = MotionMillionConfig(init=InitFrom(tokenizer=str(trained / "last")), representation="motion272")
    with pytest.raises(ConfigError, match=r"model\.representation=motion272, but the tokenizer .* makes hml263"):
        MotionMillionBundle.from_config(wrong)


@pytest.mark.parametrize(
    ("which", "overrides", "message"),
    [
        ("hml", [], r"model\.tokenizer\.input_dim=272.*\(data\.root\) is hml263, with 263 features"),
        ("synthetic", ["model.tokenizer.input_dim=263"], r"input_dim=263.*\(data\.root\) is motion272, with 272"),
        (
            "hml",
            ["model.tokenizer.input_dim=263", "model.representation=motion272"],
            r"model\.tokenizer\.input_dim=263, but model\.representation is motion272, with 272",
        ),
        (
            "joints",
            ["model.tokenizer.input_dim=66", "model.representation=joints"],
            r"model\.representation=joints, but that of the dataset \(data\.root\) is joints66",
        ),
    ],
    ids=["272 for 263", "263 for 272", "width and name", "another name"],
)
def test_what_does_not_fit_is_refused_with_both_fields(hml, synthetic, tmp_path, which, overrides, message):
    if which == "joints":
        convert_dataset(synthetic, tmp_path / "joints", "joints66")
    root = {"hml": hml.root, "synthetic": synthetic, "joints": tmp_path / "joints"}[which]
    with pytest.raises(ConfigError, match=message):
        fit(experiment(tmp_path / "run", root, *overrides))


def test_a_dry_run_counts_the_tokenizer_of_263(hml, tmp_path):
    found = dry_run(experiment(tmp_path / "run", hml.root, "model.tokenizer.input_dim=263"))
    usual = dry_run(experiment(tmp_path / "run", tmp_path / "nowhere"))
    assert sum(p.parameters for p in found.parts) < sum(p.parameters for p in usual.parts)
    with pytest.raises(ConfigError, match="with 263 features"):
        dry_run(experiment(tmp_path / "run", hml.root))


def test_other_data_than_the_models_is_not_tokenized(trained, synthetic, tmp_path, capsys):
    """And its own are: the codes are of frames at 20 a second."""
    data = shutil.copytree(synthetic, tmp_path / "data")
    assert main(["data", "tokenize", str(data), "--model", str(trained / "last")]) == 1
    assert "holds motion272, but the tokenizer of" in capsys.readouterr().err


def test_training_does_not_begin_on_z_scores(hml, tmp_path):
    data = DatasetFolder(shutil.copytree(hml.root, tmp_path / "data"))
    mean, std = data.statistics()
    for name in data.names():
        data.write_motion(name, (data.motion(name) - mean) / std)
    for packed in (False, True):
        root, source = data.root, []
        if packed:
            pack_motions(data, tmp_path / "packed")
            root, source = tmp_path / "packed", ["data.name=packed_windows"]
        with pytest.raises(ConfigError, match=r"data\.root=.*not hml263 in physical units \(normalized\)"):
            fit(experiment(tmp_path / "run", root, "model.tokenizer.input_dim=263", *source))


def test_sets_of_different_motions_do_not_mix(hml, synthetic, tmp_path):
    both = [f"data.root=[{hml.root}, {synthetic}]", "model.tokenizer.input_dim=263", "data.name=motion_windows"]
    with pytest.raises(ConfigError, match="the datasets have different representations: hml263, motion272"):
        fit(experiment(tmp_path / "run", hml.root, *both))
    again = shutil.copytree(hml.root, tmp_path / "again")
    both[0] = f"data.root=[{hml.root}, {again}]"
    run = fit(experiment(tmp_path / "run", hml.root, *both, "trainer.max_steps=20"))
    assert MotionMillionBundle.from_pretrained(run / "last").representation == "hml263"


def test_synthetic_data_of_another_representation(tmp_path):
    run = fit(
        experiment(
            tmp_path / "run",
            tmp_path / "data",
            "data.representation=hml263",
            "model.tokenizer.input_dim=263",
            "data.clips=12",
            "trainer.max_steps=2",
            "trainer.val_every_n_steps=null",
            "callbacks=[]",
        )
    )
    assert DatasetFolder(tmp_path / "data").representation == "hml263"
    assert len(column(run, "train/loss")) == 2
    with pytest.raises(ConfigError, match=r"data\.representation=motion272, but the dataset in data\.root"):
        fit(experiment(tmp_path / "other", tmp_path / "data", "data.representation=motion272"))


def test_judges_are_not_trained_on_motions_that_they_do_not_read(hml, tmp_path):
    from hftrainer.models.action_classifier import ActionClassifier, ActionClassifierConfig
    from hftrainer.registry import TASKS

    source = SimpleNamespace(
        contents=["a"], styles=["b"], representation="hml263", statistics=hml.statistics(), train_captions=list
    )
    judge = ActionClassifier(ActionClassifierConfig())
    with pytest.raises(ConfigError, match=r"model\.representation=motion272.*\(data\.root\) is hml263"):
        TASKS.build({"name": "action_classifier"}, bundle=judge, source=source)
    fits = ActionClassifier(ActionClassifierConfig(representation="hml263"))
    task = TASKS.build({"name": "action_classifier"}, bundle=fits, source=source)
    assert task.bundle.classify([hml.motion(hml.names()[0])]) == (["a"], ["b"])
    task.bundle.save_pretrained(tmp_path)
    assert ActionClassifier.from_pretrained(tmp_path).config.representation == "hml263"
