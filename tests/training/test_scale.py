"""Training from packed sets and from stored text features is training as it was."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.cli import main
from hftrainer.config import ConfigError, load_experiment
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.synthetic.motions import write_tokens
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.training.fit import fit
from tests.conftest import REPOSITORY
from tests.tiny import tiny_text_encoder

CONFIGS = REPOSITORY / "configs" / "gotozero"


@pytest.fixture(scope="module")
def root(tmp_path_factory, synthetic) -> Path:
    """A dataset with codes, packed by the commands, and a text encoder with stored features."""
    root = tmp_path_factory.mktemp("scale") / "data"
    dataset = DatasetFolder(shutil.copytree(synthetic, root))
    write_tokens(dataset, codebook_size=240)
    tiny_text_encoder().save_pretrained(root / "encoder")
    assert main(["data", "pack-tokens", str(root), "--out", str(root / "packed")]) == 0
    assert main(["data", "pack-motions", str(root), "--split", "train", "--out", str(root / "packed_motions")]) == 0
    return root


def run(name: str, kind: str, root: Path, *settings: str) -> dict[int, float]:
    """Losses of a few steps by step."""
    common = [
        f"output_dir={root / name}", "trainer.max_steps=5", "trainer.progress_bar=false", "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=1", "trainer.val_every_n_steps=5", "callbacks=[]",
    ]  # fmt: skip
    fit(load_experiment(CONFIGS / f"debug_{kind}.yaml", [*common, *settings]))
    rows = csv.DictReader((root / name / "logs" / "version_0" / "metrics.csv").read_text().splitlines())
    return {int(row["step"]): float(row["train/loss"]) for row in rows if row.get("train/loss")}


def test_losses_from_a_packed_set_are_those_from_the_folder(root):
    model = ["model.ar.clip_dim=32", f"model.text_encoder.source={root / 'encoder'}"]
    rules = "batch_size: 4, max_tokens: 40, token_keep_prob: 0.9"
    folder = run("a", "ar", root, *model, f"data={{name: text_tokens, root: {root}, {rules}}}")
    packed = run("b", "ar", root, *model, f"data={{name: packed_tokens, root: {root / 'packed'}, {rules}}}")
    assert len(folder) == 5
    assert packed == folder
    rules = "window: 32, batch_size: 4, mirror: 0.5, val_split: null"
    folder = run("c", "tokenizer", root, f"data={{name: motion_windows, root: {root}, {rules}}}")
    packed = run("d", "tokenizer", root, f"data={{name: packed_windows, root: {root / 'packed_motions'}, {rules}}}")
    assert len(folder) == 5
    assert packed == folder


def test_losses_from_stored_features_are_those_of_their_encoder(root, capsys):
    features = root / "features.safetensors"
    command = ["data", "text-features", str(root), "--encoder", str(root / "encoder"), "--out", str(features)]
    assert main([*command, "--size-only"]) == 0
    assert "GB -> " in capsys.readouterr().out
    assert not features.exists()
    assert main(command) == 0
    data = f"data={{name: packed_tokens, root: {root / 'packed'}, batch_size: 4}}"
    shared = ["model.ar.clip_dim=32", data, "task.text_dtype=float32"]
    encoded = run("e", "ar", root, *shared, f"model.text_encoder.source={root / 'encoder'}")
    callback = "callbacks=[{name: artifact}]"
    stored = run("f", "ar", root, *shared, "model.text_encoder=null", f"model.init.text_features={features}", callback)
    assert len(stored) == 5
    assert stored == pytest.approx(encoded, rel=1e-5)
    # the model can be used with the features it was trained on
    bundle = MotionMillionBundle.from_pretrained(root / "f" / "last", text_features=features)
    assert bundle.encode_text(["a person squats down and stands up"]).features.shape[-1] == 32


def test_a_disk_without_room_is_refused_before_encoding(root, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 100))
    out = root / "full.safetensors"
    assert main(["data", "text-features", str(root), "--encoder", str(root / "encoder"), "--out", str(out)]) == 1
    assert "GB left; store them as bfloat16" in capsys.readouterr().err
    assert not out.exists()


def test_written_sizes_must_be_those_of_the_start(root, tiny_model):
    settings = [f"model.init.ar={tiny_model}", f"model.init.tokenizer={tiny_model}", "model.ar.n_head=2"]
    setup = load_experiment(CONFIGS / "debug_ar.yaml", [*settings, f"data.root={root}", f"output_dir={root / 'x'}"])
    with pytest.raises(ConfigError, match=r"model.ar.n_head=2, but the transformer in .* \(model.init.ar\) has 4"):
        fit(setup)
