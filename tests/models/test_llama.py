"""LLaMAHF against the reference, un-cached, cached and batched."""

from __future__ import annotations

import json

import pytest
import torch

from hftrainer.models.motion.motionmillion.engine.inference import inference_model
from hftrainer.models.motion.motionmillion.network import LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.llama import PRESETS
from hftrainer.models.motion.motionmillion.network.rope import rope_table
from hftrainer.models.motion.motionmillion.network.sampler import sample_ids
from hftrainer.requests import SamplingParams
from tests.conftest import GOLDEN
from tests.tiny import golden_fill

# name: layers, heads, width, vocabulary, text width, scale of the weights
CASES = {
    "tiny": (3, 4, 64, 242, 48, 0.15),
    "head100": (2, 4, 400, 1002, 96, 0.06),
    "wide": (4, 8, 256, 4377, 64, 0.08),
}
TOTAL = {"44M": 93_858_304, "111M": 184_833_792, "343M": 441_504_768, "775M": 897_941_760, "1B": 1_558_863_360,
         "3B": 3_404_764_800, "5B": 5_389_897_728, "6B": 6_199_431_168, "7B": 7_818_498_048, "13B": 13_354_050_560,
         "30B": 32_968_585_728, "65B": 65_826_758_656}  # fmt: skip


def build(case: str, **overrides) -> LLaMAHF:
    layers, heads, width, vocabulary, text, scale = CASES[case]
    sizes = {"n_layer": layers, "n_head": heads, "n_embd": width, "vocab_size": vocabulary, "clip_dim": text}
    return golden_fill().fill(LLaMAHF(LLaMAHFConfig(**sizes, **overrides)).eval(), scale=scale)


def batch(want, case):
    return [torch.from_numpy(want[f"{case}_{part}"]) for part in ("idx", "feat", "mask")]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_released_sizes(name):
    with torch.device("meta"):
        model = LLaMAHF(LLaMAHFConfig.from_name(name))
    assert sum(p.numel() for p in model.parameters()) == TOTAL[name]


def test_state_dict_is_the_released_one():
    want = json.loads((GOLDEN / "ar_tiny_state_dict_pub.json").read_text())
    assert {name: list(tensor.shape) for name, tensor in build("tiny").state_dict().items()} == want


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_logits_and_loss_equal_the_reference(golden, case):
    want = golden("ar_pub")
    idx, features, mask = batch(want, case)
    model = build(case)
    logits = model(idx, features, mask)[:, want[f"{case}_pick"]]
    torch.testing.assert_close(logits, torch.from_numpy(want[f"{case}_logits"]), atol=2e-4, rtol=0)
    loss, _ = model.next_token_loss(idx, features, mask)
    assert abs(float(loss) - float(want[f"{case}_loss"])) < 1e-5


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_greedy_tokens_equal_the_reference(golden, case):
    """Un-cached, cached, and all rows together."""
    want = golden("ar_pub")
    _, features, mask = batch(want, case)
    model = build(case)
    together = model.generate(features, mask, max_new_tokens=50)
    for row in range(4):
        expected = want[f"{case}_greedy{row}"].tolist()
        one = features[row : row + 1], mask[row : row + 1]
        assert model.sample(*one)[0].tolist() == expected
        assert model.sample_cached(*one, max_sample_steps=50)[0].tolist() == expected
        assert together.tokens[row, : together.lengths[row]].tolist() == expected


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_early_ends_equal_the_reference(golden, case):
    want = golden("ar_pub")
    _, features, mask = batch(want, case)
    for key in (key for key in want if key.startswith(f"{case}_end")):
        row, step = int(key.split("_r")[1][0]), int(key.split("_k")[1])
        model = build(case)
        head = model.lm_head.weight
        head[model.config.end_id] = 1.05 * head[want[f"{case}_greedy{row}"][step]]
        one = features[row : row + 1], mask[row : row + 1]
        assert model.sample(*one)[0].tolist() == want[key].tolist()
        assert model.sample_cached(*one, max_sample_steps=50)[0].tolist() == want[key].tolist()
        out = model.generate(features, mask, max_new_tokens=50)
        length = 0 if step == 0 else len(want[key])  # upstream answers [1] to an END that comes at once
        assert int(out.lengths[row]) == length
        assert bool(out.ended[row])
        assert (out.tokens[row, length:] == model.config.pad_id).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "key"), [("float32", "fp32"), ("bfloat16", "bf16")])
def test_rotary_tables_equal_the_reference(golden, case, dtype, key):
    want = torch.from_numpy(golden("ar_pub")[f"{case}_rope_{key}"])
    got = rope_table(301, CASES[case][2] // CASES[case][1], dtype, torch.device("cpu"))
    torch.testing.assert_close(got, want, atol=2e-7, rtol=0)


@torch.no_grad()
def test_rotary_precision_is_a_field_and_survives_casting(golden):
    want = golden("ar_pub")
    idx, features, mask = batch(want, "tiny")
    exact, rounded = build("tiny"), build("tiny", rope_dtype="bfloat16")
    assert (exact(idx, features, mask) - rounded(idx, features, mask)).abs().max() > 1e-3
    before = exact.rotary(torch.device("cpu")).clone()
    exact.to(torch.bfloat16)
    assert torch.equal(exact.rotary(torch.device("cpu")), before)


def float64_case(golden):
    want = golden("ar_pub")
    _, features, mask = batch(want, "tiny")
    return build("tiny").double(), features.double(), mask


@torch.no_grad()
def test_cached_logits_equal_uncached_in_float64(golden):
    model, features, mask = float64_case(golden)
    lengths = mask.sum(1)
    cached = inference_model(model, prepack=False)
    cache = cached.new_cache(4, mask.shape[1] + 20)
    prefix = cached.prefill(features, mask)
    cache.write(torch.arange(4), prefix.cache, torch.arange(4))
    logits = cached.logits(cached.decode(prefix.last, lengths - 1, cache, kv_len_bound=mask.shape[1]))
    rows = [torch.full((int(n),), model.config.pad_id) for n in lengths]
    for step in range(20):
        for row, ids in enumerate(rows):
            n = int(lengths[row])
            full = model(ids[None], features[row : row + 1, :n], mask[row : row + 1, :n])[0, -1]
            torch.testing.assert_close(logits[row], full, atol=1e-10, rtol=0)
        ids = torch.randint(0, model.config.end_id, (4,))
        rows = [torch.cat([row, new[None]]) for row, new in zip(rows, ids, strict=True)]
        logits = cached.logits(
            cached.decode(cached.embed(ids), lengths + step, cache, kv_len_bound=mask.shape[1] + step + 1)
        )


@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(golden):
    model, features, mask = float64_case(golden)
    alone = [model.generate(features[i : i + 1], mask[i : i + 1], max_new_tokens=40) for i in range(4)]
    order = [2, 0, 3, 1, 0]
    mixed = model.generate(features[order], mask[order], max_new_tokens=40)
    for place, row in enumerate(order):
        assert mixed.tokens[place, : mixed.lengths[place]].tolist() == alone[row].tokens[0].tolist()


@torch.no_grad()
def test_sampling_depends_on_the_rows_own_seed_alone(golden):
    model, features, mask = float64_case(golden)

    def run(rows, seeds, **settings):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        settings = {"temperature": 0.9, "top_p": 0.95, **settings}
        out = model.generate(features[rows], mask[rows], 30, do_sample=True, generator=generators, **settings)
        return [row[:n].tolist() for row, n in zip(out.tokens, out.lengths.tolist(), strict=True)]

    together = run([0, 1, 2, 3], [5, 6, 7, 8])
    assert run([2], [7])[0] == together[2]
    assert run([3, 1], [8, 6]) == [together[3], together[1]]
    assert run([0], [6])[0] != together[0]
    assert run([0], [5], top_k=1)[0] == model.generate(features[:1], mask[:1], 30).tokens[0].tolist()


@torch.no_grad()
def test_limits_are_per_row(golden):
    model, features, mask = float64_case(golden)
    out = model.generate(features, mask, max_new_tokens=[3, 0, 10, 5])
    assert out.lengths.tolist() == [3, 0, 10, 5]
    free = model.generate(features, mask, max_new_tokens=10)
    assert out.tokens[2].tolist() == free.tokens[2].tolist()
    held = model.generate(features, mask, max_new_tokens=50, min_new_tokens=45)
    assert (held.lengths >= 45).all()


def test_sample_ids_follow_the_distribution():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    uniforms = torch.linspace(0, 1 - 1e-9, 1001, dtype=torch.float64)
    ids = sample_ids(logits.expand(1001, 3), uniforms, SamplingParams())
    counts = torch.bincount(ids, minlength=3) / 1001
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.3, 0.2]), atol=2e-3, rtol=0)
    assert set(sample_ids(logits.expand(1001, 3), uniforms, SamplingParams(top_k=2)).tolist()) == {0, 1}
    assert set(sample_ids(logits.expand(1001, 3), uniforms, SamplingParams(top_p=0.5)).tolist()) == {0}
    assert set(sample_ids(logits.expand(1001, 3), uniforms, SamplingParams(top_p=0.51)).tolist()) == {0, 1}
    sharp = sample_ids(logits.expand(1001, 3), uniforms, SamplingParams(temperature=0.05))
    assert (sharp == 0).float().mean() > 0.99


@torch.no_grad()
def test_tied_head_never_predicts_padding():
    model = LLaMAHF(LLaMAHFConfig(n_layer=1, n_head=2, n_embd=16, vocab_size=12, clip_dim=8, tie_weights=True))
    assert model.lm_head.weight is model.transformer.wte.weight
    logits = model(torch.full((1, 3), 11), torch.randn(1, 2, 8), torch.ones(1, 2))
    assert logits.shape == (1, 3, 11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_mask": torch.tensor([[0, 1, 1]])}, "right padding"),
        ({"text_mask": torch.zeros(1, 3)}, "at least one text position"),
        ({"max_new_tokens": 400}, "block_size=301"),
        ({"max_new_tokens": [1, 2]}, "one for each of 1 rows"),
        ({"do_sample": True, "temperature": 0.0}, "temperature must be between"),
        ({"do_sample": True, "top_p": 1.5}, "top_p must be in"),
        ({"min_new_tokens": 200}, "min_new_tokens must not exceed"),
    ],
)
def test_wrong_requests_are_refused(change, message):
    model = LLaMAHF(LLaMAHFConfig(n_layer=1, n_head=2, n_embd=16, vocab_size=12, clip_dim=8))
    arguments = {"text_features": torch.randn(1, 3, 8), "text_mask": torch.ones(1, 3), **change}
    with pytest.raises(ValueError, match=message):
        model.generate(**arguments)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="n_head=5"):
        LLaMAHFConfig(n_embd=64, n_head=5)
    with pytest.raises(ValueError, match="no preset '8B'"):
        LLaMAHFConfig.from_name("8B")
    with pytest.raises(ValueError, match="rope_dtype"):
        LLaMAHFConfig(rope_dtype="float16")


def test_sampling_before_training_leaves_a_table_that_trains():
    rope_table.cache_clear()
    model = build("tiny")
    features, mask = torch.randn(1, 3, model.config.clip_dim), torch.ones(1, 3, dtype=torch.bool)
    model.generate(features, mask, 4)
    loss, _ = model.next_token_loss(torch.tensor([[model.config.pad_id] * 3 + [1, 2]]), features, mask)
    loss.backward()
    assert model.llama_proj.weight.grad.abs().sum() > 0
