"""int8 weights: near the stored ones, in torch's own kernel, and refused where they cannot be."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hftrainer.cli import main
from hftrainer.extras import MissingExtra
from hftrainer.models import quantize
from hftrainer.models.motion.motionmillion import MotionMillionBundle
from hftrainer.models.motion.motionmillion.network import LLaMAHF, LLaMAHFConfig
from hftrainer.models.quantize import Int8Linear, has_int8_kernel, quantize_linears
from hftrainer.pipelines.motionmillion import MotionMillionPipeline

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _torchao():
    pytest.importorskip("torchao")


@pytest.fixture
def model() -> LLaMAHF:
    torch.manual_seed(0)
    config = LLaMAHFConfig(vocab_size=242, n_layer=2, n_head=4, n_embd=64, clip_dim=32)
    return LLaMAHF(config).bfloat16().eval()


@torch.inference_mode()
def test_matrices_are_packed_and_answers_stay_near(model):
    row, text = torch.randint(0, 240, (1, 12)), torch.randn(1, 4, 32)
    mask = torch.ones(1, 4, dtype=torch.bool)
    want = model(row, text, mask).float()
    packed = copy.deepcopy(model)
    assert quantize_linears(packed, "int8", device=CPU) == 2 * 5 + 1
    assert type(packed.llama_proj) is nn.Linear  # has a bias; read once a motion
    assert packed.transformer.h[0].attn.c_attn.weight.qdata.dtype == torch.int8
    assert packed.lm_head.weight.dtype == torch.bfloat16  # what other code asks a layer for
    got = packed(row, text, mask).float()
    assert 0 < float((got - want).std() / want.std()) < 0.05


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_torchs_kernel_says_what_torchao_says(dtype):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(128, 96, bias=False)).to(dtype)
    quantize_linears(layer, "int8", device=CPU)
    assert has_int8_kernel("cpu", dtype)
    assert type(layer[0]) is Int8Linear
    x = torch.randn(3, 5, 128, dtype=dtype)
    want = nn.functional.linear(x, layer[0].weight)  # torchao's own path
    assert layer(x).shape == (3, 5, 96)
    torch.testing.assert_close(layer(x), want, atol=0.02, rtol=0.02)
    by_hand = x.float() @ (layer[0].weight.qdata.float() * layer[0].weight.scale.float()).T
    torch.testing.assert_close(layer(x).float(), by_hand, atol=0.02, rtol=0.02)


def test_without_the_kernel_torchao_computes(model, monkeypatch):
    monkeypatch.setattr(quantize, "has_int8_kernel", lambda *_: False)
    quantize_linears(model, "int8", device=CPU)
    assert type(model.lm_head) is nn.Linear
    assert model.lm_head(torch.randn(2, 64).bfloat16()).shape == (2, 241)


def test_a_shared_table_stays_as_it_is(model):
    model.lm_head.weight = model.transformer.wte.weight
    assert quantize_linears(model, "int8", device=CPU) == 2 * 5
    assert model.lm_head.weight is model.transformer.wte.weight


def test_a_pipeline_loads_packed_and_is_not_saved_so(tiny_model, tmp_path):
    pipe = MotionMillionPipeline.from_pretrained(tiny_model, dtype="bfloat16", quantize="int8")
    motions = pipe.infer_t2m(["a person walks forward", "run"], max_sample_steps=5)
    assert [m.shape for m in motions] == [(10, 272)] * 2
    assert pipe.bundle.quantized == "int8"
    with pytest.raises(ValueError, match="packed to int8 while loading, which is not stored"):
        pipe.bundle.save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_is_refused(model, tiny_model, monkeypatch):
    with pytest.raises(ValueError, match="packed to one of"):
        quantize_linears(model, "int2", device=CPU)
    with pytest.raises(ValueError, match="int4 has a kernel only on CUDA devices, not on cpu"):
        MotionMillionBundle.from_pretrained(tiny_model, quantize="int4")
    with pytest.raises(ValueError, match=r"groups of 128 columns; .* has 64"):
        quantize_linears(model, "int4", device=torch.device("cuda"))
    import sys

    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(MissingExtra, match=r"pip install 'hftrainer\[quant\]'"):
        quantize_linears(model, "int8", device=CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["int8", "int4"])
@torch.inference_mode()
def test_on_a_gpu(kind):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(1024, 512, bias=False)).bfloat16()
    x = torch.randn(2, 1024).bfloat16()
    want = layer(x).float()
    quantize_linears(layer, kind, device=torch.device("cuda"))
    got = layer(x.cuda()).float().cpu()
    assert float((got - want).std() / want.std()) < (0.02 if kind == "int8" else 0.15)


def test_the_command_reports_agreement_and_error(tiny_model, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("run\nwalk\n")
    arguments = ["--quant-check", "int8", "--prompts", str(tmp_path / "p.txt"), "--codes", "6", "--dtype", "bfloat16"]
    assert main(["doctor", str(tiny_model), *arguments]) == 0
    out = capsys.readouterr().out
    assert "int8 against the stored weights, 2 texts, 12 steps" in out
    assert "of codes" in out


@torch.inference_mode()
def test_the_check_finds_no_error_in_itself_and_finds_a_wrong_model(tiny_model):
    from hftrainer.models.motion.motionmillion.quant_check import prepare_texts, quant_check

    bundle = MotionMillionBundle.from_pretrained(tiny_model)
    texts = prepare_texts(bundle, ["run", "walk"])
    same = quant_check(lambda: bundle.ar, lambda: bundle.ar, "int8", texts, codes=8)
    assert (same.agreement, same.error, same.same_codes, same.same_rows) == (1.0, 0.0, 1.0, 1.0)
    torch.manual_seed(9)
    other = quant_check(lambda: bundle.ar, lambda: LLaMAHF(bundle.ar.config), "int8", texts, codes=8)
    assert other.error > 0.5
    assert other.agreement < 0.5
    bare = MotionMillionBundle.from_pretrained(tiny_model, text_encoder=None)
    assert [text.label for text in prepare_texts(bare, ["run"])] == ["made-up features 0"]
    with pytest.raises(ValueError, match="got 0 texts"):
        quant_check(lambda: bundle.ar, lambda: bundle.ar, "int8", [], codes=8)
