"""HumanVQVAE against the reference, batched, and ragged."""

from __future__ import annotations

import json

import pytest
import torch

from hftrainer.models.motion.motionmillion.network import FSQ, HumanVQVAE
from hftrainer.models.motion.motionmillion.network.fsq import codebook_use
from tests.conftest import GOLDEN
from tests.tiny import golden_fill

CLIPS = {"a": 64, "b": 97, "c": 150}


@pytest.fixture(scope="module")
def released() -> HumanVQVAE:
    return golden_fill().fill(HumanVQVAE().eval(), scale=0.05)


def motion(name: str) -> torch.Tensor:
    return torch.from_numpy(3 * golden_fill().values(f"pub/motion_{name}", (1, CLIPS[name], 272), 1.0))


def ragged() -> tuple[torch.Tensor, torch.Tensor]:
    """The three clips in one batch, with rubbish where there is nothing."""
    out = torch.full((3, 150, 272), 99.0)
    for row, name in enumerate(CLIPS):
        out[row, : CLIPS[name]] = motion(name)[0]
    return out, torch.tensor(list(CLIPS.values()))


def test_state_dict_is_the_released_one():
    want = json.loads((GOLDEN / "tokenizer_state_dict_pub.json").read_text())
    got = {name: list(tensor.shape) for name, tensor in HumanVQVAE().state_dict().items()}
    assert got == want
    assert sum(p.numel() for p in HumanVQVAE().parameters()) == 11_349_782


@pytest.mark.parametrize("name", CLIPS)
@torch.no_grad()
def test_codes_and_motion_equal_the_reference(released, golden, name):
    want = golden("tokenizer_pub")
    out = released(motion(name))
    assert released.encode(motion(name)).tolist() == want[f"tok_{name}_idx"].tolist()
    assert out.codes.tolist() == want[f"tok_{name}_idx"].tolist()
    torch.testing.assert_close(out.motion, torch.from_numpy(want[f"tok_{name}_rec"]), atol=2e-4, rtol=0)
    decoded = released.forward_decoder(torch.from_numpy(want[f"tok_{name}_idx"]).long())
    torch.testing.assert_close(decoded, torch.from_numpy(want[f"tok_{name}_dec"]), atol=2e-4, rtol=0)


@torch.no_grad()
def test_arbitrary_codes_and_latents_equal_the_reference(released, golden):
    want = golden("tokenizer_pub")
    decoded = released.forward_decoder(torch.from_numpy(want["dec_ids"]))
    torch.testing.assert_close(decoded, torch.from_numpy(want["dec_out"]), atol=2e-4, rtol=0)
    latent = released.vqvae.encoder(motion("b").transpose(1, 2))
    torch.testing.assert_close(latent, torch.from_numpy(want["tok_b_latent"]), atol=2e-4, rtol=0)


@pytest.mark.parametrize("nb_code", [256, 512, 1024, 2048, 4096, 16384])
@torch.no_grad()
def test_other_level_tables_and_depths_equal_the_reference(golden, nb_code):
    want = golden("tokenizer_pub")
    fill = golden_fill()
    model = HumanVQVAE(nb_code=nb_code, width=32, code_dim=32, output_emb_width=32, down_t=2).eval()
    out = fill.fill(model, scale=0.15)(torch.from_numpy(2 * fill.values(f"pub/motion_v{nb_code}", (1, 61, 272), 1.0)))
    assert model.codebook_size == want[f"v{nb_code}_size"]
    assert out.codes.tolist() == want[f"v{nb_code}_idx"].tolist()
    torch.testing.assert_close(out.motion, torch.from_numpy(want[f"v{nb_code}_rec"]), atol=2e-4, rtol=0)


@torch.no_grad()
def test_a_ragged_batch_equals_one_by_one(released):
    batch, lengths = ragged()
    codes, out = released.encode(batch, lengths), released(batch, lengths).motion
    for row, name in enumerate(CLIPS):
        alone, n = released(motion(name)), CLIPS[name] // 2
        assert codes[row, :n].tolist() == alone.codes[0].tolist()
        torch.testing.assert_close(out[row, : 2 * n], alone.motion[0], atol=2e-4, rtol=0)


@torch.no_grad()
def test_a_ragged_batch_of_codes_decodes_as_one_by_one(released):
    lengths = torch.tensor([75, 40, 1])
    codes = torch.randint(0, 64000, (3, 75))
    for row, length in enumerate(lengths):
        codes[row, length:] = 64001  # PAD
    out = released.forward_decoder(codes, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = released.forward_decoder(codes[row : row + 1, :length])[0]
        torch.testing.assert_close(out[row, : 2 * length], alone, atol=2e-4, rtol=0)
        assert not out[row, 2 * length :].any()


@torch.no_grad()
def test_padding_without_lengths_is_not_exact(released):
    """Shows that the test above can fail: what lies behind a clip leaks into it unless lengths are given."""
    batch, _ = ragged()
    padded = released(batch[:1]).motion[0, :64]
    assert (padded - released(motion("a")).motion[0]).abs().max() > 1e-2


def test_code_radius_bounds_what_a_code_reaches(released):
    codes = torch.randint(0, 64000, (1, 90))
    other = codes.clone()
    other[0, 45] = (codes[0, 45] + 777) % 64000
    with torch.no_grad():
        changed = (released.forward_decoder(codes) - released.forward_decoder(other)).abs().amax(-1)[0].nonzero()
    assert changed.min() >= 2 * (45 - released.code_radius)
    assert changed.max() < 2 * (45 + released.code_radius + 1)


@pytest.mark.parametrize("index", [0, 1, 7, 8, 12345, 63_999])
def test_code_index_is_mixed_radix(index):
    levels, digits, rest = [8, 8, 8, 5, 5, 5], [], index
    for level in levels:
        digits.append(rest % level)
        rest //= level
    fsq = FSQ(levels)
    assert fsq.digits(torch.tensor(index)).tolist() == digits
    assert fsq.codes_to_indices(fsq.indices_to_codes(torch.tensor(index))).item() == index


@pytest.mark.parametrize("levels", [[2], [3, 4], [5, 5, 5], [7, 5, 5, 5, 5], [8, 8, 8, 5, 5, 5]])
def test_any_level_table_is_a_bijection(levels):
    fsq = FSQ(levels)
    everything = torch.arange(fsq.codebook_size)
    codes = fsq.indices_to_codes(everything)
    assert torch.equal(fsq.codes_to_indices(codes), everything)
    assert codes.abs().max() <= 1


def test_quantize_passes_gradients_straight_through():
    fsq = FSQ([8, 5])
    z = torch.randn(7, 2, requires_grad=True)
    fsq.quantize(z).sum().backward()
    bounded = torch.randn(0)
    w = z.detach().clone().requires_grad_()
    bounded = fsq.bound(w) / (torch.tensor([8, 5]) // 2)
    bounded.sum().backward()
    torch.testing.assert_close(z.grad, w.grad)


def test_codebook_use_equals_the_dense_formula():
    indices = torch.randint(0, 50, (4, 30))
    one_hot = torch.nn.functional.one_hot(indices.flatten(), 240).double()
    p = one_hot.mean(0)
    use = codebook_use(indices, 240)
    torch.testing.assert_close(use.perplexity, torch.exp(-(p * torch.log(p + 1e-7)).sum()))
    torch.testing.assert_close(use.active, (p > 0).double().mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nb_code": 1000}, "no FSQ level table for nb_code=1000"),
        ({"patch_size": 2}, "only patch_size 1"),
        ({"code_dim": 256}, "must equal output_emb_width"),
        ({"levels": [1, 5]}, "at least 2 values"),
        ({"activation": "swish"}, "unknown activation"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HumanVQVAE(**arguments)


def test_wrong_input_is_refused(released):
    with pytest.raises(ValueError, match=r"\(clips, frames, 272\)"):
        released.encode(torch.zeros(1, 10, 263))
    with pytest.raises(ValueError, match="END and PAD are not motion"):
        released.forward_decoder(torch.tensor([[64000]]))
    with pytest.raises(ValueError, match="at least 2 frames"):
        released.encode(torch.zeros(1, 1, 272))
