"""Go to Zero's transformer with each kind of text encoder, by configuration only: trained, saved, loaded, asked."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

import hftrainer
from hftrainer.cli import main
from hftrainer.config import ConfigError, load_experiment
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.text_features import StoredTextFeatures
from hftrainer.training.dry_run import dry_run
from hftrainer.training.fit import fit
from tests.conftest import REPOSITORY
from tests.tiny import tiny_text_encoder
from tests.tiny_encoders import tiny_bert, tiny_clip

EXAMPLE = REPOSITORY / "examples" / "other_text_encoder"
DEBUG = REPOSITORY / "configs" / "gotozero" / "debug_ar.yaml"
KINDS = {
    "clip": (EXAMPLE / "clip.yaml", 32, []),
    "projected": (EXAMPLE / "clip.yaml", 16, ["model.text_encoder.pooling=projected"]),
    "sentence": (EXAMPLE / "sentence.yaml", 32, []),
    "t5": (DEBUG, 32, []),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory, synthetic):
    root = tmp_path_factory.mktemp("encoders")
    tiny_clip(root / "clip", both=True)
    (root / "projected").symlink_to(root / "clip")
    tiny_bert(root / "sentence")
    tiny_text_encoder().save_pretrained(root / "t5")
    shutil.copytree(synthetic, root / "data")
    return root


def settings(work: Path, kind: str, run: Path) -> list[str]:
    return [
        f"output_dir={run}", f"data.root={work / 'data'}", f"model.text_encoder.source={work / kind}",
        f"model.ar.clip_dim={KINDS[kind][1]}", *KINDS[kind][2], "trainer.max_steps=12", "trainer.val_every_n_steps=12",
        "trainer.checkpoint_every_n_steps=12", "trainer.log_every_n_steps=1", "trainer.progress_bar=false",
        "trainer.accelerator=cpu",
    ]  # fmt: skip


@pytest.fixture(scope="module", params=list(KINDS))
def trained(request, work):
    kind, run = request.param, work / f"run_{request.param}"
    callback = "callbacks=[{name: artifact}, {name: t2m_inference, prompts: [run], formats: [npy], seconds: 1}]"
    fit(load_experiment(KINDS[kind][0], [*settings(work, kind, run), callback]))
    return kind, run


def losses(run: Path) -> list[float]:
    rows = csv.DictReader(next(run.glob("logs/version_*/metrics.csv")).read_text().splitlines())
    return [float(row["train/loss"]) for row in rows if row.get("train/loss")]


def test_it_learns_and_its_validation_generates(trained):
    _, run = trained
    values = losses(run)
    assert np.mean(values[-3:]) < 0.97 * np.mean(values[:3])
    assert np.load(next(run.glob("samples/*/*.npy"))).shape == (30, 272)


def test_its_folder_says_which_encoder_and_loads_by_itself(trained, work):
    kind, run = trained
    about = json.loads((run / "best" / "mm_config.json").read_text())["text_encoder"]
    name = {"projected": "clip"}.get(kind, kind)
    assert about["stored_in_artifact"]
    assert about.get("name", "t5") == name
    pipe = hftrainer.load_pipeline(run / "best")
    encoder = pipe.bundle.text_encoder
    assert (encoder.width, encoder.sha256()) == (KINDS[kind][1], about["sha256"])
    whole = pipe(["run", "a person walks forward, then waves"], seconds=1, seed=3, temperature=1.0)
    alone = pipe("a person walks forward, then waves", seconds=1, seed=3, temperature=1.0)[0]
    assert np.array_equal(whole[1].tokens, alone.tokens)
    assert whole[1].text_tokens == encoder.count_tokens(["a person walks forward, then waves"])[0]
    freed = hftrainer.load_pipeline(run / "best", free_text_encoder=True)
    assert np.array_equal(freed("run", seconds=1, seed=3, temperature=1.0)[0].tokens, whole[0].tokens)
    assert freed.bundle.text_model is None


def test_doctor_says_it_and_generate_uses_it(trained, tmp_path, capsys):
    kind, run = trained
    assert main(["doctor", str(run / "best")]) == 0
    said = {
        "clip": "name: clip, pooling: tokens", "projected": "name: clip, pooling: projected",
        "sentence": "name: sentence, pooling: mean", "t5": "name: t5",
    }[kind]  # fmt: skip
    assert said in capsys.readouterr().out
    command = ["generate", "run", "--model", str(run / "best"), "--seconds", "0.5", "--formats", "npy"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert np.load(next((tmp_path / "out").glob("*.npy"))).shape == (15, 272)


def test_an_encoder_that_was_left_out_is_still_known(trained, tmp_path):
    kind, run = trained
    bare = tmp_path / "bare"
    MotionMillionBundle.from_pretrained(run / "best", text_encoder=None).save_pretrained(bare)
    assert MotionMillionBundle.from_pretrained(bare).text_encoder is None
    named = MotionMillionBundle.from_pretrained(bare, text_encoder=str(run / "best" / "text_encoder"))
    assert type(named.text_encoder) is type(MotionMillionBundle.from_pretrained(run / "best").text_encoder)
    assert named.text_encoder.width == KINDS[kind][1]


def test_stored_features_train_generate_and_are_bound_to_it(trained, work, tmp_path):
    kind, run = trained
    out = tmp_path / "features.safetensors"
    (tmp_path / "prompts.txt").write_text("run\n")
    made = ["data", "text-features", str(work / "data"), "--prompts", str(tmp_path / "prompts.txt"), "--out", str(out)]
    assert main([*made, "--model", str(run / "best")]) == 0
    pipe = hftrainer.load_pipeline(run / "best", text_features=out)
    want = hftrainer.load_pipeline(run / "best")("run", seconds=1)[0]
    # features are stored in batches of other sizes
    np.testing.assert_allclose(pipe("run", seconds=1)[0].motion, want.motion, atol=1e-4)
    stored = [*settings(work, kind, tmp_path / "stored"), f"model.init.text_features={out}"]
    fit(load_experiment(KINDS[kind][0], [*stored, "callbacks=[{name: artifact}]", "model.text_encoder=null"]))
    values, other = losses(tmp_path / "stored"), losses(run)
    np.testing.assert_allclose(values[0], other[0], rtol=1e-3)
    again = hftrainer.load_pipeline(tmp_path / "stored" / "best", text_features=out)
    assert again("run", seconds=1)[0].motion.shape == (30, 272)
    loaded = MotionMillionBundle.from_pretrained(tmp_path / "stored" / "best", text_encoder=str(work / kind))
    assert loaded.text_encoder.width == KINDS[kind][1]
    for other in KINDS.keys() - {kind}:
        changes = [*settings(work, other, tmp_path / "refused"), f"model.init.text_features={out}"]
        with pytest.raises(ValueError, match=r"holds features of name: \w+.*, the model's text encoder is name: \w+"):
            fit(load_experiment(KINDS[other][0], changes))


def test_features_of_a_configurations_encoder(work, tmp_path, capsys):
    config = tmp_path / "clip.yaml"
    text = (EXAMPLE / "clip.yaml").read_text().replace("openai/clip-vit-base-patch32", str(work / "clip"))
    config.write_text(text)
    (tmp_path / "prompts.txt").write_text("run\na person waves\n")
    out = tmp_path / "f.safetensors"
    made = ["data", "text-features", "--prompts", str(tmp_path / "prompts.txt"), "--out", str(out)]
    assert main([*made, "--config", str(config)]) == 0
    assert StoredTextFeatures(out).kind == {"name": "clip", "pooling": "tokens"}
    assert main([*made, "--config", str(config), "--encoder", "x"]) == 1
    assert "give the encoder: one of" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["clip", "sentence"])
def test_the_encoder_trains_too_if_asked(work, kind, tmp_path):
    changes = ["task.train_text_encoder=true", "callbacks=[{name: artifact}]"]
    fit(load_experiment(KINDS[kind][0], [*settings(work, kind, tmp_path / "run"), *changes]))
    before = hftrainer.registry.TEXT_ENCODERS.build(
        {"name": kind, "source": str(work / kind), "pooling": "mean" if kind == "sentence" else "tokens"}
    )
    after = hftrainer.load_pipeline(tmp_path / "run" / "best").bundle.text_encoder
    assert after.sha256() != before.sha256()


@pytest.mark.parametrize(
    ("config", "parameters"), [("clip", 63_165_952), ("sentence", 22_713_216 - 147_840), ("3b", 123_060_480)]
)
def test_a_dry_run_counts_what_is_not_here(config, parameters, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if config == "3b":
        changes = ["source=openai/clip-vit-large-patch14", "name=clip", "max_tokens=77"]
        changes = [*(f"model.text_encoder.{change}" for change in changes), "model.ar.clip_dim=768"]
        found = dry_run(load_experiment(REPOSITORY / "configs" / "gotozero" / "ar_3b.yaml", changes))
    else:
        found = dry_run(load_experiment(EXAMPLE / f"{config}.yaml"))
    parts = {part.name: part.parameters for part in found.parts}
    assert parts["text_encoder"] == parameters
    assert any("its published sizes are used" in note for note in found.notes)


def test_a_width_that_does_not_fit_is_refused_before_a_step(work, tmp_path):
    wrong = [*settings(work, "clip", tmp_path / "run"), "model.ar.clip_dim=48"]
    with pytest.raises(ConfigError, match=r"model\.ar\.clip_dim=48 must be the text encoder's width 32"):
        fit(load_experiment(EXAMPLE / "clip.yaml", wrong))
