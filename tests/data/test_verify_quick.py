"""What `hftrainer train` and `hftrainer evaluate run` look at before work is spent: a sample of clips and codes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from hftrainer.apps.eval_dataset import open_dataset
from hftrainer.config import ConfigError, load_experiment
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.motion.windows import MotionWindows, MotionWindowsConfig
from hftrainer.data.prepare.verify_quick import quick_problem, stale_clips
from hftrainer.data.synthetic.motions import write_tokens
from hftrainer.data.tokens.captioned import TextTokens, TextTokensConfig
from hftrainer.evaluation.protocols import load_protocol
from hftrainer.files import sha256
from tests.conftest import REPOSITORY


@pytest.fixture
def dataset(synthetic, tmp_path) -> DatasetFolder:
    """Imported, as far as its records say, and tokenized."""
    dataset = DatasetFolder(shutil.copytree(synthetic, tmp_path / "data"))
    write_tokens(dataset, codebook_size=240)
    records = [{"clip": name, "motion_sha256": sha256(dataset.motion_path(name))} for name in dataset.names()]
    (dataset.root / "import.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return dataset


def windows(dataset: DatasetFolder) -> MotionWindows:
    return MotionWindows(MotionWindowsConfig(root=str(dataset.root), window=32))


def tokens(dataset: DatasetFolder) -> TextTokens:
    return TextTokens(TextTokensConfig(root=str(dataset.root)))


def test_a_good_set_passes(dataset):
    assert quick_problem(windows(dataset), codes=True) is None
    assert quick_problem(tokens(dataset), codes=True) is None


def test_clips_that_changed_since_their_import_are_named(dataset):
    name = dataset.names("train")[0]
    dataset.write_motion(name, dataset.motion(name)[:-1])
    for source in (windows(dataset), tokens(dataset)):
        assert f"changed since it was imported: {name}" in str(quick_problem(source, codes=True))
    records = (dataset.root / "import.jsonl").read_text().splitlines()
    cut = [json.dumps({"clip": json.loads(line)["clip"]}) for line in records]
    (dataset.root / "import.jsonl").write_text("\n".join(cut) + "\n")
    assert "an import was interrupted" in str(stale_clips(dataset, dataset.names("train")))


def test_codes_outside_of_the_codebook_are_named_unless_bad_samples_are_allowed(dataset):
    path = dataset.root / "tokens" / "codes.npy"
    codes = np.load(path)
    codes[3] = 240
    np.save(path, codes)
    assert "entry 0 has codes in" in str(quick_problem(tokens(dataset), codes=True))
    assert quick_problem(tokens(dataset), codes=False) is None


def test_statistics_of_other_units_are_named(dataset):
    path = dataset.root / "mean_std" / "std.npy"
    np.save(path, 10 * np.load(path))
    for source in (windows(dataset), tokens(dataset)):
        assert "mean_std/ does not describe the motions" in str(quick_problem(source, codes=True))


def test_evaluation_refuses_clips_that_changed_since_their_import(dataset):
    protocol = load_protocol("hftrainer-v1")
    open_dataset(dataset.root, protocol, split="test")
    name = dataset.names("test")[0]
    dataset.write_motion(name, dataset.motion(name)[:-1])
    with pytest.raises(ValueError, match=f"changed since it was imported: {name}"):
        open_dataset(dataset.root, protocol, split="test")
    open_dataset(dataset.root, protocol, split="test", any_values=True)


def test_training_refuses_them_too_and_a_split_without_clips(dataset, tmp_path):
    pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")
    from hftrainer.training.fit import fit

    config = REPOSITORY / "configs" / "gotozero" / "debug_ar.yaml"
    data = f"data={{name: text_tokens, root: {dataset.root}, batch_size: 4, val_split: null}}"
    settings = [data, f"output_dir={tmp_path / 'run'}", "trainer.val_every_n_steps=null", "callbacks=[]"]
    names = dataset.names("train")
    dataset.write_split("train", [])
    with pytest.raises(ConfigError, match="train_split=train has no clips to train on"):
        fit(load_experiment(config, settings))
    dataset.write_split("train", names)
    dataset.write_motion(names[0], dataset.motion(names[0])[:-1])
    with pytest.raises(ConfigError, match="changed since it was imported"):
        fit(load_experiment(config, settings))
