"""A dry run says what a run would be, without its weights, its data, or a file written."""

from __future__ import annotations

import shutil

import pytest
import torch

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.cli import main
from hftrainer.config import ConfigError, load_experiment
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.synthetic.motions import write_tokens
from hftrainer.data.tokens.pack import pack_tokens
from hftrainer.models.text_features import write_text_features
from hftrainer.training.dry_run import dry_run
from hftrainer.training.memory import Sizes, memory_per_device, spread_of
from tests.conftest import REPOSITORY
from tests.tiny import make_tiny_bundle, tiny_text_encoder

CONFIGS = sorted(p for p in (REPOSITORY / "configs").rglob("*.yaml") if p.parent.name != "sweeps")
GOTOZERO = REPOSITORY / "configs" / "gotozero"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Where no data and no models are, and where what is written would be seen."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert not list(folder.iterdir())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_can_be_outlined_with_nothing_there(path):
    found = dry_run(load_experiment(path))
    said = "\n".join(found.lines())
    assert found.resolved["trainer"]["max_steps"] > 0
    assert "the data are not here" in said
    if path.stem.endswith("_text_encoder"):  # its untrained start is made by a tool
        assert "the model's sizes are not known" in said
    else:
        assert any(part.trained for part in found.parts)
        assert "memory per device" in found.facts


@pytest.mark.parametrize(("size", "parameters"), [("3b", 3_404_764_800), ("7b", 7_818_498_048)])
def test_released_sizes_are_those_of_the_release(size, parameters):
    parts = {part.name: part for part in dry_run(load_experiment(GOTOZERO / f"ar_{size}.yaml")).parts}
    assert parts["ar"].parameters == parts["ar"].trained == parameters
    assert (parts["vqvae"].parameters, parts["vqvae"].trained) == (11_349_782, 0)
    assert parts["text_encoder"].frozen_bytes == 4 * parts["text_encoder"].parameters
    assert 1.22e9 < parts["text_encoder"].parameters < 1.23e9


def test_the_command_prints_everything(capsys):
    assert main(["train", str(GOTOZERO / "ar_3b.yaml"), "--dry-run", "trainer.devices=4", "trainer.num_nodes=1"]) == 0
    printed = capsys.readouterr().out
    assert "n_embd: 3200" in printed
    assert "3,404,764,800" in printed
    assert "64 (16 x 4 devices x 1 batches)" in printed
    assert "at most 9,664 (150 codes and END a row)" in printed


def test_steps_are_counted_where_the_data_are(tmp_path, synthetic, tiny_model):
    dataset = DatasetFolder(shutil.copytree(synthetic, tmp_path / "data"))
    write_tokens(dataset, codebook_size=240)
    pack_tokens(dataset, tmp_path / "packed")
    settings = [
        "model.ar.clip_dim=256", "data.batch_size=3", "trainer.accumulate_grad_batches=2", "trainer.devices=2",
        f"model.text_encoder.source={REPOSITORY / 'checkpoints/gotozero-nano/text_encoder'}",
    ]  # fmt: skip
    facts = {}
    for name, root in (("text_tokens", dataset.root), ("packed_tokens", tmp_path / "packed")):
        found = dry_run(
            load_experiment(GOTOZERO / "debug_ar.yaml", [f"data={{name: {name}, root: {root}}}", *settings])
        )
        facts[name] = {key: value for key, value in found.facts.items() if key != "outlined in"}
        assert len(found.notes) == 1  # what the memory does not count
    assert facts["text_tokens"] == facts["packed_tokens"]
    names = len(dataset.names("train"))
    assert facts["text_tokens"]["steps per epoch"].startswith(f"{names // 3 // 4} ({names} rows)")
    windows = [f"data={{name: motion_windows, root: {dataset.root}, window: 32, batch_size: 4}}"]
    found = dry_run(load_experiment(GOTOZERO / "debug_tokenizer.yaml", windows))
    assert found.facts["tokens per step"] == "64 codes (128 frames)"
    assert found.facts["steps per epoch"].startswith(f"{names // 4} (")


def test_what_training_would_refuse_is_refused(tmp_path, synthetic, tiny_model):
    dataset = DatasetFolder(shutil.copytree(synthetic, tmp_path / "data"))
    write_tokens(dataset, codebook_size=512)
    data = f"data={{name: text_tokens, root: {dataset.root}, batch_size: 4}}"
    encoder = f"model.text_encoder.source={REPOSITORY / 'checkpoints/gotozero-nano/text_encoder'}"
    with pytest.raises(ConfigError, match="with 512 codes, but the model's has 240"):
        dry_run(load_experiment(GOTOZERO / "debug_ar.yaml", [data, encoder]))
    with pytest.raises(ConfigError, match="must be the text encoder's width 256"):
        dry_run(load_experiment(GOTOZERO / "debug_ar.yaml", [encoder, "model.ar.clip_dim=64"]))
    with pytest.raises(ConfigError, match=r"model.ar.n_layer=3, but the transformer in .* has 2"):
        dry_run(load_experiment(GOTOZERO / "debug_ar.yaml", [f"model.init.ar={tiny_model}", "model.ar.n_layer=3"]))


def test_stored_features_stand_in_for_the_encoder(tmp_path):
    encoder = tiny_text_encoder()
    write_text_features(tmp_path / "f.safetensors", ["a person squats"], encoder)
    settings = [
        "model.text_encoder=null",
        "model.ar.clip_dim=32",
        f"model.init.text_features={tmp_path / 'f.safetensors'}",
    ]
    found = dry_run(load_experiment(GOTOZERO / "debug_ar.yaml", settings))
    assert [part.name for part in found.parts] == ["vqvae", "ar"]
    with pytest.raises(ConfigError, match=r"stored features .* cannot be trained"):
        dry_run(load_experiment(GOTOZERO / "debug_ar.yaml", [*settings, "task.train_text_encoder=true"]))


def test_counted_bytes_are_those_of_a_step():
    """Weights, gradients and AdamW's moments as they are after a step, in both precisions."""
    for dtype, precision in ((torch.float32, "32-true"), (torch.bfloat16, "bf16-true")):
        ar = make_tiny_bundle().ar.to(dtype).train().requires_grad_(True)
        optimizer = torch.optim.AdamW(ar.parameters())
        rows = torch.randint(0, 240, (2, 12))
        rows[:, :3] = ar.config.pad_id
        ar.next_token_loss(rows, torch.randn(2, 3, 32, dtype=dtype), torch.ones(2, 3, dtype=torch.bool))[0].backward()
        optimizer.step()
        held = {
            "weights": sum(p.nbytes for p in ar.parameters()),
            "gradients": sum(p.grad.nbytes for p in ar.parameters()),
            "optimizer (two moments)": sum(
                value.nbytes for state in optimizer.state.values() for value in state.values() if value.ndim
            ),
        }
        trained = sum(p.numel() for p in ar.parameters())
        memory = memory_per_device(Sizes(trained, 0), spread_of("auto", "none", 1), precision, 1)
        assert memory.parts == held


@pytest.mark.parametrize(
    ("strategy", "offload", "precision", "want"),
    [
        # bytes a parameter on each of 8 devices (arXiv 1910.02054, figure 1, for zero)
        ("single", "none", "32-true", 16),
        ("auto", "none", "bf16-true", 8),
        ("ddp", "none", "bf16-mixed", 18),
        ("zero1", "none", "bf16-true", 2 + 2 + 12 / 8),
        ("deepspeed_stage_2", "none", "bf16-true", 2 + (2 + 12) / 8),
        ("zero3", "none", "bf16-true", 16 / 8),
        ("zero2", "optimizer", "bf16-true", 2 + 2 / 8),
        ("deepspeed_stage_3_offload", "none", "bf16-true", 2 / 8),
        ("fsdp2", "none", "bf16-mixed", 16 / 8),
    ],
)
def test_bytes_a_parameter_by_strategy(strategy, offload, precision, want):
    memory = memory_per_device(Sizes(1000, 0), spread_of(strategy, offload, 8), precision, 8)
    assert memory.total == pytest.approx(1000 * want)
    with_rest = memory_per_device(Sizes(1000, 50, averages=1), spread_of(strategy, offload, 8), precision, 8)
    assert with_rest.total > memory.total + 50
