"""Training end to end on procedural data, and resuming to the same losses bit for bit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.config import ConfigError, load_experiment, read_yaml, save_yaml
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.training.export import export_run
from hftrainer.training.fit import fit
from tests.conftest import REPOSITORY
from tests.tiny import tiny_text_encoder

CONFIGS = REPOSITORY / "configs" / "gotozero"
QUIET = ["trainer.progress_bar=false", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    tiny_text_encoder().save_pretrained(folder)
    return folder


def experiment(kind: str, folder: Path, synthetic: Path, text_encoder: Path, *overrides: str):
    extra = [f"model.text_encoder.source={text_encoder}", "model.ar.clip_dim=32"] if kind == "ar" else []
    return load_experiment(
        CONFIGS / f"debug_{kind}.yaml",
        [f"output_dir={folder}", f"data.root={synthetic}", *QUIET, *extra, *overrides],
    )


def losses(run: Path) -> dict[int, str]:
    """Step to training loss as written, over all of a run's log files."""
    found = {}
    for path in sorted(run.glob("logs/version_*/metrics.csv")):
        for row in csv.DictReader(path.read_text().splitlines()):
            if row.get("train/loss"):
                found[int(row["step"])] = row["train/loss"]
    return found


@pytest.fixture
def data(tmp_path, synthetic):
    """A copy of the procedural data, because token debugging writes into it."""
    import shutil

    return Path(shutil.copytree(synthetic, tmp_path / "data"))


@pytest.mark.parametrize("kind", ["tokenizer", "ar"])
def test_resumed_losses_equal_uninterrupted_ones_bit_for_bit(tmp_path, data, text_encoder, kind):
    settings = [
        "callbacks=[{name: ema, decay: 0.9}]", "trainer.max_steps=12", "trainer.checkpoint_every_n_steps=6",
        "trainer.val_every_n_steps=5",
    ]  # fmt: skip
    fit(experiment(kind, tmp_path / "straight", data, text_encoder, *settings))
    # The schedule must be the whole run's, so the first half is stopped from outside, a step after its checkpoint.
    stop_after(experiment(kind, tmp_path / "halves", data, text_encoder, *settings), 7)
    fit(experiment(kind, tmp_path / "halves", data, text_encoder, *settings))

    whole, resumed = losses(tmp_path / "straight"), losses(tmp_path / "halves")
    assert sorted(whole) == list(range(12))
    assert resumed == whole
    last = [
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("straight", "halves")
    ]
    assert last[0]["state_dict"].keys() == last[1]["state_dict"].keys()
    for name, tensor in last[0]["state_dict"].items():
        assert torch.equal(tensor, last[1]["state_dict"][name]), name


def stop_after(setup, steps: int) -> None:
    """Run until an error at the start of step `steps`, as a machine that goes down would."""
    import lightning as L

    class Stop(L.Callback):
        def on_train_batch_start(self, trainer, task, batch, index):
            if trainer.global_step == steps:
                raise RuntimeError("power cut")

    from hftrainer.training import fit as module

    make = module._make_trainer

    def with_stop(*args):
        trainer = make(*args)
        trainer.callbacks.insert(0, Stop())
        return trainer

    module._make_trainer = with_stop
    try:
        with pytest.raises(RuntimeError, match="power cut"):
            fit(setup)
    finally:
        module._make_trainer = make


@pytest.mark.parametrize("kind", ["tokenizer", "ar"])
def test_debug_configs_learn_and_leave_an_artifact(tmp_path, data, text_encoder, kind):
    run = fit(experiment(kind, tmp_path / "run", data, text_encoder))
    curve = losses(run)
    values = [float(curve[step]) for step in sorted(curve)]
    assert sum(values[-5:]) < 0.9 * sum(values[:5])
    resolved = read_yaml(run / "config.yaml")
    assert resolved["task"]["optimizer"]["betas"] == [0.9, 0.99 if kind == "tokenizer" else 0.999]  # the release's
    for name in ("best", "last"):
        assert (run / f"{name}.json").is_file()
        bundle = MotionMillionBundle.from_pretrained(run / name)
        assert (bundle.ar is not None) == (kind == "ar")
    metrics = json.loads((run / "best.json").read_text())
    assert metrics["step"] in (20, 40)


def test_a_tokenizer_run_without_an_artifact_becomes_one(tmp_path, data, text_encoder):
    """The weights of the checkpoint, and the statistics of the data, which are no longer there."""
    short = ["trainer.max_steps=2", "trainer.checkpoint_every_n_steps=2", "callbacks=[{name: artifact}]"]
    run = fit(experiment("tokenizer", tmp_path / "run", data, text_encoder, *short, "trainer.val_every_n_steps=2"))
    config = read_yaml(run / "config.yaml")
    config["data"]["root"] = str(tmp_path / "gone")
    save_yaml(config, run / "config.yaml")
    made = export_run(run, tmp_path / "made")
    want = MotionMillionBundle.from_pretrained(run / "last")
    got = MotionMillionBundle.from_pretrained(tmp_path / "made")
    assert all(torch.equal(value, want.vqvae.state_dict()[name]) for name, value in got.vqvae.state_dict().items())
    assert torch.equal(got.mean, want.mean)
    assert torch.equal(got.std, want.std)
    assert made.ar is None


def test_checkpoints_leave_frozen_parts_out(tmp_path, data, text_encoder):
    run = fit(experiment("ar", tmp_path / "run", data, text_encoder, "trainer.max_steps=2", "callbacks=[]"))
    names = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert any(name.startswith("bundle.ar.") for name in names)
    assert not any("vqvae" in name or "text_encoder" in name for name in names)


def test_a_decoder_trained_on_keeps_all_codes(tmp_path, data, text_encoder):
    short = ["trainer.max_steps=4", "trainer.val_every_n_steps=4"]
    first = fit(experiment("tokenizer", tmp_path / "first", data, text_encoder, *short))
    settings = [f"model.init.tokenizer={first / 'best'}", "task.train_encoder=false", *short]
    second = fit(experiment("tokenizer", tmp_path / "second", data, text_encoder, *settings))
    before, after = (MotionMillionBundle.from_pretrained(run / "best").vqvae.state_dict() for run in (first, second))
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed
    assert all(name.startswith(("vqvae.decoder.", "vqvae.quantizer.project_out.")) for name in changed)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_the_text_encoder_can_be_trained_along(tmp_path, data, text_encoder, rate):
    setup = experiment("ar", tmp_path / "run", data, text_encoder, "trainer.max_steps=3", "callbacks=[]",
                       "task.train_text_encoder=true", f"task.text_encoder_lr_scale={rate}",
                       "trainer.checkpoint_every_n_steps=3")  # fmt: skip
    run = fit(setup)
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    before = tiny_text_encoder().model.state_dict()
    moved = [k for k, v in before.items() if not torch.equal(state[f"bundle.text_encoder.model.{k}"], v)]
    assert bool(moved) == (rate > 0)


def test_accumulated_batches_equal_one_large_batch(tmp_path, data, text_encoder):
    """Upstream clears the gradients of all but the last part; here the parts add up."""
    common = ["trainer.max_steps=1", "callbacks=[]", "data.window=32", "data.short_clips=skip",
              "task.optimizer.schedule={name: constant}"]  # fmt: skip
    runs = {}
    for name, settings in {"parts": ["data.batch_size=4", "trainer.accumulate_grad_batches=2"],
                           "whole": ["data.batch_size=8"]}.items():  # fmt: skip
        seen = []
        setup = experiment("tokenizer", tmp_path / name, data, text_encoder, *common, *settings)
        runs[name] = gradients_of_first_step(setup, seen)
    for name, gradient in runs["whole"].items():
        torch.testing.assert_close(runs["parts"][name], gradient, atol=1e-6, rtol=1e-3)


def gradients_of_first_step(setup, seen):
    """Gradients as the optimizer sees them. The two runs see the same clips: both plans start alike."""
    import lightning as L

    from hftrainer.data.order import BatchPlan
    from hftrainer.training import fit as module

    size = setup.data["batch_size"]
    original = BatchPlan.batch
    BatchPlan.batch = lambda plan, number: [(i, i) for i in range(number * size, (number + 1) * size)]

    class Look(L.Callback):
        def on_before_optimizer_step(self, trainer, task, optimizer):
            seen.append({n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None})

    make = module._make_trainer

    def with_look(*args):
        trainer = make(*args)
        trainer.callbacks.append(Look())
        return trainer

    module._make_trainer = with_look
    try:
        fit(setup)
    finally:
        module._make_trainer = make
        BatchPlan.batch = original
    return seen[0]


def test_tokens_of_another_tokenizer_are_refused(tmp_path, data, text_encoder):
    sizes = ["model.tokenizer.nb_code=512", "model.ar.vocab_size=514"]
    setup = experiment("ar", tmp_path / "run", data, text_encoder, *sizes)
    with pytest.raises(ConfigError, match="240 codes, but the model's has 512"):
        fit(setup)


def test_a_checkpoint_of_another_seed_is_refused(tmp_path, data, text_encoder):
    settings = ["trainer.max_steps=2", "callbacks=[]", "trainer.checkpoint_every_n_steps=1"]
    fit(experiment("tokenizer", tmp_path / "run", data, text_encoder, *settings))
    changed = experiment("tokenizer", tmp_path / "run", data, text_encoder, *settings, "seed=5", "trainer.max_steps=3")
    with pytest.raises(ValueError, match="seed: 123 -> 5"):
        fit(changed)
