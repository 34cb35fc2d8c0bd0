"""What cannot be combined is refused with what to do; precision, clipping, recomputing and compiling on one process."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.config import ConfigError, TrainerConfig, load_experiment
from hftrainer.data.loader import PlannedData
from hftrainer.data.order import BatchPlan, PlanSampler
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.rows import build_prefix_sequences
from hftrainer.training import strategies
from hftrainer.training.fit import check_experiment, fit
from hftrainer.training.strategies import Devices, check_resume, check_strategy, find_devices
from tests.conftest import REPOSITORY
from tests.tiny import make_tiny_bundle, tiny_text_encoder
from tests.training.recorder import read
from tests.training.two_processes import callbacks, settings

CONFIG = REPOSITORY / "configs" / "gotozero" / "debug_ar.yaml"
# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "deepspeed_stage_2"}, "did you mean zero2"),
        ({"strategy": "fsdp"}, "did you mean fsdp2"),
        ({"strategy": "ddq"}, "did you mean ddp"),
        ({"precision": "bf16"}, "bf16-true, bf16-mixed"),
        ({"strategy": "ddp", "offload": "optimizer"}, "use strategy: zero2"),
        ({"strategy": "zero2", "offload": "all"}, "use strategy: zero3"),
        ({"strategy": "zero2", "offload": "disk"}, "none, optimizer, all"),
        ({"strategy": "zero2", "precision": "bf16-mixed"}, "which is called bf16-true"),
        ({"strategy": "fsdp2", "precision": "bf16-true", "devices": "2"}, "write bf16-mixed"),
        ({"strategy": "fsdp2", "devices": "1"}, "this run has one"),
        ({"strategy": "single", "devices": "2"}, "use ddp"),
        ({"strategy": "single", "num_nodes": 2, "devices": "1"}, "use ddp"),
        ({"devices": "two"}, "'0,1'"),
        ({"devices": "0"}, "'0,1'"),
    ],
)
def test_combinations_that_cannot_work_are_refused_with_what_to_do(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_strategy(TrainerConfig(**settings))


@pytest.mark.parametrize(
    "settings",
    [{}, {"strategy": "fsdp2"}, {"strategy": "fsdp2", "devices": "1", "num_nodes": 2}, {"devices": "0,1"},
     {"strategy": "zero3", "offload": "all", "devices": "1"}],
)  # fmt: skip
def test_combinations_that_work_somewhere_pass(settings):
    check_strategy(TrainerConfig(**settings))


def test_devices_are_counted(monkeypatch):
    assert find_devices(TrainerConfig(accelerator="cpu")) == Devices("cpu", 1, 1)
    assert find_devices(TrainerConfig(accelerator="cpu", devices="2", num_nodes=3)).processes == 6
    with pytest.raises(ConfigError, match="this run has one"):
        find_devices(TrainerConfig(accelerator="cpu", strategy="fsdp2"))
    with pytest.raises(ConfigError, match="auto, cpu, gpu"):
        find_devices(TrainerConfig(accelerator="tpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        find_devices(TrainerConfig(accelerator="gpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert find_devices(TrainerConfig()) == Devices("cuda", 4, 1)
    with pytest.raises(ConfigError, match="has 4 CUDA devices"):
        find_devices(TrainerConfig(devices="8"))


def test_a_torchrun_of_another_size_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert find_devices(TrainerConfig(accelerator="cpu", devices="2")).processes == 2
    with pytest.raises(ConfigError, match="torchrun started 2 processes, but the configuration has 4"):
        find_devices(TrainerConfig(accelerator="cpu", devices="4"))


def test_checkpoints_of_other_strategies_and_sizes_are_refused(tmp_path):
    checkpoints = tmp_path / "run" / "checkpoints"
    zero, fsdp2, file = (checkpoints / name for name in ("zero.ckpt", "fsdp2.ckpt", "file.ckpt"))
    for rank in range(2):
        (zero / "checkpoint").mkdir(parents=True, exist_ok=True)
        (zero / "checkpoint" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
    fsdp2.mkdir()
    (fsdp2 / ".metadata").touch()
    file.touch()
    check_resume(zero, TrainerConfig(strategy="zero2"), 2)
    check_resume(fsdp2, TrainerConfig(strategy="fsdp2"), 8)
    check_resume(file, TrainerConfig(strategy="ddp"), 8)
    with pytest.raises(ConfigError, match=r"written by 2 processes and this run has 4.*model.init.ar=.*run/last"):
        check_resume(zero, TrainerConfig(strategy="zero2"), 4)
    with pytest.raises(ConfigError, match="written by DeepSpeed, this run has strategy=ddp"):
        check_resume(zero, TrainerConfig(strategy="ddp"), 2)
    with pytest.raises(ConfigError, match="written by single or ddp, this run has strategy=fsdp2"):
        check_resume(file, TrainerConfig(strategy="fsdp2"), 2)
    with pytest.raises(ConfigError, match="is it complete"):
        check_resume(checkpoints, TrainerConfig(), 1)


# --- one process -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(tmp_path_factory, synthetic) -> Path:
    """A folder with data and a text encoder, in which runs lie side by side."""
    folder = tmp_path_factory.mktemp("strategies")
    shutil.copytree(synthetic, folder / "data")
    tiny_text_encoder().save_pretrained(folder / "text")
    return folder


def run_single(work: Path, name: str, *more: str, base: Path = CONFIG) -> Path:
    return fit(load_experiment(base, [*settings(work, work / name), *more]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [("trainer.strategy=zero3", "does not support param.* sharding"),
     ("trainer.precision=bf16-true", "32-true or bf16"),
     ("trainer.activation_checkpointing=true", "too few activations")],
)  # fmt: skip
def test_what_a_task_cannot_do_is_refused(tmp_path, work, setting, message):
    tokenizer = REPOSITORY / "configs" / "gotozero" / "debug_tokenizer.yaml"
    basic = [f"output_dir={tmp_path}", f"data.root={work / 'data'}", "trainer.accelerator=cpu"]
    with pytest.raises(ConfigError, match=message):
        fit(load_experiment(tokenizer, [*basic, setting]))


def test_half_precision_leaves_the_tokenizer_alone(work):
    """Lightning's own plugin rounds the whole task, and with it codes, statistics and motions."""
    run = run_single(work, "half", "trainer.precision=bf16-true", "callbacks=[{name: artifact}, {name: ema}]")
    bundle = MotionMillionBundle.from_pretrained(run / "last")
    assert bundle.ar.lm_head.weight.dtype == torch.bfloat16
    assert {p.dtype for p in bundle.vqvae.parameters()} == {torch.float32}
    assert {p.dtype for p in bundle.text_encoder.model.parameters()} == {torch.float32}
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    average = next(value["shadow"] for key, value in state["callbacks"].items() if "EMA" in key)
    assert {value.dtype for value in average.values()} == {torch.float32}  # 1/1000 of a step would be lost in bfloat16


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_gradients_are_clipped_in_every_precision(work, precision):
    """Lightning takes a fused AdamW for one that cannot be clipped in mixed precision."""
    losses = {}
    for clip in ("0.001", "1000"):
        run = work / f"clip-{precision}-{clip}"
        run_single(work, run.name, f"trainer.precision={precision}", f"trainer.gradient_clip_val={clip}",
                   "task.optimizer.eps=1.0", callbacks(run, ema=False, samples=False))  # fmt: skip
        losses[clip] = read(Path(f"{run}.losses.0"))
    assert losses["0.001"][0] == losses["1000"][0]
    assert losses["0.001"][-1] > losses["1000"][-1]  # with a large eps, steps are in proportion to gradients


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputed_activations_give_the_same_loss_and_gradients(dtype):
    """Bit for bit; and they are recomputed: fewer tensors are kept."""
    ar = make_tiny_bundle().ar.to(dtype).requires_grad_(True)
    features, mask = torch.randn(3, 5, 32, dtype=dtype), torch.arange(5)[None] < torch.tensor([5, 3, 1])[:, None]
    rows = build_prefix_sequences(torch.randint(0, 240, (3, 9)), torch.tensor([9, 4, 7]), mask.sum(dim=1), 240, 241)
    losses, gradients, kept = [], [], []
    for ar.transformer.checkpoint_blocks in (False, True):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            loss, _ = ar.next_token_loss(rows, features, mask)
        ar.zero_grad()
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: p.grad.clone() for name, p in ar.named_parameters()})
        kept.append(sum(sizes))
    assert torch.equal(*losses)
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
    assert kept[1] < 0.6 * kept[0]
    with torch.no_grad():
        alone = ar.next_token_loss(rows, features, mask)[0]  # without gradients, the loss is not made in blocks
    torch.testing.assert_close(alone, losses[0], rtol=1e-3, atol=0)  # bfloat16 sums in another order


def losses_of(run: Path, *overrides: str, config: Path = CONFIG) -> list[float]:
    """A short run's losses."""
    recorder = f"callbacks=[{{name: 'tests.training.recorder:Recorder', path: '{run}.losses'}}]"
    fit(load_experiment(config, [*overrides, recorder]))
    return read(Path(f"{run}.losses.0"))


def names_in(run: Path) -> set[str]:
    return set(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])


def test_compiled_blocks_have_the_same_losses_and_names(work, monkeypatch):
    """The capture alone, without the compiler behind it."""
    monkeypatch.setattr(torch, "compile", lambda f, **kw: COMPILE(f, backend="eager", **kw))
    plain, compiled = work / "plain-ar", work / "compiled-ar"
    wanted = losses_of(plain, *settings(work, plain))
    got = losses_of(compiled, *settings(work, compiled), "trainer.compile=true")
    assert got == pytest.approx(wanted, rel=1e-5)
    assert names_in(plain) == names_in(compiled)


@pytest.mark.slow
def test_compiled_with_the_compiler(work):
    """With inductor, for rows of changing lengths, with and without recomputing."""
    wanted = losses_of(work / "plain-2", *settings(work, work / "plain-2"))
    for recompute in ("false", "true"):
        run = work / f"inductor-{recompute}"
        got = losses_of(
            run, *settings(work, run), "trainer.compile=true", f"trainer.activation_checkpointing={recompute}"
        )
        assert got == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
def test_a_compiled_tokenizer_has_the_same_losses_and_names(work):
    config = REPOSITORY / "configs" / "gotozero" / "debug_tokenizer.yaml"
    runs = [work / "plain-tokenizer", work / "compiled-tokenizer"]
    losses = [
        losses_of(
            run, f"output_dir={run}", f"data.root={work / 'data'}", "trainer.accelerator=cpu", "trainer.max_steps=3",
            "trainer.val_every_n_steps=3", "trainer.progress_bar=false", f"trainer.compile={run.name[0] == 'c'}",
            "trainer.log_every_n_steps=1", config=config,
        )
        for run in runs
    ]  # fmt: skip
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert names_in(runs[0]) == names_in(runs[1])


COMPILE = torch.compile


@pytest.mark.parametrize("processes", [1, 3, 5])
def test_data_continues_after_what_all_processes_have_used(processes):
    source = SimpleNamespace(train=lambda: None, plan=lambda train, seed: BatchPlan(np.full(90, 5), 3, seed))
    data = PlannedData(source, seed=1)
    data.trainer = SimpleNamespace(global_step=3, accumulate_grad_batches=2, world_size=2)
    state = data.state_dict()
    assert state["position"]["samples"] == 3 * 2 * 2 * 3
    later = PlannedData(source, seed=1)
    later.trainer = SimpleNamespace(global_step=3, accumulate_grad_batches=1, world_size=processes)
    later.load_state_dict(state)
    firsts = [next(iter(PlanSampler(later.plan, rank=rank, world=processes))) for rank in range(processes)]
    assert firsts == [data.plan.batch(12 + rank) for rank in range(processes)]
    later.trainer.global_step = 5
    assert later.taken == 12 + 2 * processes


def test_an_average_under_zero3_is_refused(work, tmp_path):
    check_strategy(TrainerConfig(strategy="zero3"), ["artifact"])
    check_strategy(TrainerConfig(strategy="fsdp2"), ["ema"])
    average = [*settings(work, tmp_path), "trainer.strategy=zero3", "callbacks=[{name: ema}]"]
    with pytest.raises(ConfigError, match="use fsdp2 or zero2, or remove it"):
        check_experiment(load_experiment(CONFIG, average))


def test_names_are_known_to_the_documentation():
    text = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    for name in strategies.NAMES:
        assert f"`{name}`" in text


def test_fsdp2_rounds_weights_and_not_what_blocks_are_given():
    """In bfloat16 the angles of positions must stay exact."""
    from hftrainer.training.fsdp import FSDP2

    policy = FSDP2(processes=1, in_bfloat16=True).policy
    assert policy.param_dtype == torch.bfloat16
    assert not policy.cast_forward_inputs
