"""The classifier of actions: padding does not count, files come back, and a run of seconds learns."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hftrainer.data.folder import DatasetFolder
from hftrainer.models.action_classifier import ActionClassifier, ActionClassifierConfig
from hftrainer.models.checkpoint import CheckpointError


def classifier(seed: int = 0) -> ActionClassifier:
    torch.manual_seed(seed)
    config = ActionClassifierConfig(contents=["run", "walk", "wave"], styles=["normal", "sad"], width=16, depth=3)
    model = ActionClassifier(config).eval()
    model.mean.copy_(torch.linspace(-1, 1, 272))
    model.std.copy_(torch.linspace(0.5, 2, 272))
    for head in (model.content, model.style):  # far enough apart that each label is somewhere the likeliest
        head.weight.data.sub_(head.weight.data.mean(dim=1, keepdim=True)).mul_(20)
    return model


@pytest.fixture
def motions() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 272)).astype(np.float32) * 3 for n in (5, 40, 17, 8, 31)]


def test_padding_does_not_count(motions):
    model = classifier()
    batch = torch.full((5, 60, 272), 1e3)  # garbage where a motion has ended
    for row, motion in enumerate(motions):
        batch[row, : len(motion)] = torch.from_numpy(motion)
    with torch.inference_mode():
        together = model(batch, torch.tensor([len(m) for m in motions]))
        for row, motion in enumerate(motions):
            alone = model(torch.from_numpy(motion)[None], torch.tensor([len(motion)]))
            torch.testing.assert_close(together.content[row], alone.content[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(together.style[row], alone.style[0], atol=1e-4, rtol=1e-4)


def test_classify_gives_the_likeliest_labels_in_order(motions):
    model = classifier()
    contents, styles = model.classify(motions, batch_size=2)
    with torch.inference_mode():
        logits = [model(torch.from_numpy(m)[None], torch.tensor([len(m)])) for m in motions]
    assert contents == [model.config.contents[int(x.content.argmax())] for x in logits]
    assert styles == [model.config.styles[int(x.style.argmax())] for x in logits]
    assert len(set(contents)) > 1
    assert model.classify([]) == ([], [])


def test_save_and_load_give_the_same_logits(tmp_path, motions):
    model = classifier()
    model.save_pretrained(tmp_path)
    loaded = ActionClassifier.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert not loaded.training
    batch = torch.from_numpy(motions[1])[None]
    torch.testing.assert_close(loaded(batch, torch.tensor([40])), model(batch, torch.tensor([40])), rtol=0, atol=0)


def test_folders_that_are_not_a_classifiers(tmp_path):
    with pytest.raises(CheckpointError, match="is not an action classifier"):
        ActionClassifier.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(CheckpointError, match="is not the config of an action classifier"):
        ActionClassifier.from_pretrained(tmp_path)
    classifier().save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stored, "contents": ["run"]}))
    with pytest.raises(CheckpointError, match="shapes wrong"):
        ActionClassifier.from_pretrained(tmp_path)


def test_a_short_run_learns_procedural_actions(tmp_path, synthetic):
    pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")
    from hftrainer.config import load_experiment
    from hftrainer.training.fit import fit
    from tests.conftest import REPOSITORY
    from tests.training.test_fit import QUIET

    run = fit(
        load_experiment(
            REPOSITORY / "configs" / "evaluation" / "nano_actions.yaml",
            [f"output_dir={tmp_path / 'run'}", f"data.root={synthetic}", "data.train_split=train", "data.batch_size=10",
             "model.width=16", "model.depth=3", "trainer.max_steps=60", "trainer.val_every_n_steps=60",
             "task.optimizer.schedule.warmup=5", "task.optimizer.lr=0.01", *QUIET],
        )
    )  # fmt: skip
    model = ActionClassifier.from_pretrained(run / "best")
    folder = DatasetFolder(synthetic)
    labels = folder.labels()
    assert model.config.contents == sorted({label["content"] for label in labels.values()})
    names = folder.names("test")
    contents, _ = model.classify([folder.motion(name) for name in names])
    assert np.mean([seen == labels[name]["content"] for seen, name in zip(contents, names, strict=True)]) >= 0.8
