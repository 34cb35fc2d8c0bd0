"""LoRA: the base stays as it is, adapters come back, and a merged model answers as the adapted one."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")
pytest.importorskip("peft", reason="pip install 'hftrainer[lora]'")

from hftrainer.config import ConfigError, load_experiment
from hftrainer.models.checkpoint import CheckpointError, open_checkpoint
from hftrainer.models.motion.motionmillion.adapter import merge_adapter
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.network import LLaMAHF
from hftrainer.training.fit import fit
from hftrainer.training.lora import LoRAConfig, adapters, add_lora, merged_state, save_adapter
from tests.conftest import REPOSITORY
from tests.tiny import make_tiny_bundle, tiny_text_encoder
from tests.training.two_processes import settings

CONFIG = REPOSITORY / "configs" / "gotozero" / "debug_ar.yaml"


def logits(ar: LLaMAHF) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(0, 240, (2, 7), generator=generator)
    idx = torch.cat([torch.full((2, 4), 241), codes], dim=1)
    features = torch.randn(2, 4, 32, generator=generator)
    return ar(idx, features, torch.ones(2, 4, dtype=torch.bool))


@pytest.fixture
def adapted() -> tuple[LLaMAHF, LLaMAHF, LoRAConfig]:
    """A transformer, the same with adapters that have been trained two steps, and their configuration."""
    config = LoRAConfig(rank=3, alpha=5.0)
    base = make_tiny_bundle().ar.requires_grad_(False)
    network = copy.deepcopy(base)
    add_lora(network, config)
    with torch.no_grad():
        assert torch.equal(logits(network), logits(base))  # B is zero
    parameters = [p for part in adapters(network) for p in part.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        logits(network).logsumexp(dim=-1).mean().backward()
        optimizer.step()
    return base, network, config


def test_the_base_stays_and_the_merged_model_answers_as_the_adapted_one(adapted):
    base, network, _ = adapted
    inside = {name.replace(".base_layer.", "."): value for name, value in network.state_dict().items()}
    for name, value in base.state_dict().items():
        assert torch.equal(inside[name], value), name
    merged = LLaMAHF(base.config)
    merged.load_state_dict(merged_state(network), strict=True)
    with torch.no_grad():
        assert not torch.allclose(logits(network), logits(base), atol=1e-2)
        torch.testing.assert_close(logits(merged), logits(network), atol=1e-5, rtol=0.0)


def test_an_adapter_comes_back_without_peft_and_with_it(adapted, tmp_path):
    base, network, config = adapted
    save_adapter(network, config, tmp_path / "adapter")
    merged = copy.deepcopy(base)
    merge_adapter(merged, tmp_path / "adapter")
    for name, value in merged_state(network).items():
        assert torch.equal(merged.state_dict()[name], value), name
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path / "adapter"))
    with torch.no_grad():
        torch.testing.assert_close(logits(theirs), logits(network), atol=1e-6, rtol=0.0)


def test_what_does_not_fit_is_named(adapted, tmp_path):
    base, network, config = adapted
    save_adapter(network, config, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, "use_dora": True}))
    with pytest.raises(CheckpointError, match=r"only plain LoRA can be merged, this has .*use_dora"):
        merge_adapter(copy.deepcopy(base), tmp_path / "adapter")
    path.write_text(json.dumps({**plain, "r": 4}))
    with pytest.raises(CheckpointError, match="model of another size"):
        merge_adapter(copy.deepcopy(base), tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="is not a LoRA adapter"):
        merge_adapter(base, tmp_path)
    with pytest.raises(ConfigError, match=r"no linear layer called \['q_proj'\]; known: .*'c_attn'"):
        add_lora(make_tiny_bundle().ar, LoRAConfig(targets=["q_proj"]))
    with pytest.raises(ValueError, match=r"lies in \[0, 1\)"):
        LoRAConfig(dropout=1.0)


@pytest.fixture(scope="module")
def work(tmp_path_factory, synthetic, tiny_model) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    shutil.copytree(synthetic, folder / "data")
    tiny_text_encoder().save_pretrained(folder / "text")
    return folder


LORA = "task.lora={rank: 4, alpha: 8, dropout: 0.1}"


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_run_writes_an_adapter_and_a_merged_model(work, tiny_model, precision):
    run = work / precision
    inference = "{name: t2m_inference, prompts: [a person walks forward], seconds: 0.5}"
    common = settings(work, run, f"callbacks=[{{name: artifact}}, {inference}]", f"model.init.ar={tiny_model}",
                      "model.ar=null", LORA,
                      f"trainer.precision={precision}",
                      "task.optimizer.lr=0.02", "task.optimizer.eps=1.0e-8")  # fmt: skip
    fit(load_experiment(CONFIG, [*common, "trainer.max_steps=2"]))
    fit(load_experiment(CONFIG, common))  # and on from the checkpoint
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state
    assert all(".lora_" in name and value.dtype == torch.float32 for name, value in state.items())
    base, merged = (open_checkpoint(folder / "ar.safetensors") for folder in (tiny_model, run / "last"))
    dtype = torch.float32 if precision == "32-true" else torch.bfloat16
    changed = {name for name in base if not torch.equal(base[name].to(dtype), merged[name])}
    assert changed == {name for name in base if ".c_" in name}
    loaded = MotionMillionBundle.from_pretrained(tiny_model, dtype=dtype, adapter=run / "last-adapter")
    for name, value in loaded.ar.state_dict().items():
        assert torch.equal(value, merged[name]), name


def test_lora_needs_a_trained_transformer_and_whole_parameters(work, tiny_model, tmp_path):
    with pytest.raises(ConfigError, match=r"give one in model\.init\.ar"):
        fit(load_experiment(CONFIG, settings(work, tmp_path, LORA)))
    sharded = settings(work, tmp_path, LORA, f"model.init.ar={tiny_model}", "model.ar=null", "trainer.strategy=zero3")
    with pytest.raises(ConfigError, match="use ddp, zero1 or zero2"):
        fit(load_experiment(CONFIG, sharded))
    with pytest.raises(ValueError, match="which this model was loaded without"):
        MotionMillionBundle.from_pretrained(tiny_model, load_ar=False, adapter=tmp_path)
