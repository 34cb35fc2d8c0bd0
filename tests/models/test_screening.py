"""The 8-bit screen finds what the exact product finds, or says that it cannot."""

import pytest
import torch
import torch.nn.functional as F

from hftrainer.models.motion.motionmillion.engine import int8_argmax
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA
from hftrainer.models.motion.motionmillion.engine.int8_argmax import Int8ArgMax, can_use_int8
from tests.models.test_batching import make_model

pytestmark = pytest.mark.skipif(not can_use_int8(torch.zeros(1)), reason="needs a CPU with VNNI and torch with oneDNN")


def make_head(ids=5001, width=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(ids, width, generator=generator) * torch.rand(ids, 1, generator=generator).add(0.5)
    return weight, Int8ArgMax(weight)


@pytest.mark.parametrize("rows", [1, 5, 16, 17, 40])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_the_best_id_is_that_of_the_exact_product(rows, scale):
    weight, head = make_head(seed=rows)
    x = torch.randn(rows, 96, generator=torch.Generator().manual_seed(rows)) * scale
    assert torch.equal(head.best(x), F.linear(x.double(), weight.double()).argmax(dim=-1))
    assert (head.found, head.missed) == (1, 0)


@pytest.mark.parametrize("rows", [4, 40])
def test_what_is_rounded_is_off_by_no_more_than_the_bound(rows):
    weight, head = make_head()
    x = torch.randn(rows, 96) * torch.logspace(-3, 3, rows)[:, None]
    x[0, 0] = 50 * x[0].abs().max()  # one channel that makes all others coarse
    scores, bound = head._rounded(x)
    step = x.abs().amax(dim=-1, keepdim=True).double() / 127
    off = (F.linear(x.double(), weight.double()) / step - scores[:, :5001].double()).abs()
    assert (off <= bound[:, None]).all()
    assert off.max() > 0


def test_only_a_bound_that_is_kept_finds_the_best():
    """Without it, ids that rounding put first would win: the test above is not passed by luck."""
    weight, _ = make_head()
    weight = weight.repeat(4, 1) + 1e-3 * torch.randn(4 * len(weight), 96)  # each id has three that are near it
    head, x = Int8ArgMax(weight), torch.randn(200, 96)
    exact = F.linear(x.double(), weight.double()).argmax(dim=-1)
    assert torch.equal(head.best(x), exact)
    head.off = head.norm = 0.0
    assert not torch.equal(head.best(x), exact)


def test_end_is_chosen_only_where_it_may_be():
    weight, _ = make_head()
    weight[-1] = 4 * weight[:-1].abs().amax()
    head, x = Int8ArgMax(weight), torch.rand(6, 96)
    may_end = torch.tensor([True, False] * 3)
    ids = head.best(x, may_end)
    assert (ids == 5000).tolist() == may_end.tolist()
    assert torch.equal(ids[~may_end], F.linear(x, weight[:-1]).argmax(dim=-1)[~may_end])


@pytest.mark.parametrize("first", [0, 63, 77, 4000])
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_the_first_of_equals(first, rows):
    """Whatever kernel multiplies: an equal row elsewhere in the matrix must not win by how it is rounded."""
    weight, _ = make_head(seed=first)
    weight[[first, 4100, 4321, 4999]] = 3 * weight[first]
    x = weight[first][None].repeat(rows, 1)
    assert Int8ArgMax(weight).best(x).tolist() == [first] * rows


def test_too_many_good_ids_and_no_numbers_are_left_to_the_exact_product(monkeypatch):
    weight = torch.ones(64 * 400, 8)
    head = Int8ArgMax(weight)
    assert head.best(torch.ones(2, 8)) is None
    _, head = make_head()
    for bad in (torch.full((2, 96), torch.nan), torch.zeros(2, 96)):
        assert head.best(bad) is None
    assert head.missed == 2
    assert head.is_worthwhile
    for _ in range(7):
        head.best(bad)
    assert not head.is_worthwhile


@torch.no_grad()
def test_a_model_screens_where_weights_are_packed(monkeypatch):
    model = make_model(vocab_size=5002)
    hidden = torch.randn(30, 64, generator=torch.Generator().manual_seed(0))
    may_end = torch.arange(30) % 2 == 0
    exact = InferenceLLaMA(model)
    assert not exact.uses_int8
    packed = InferenceLLaMA(model, prepack=True)
    assert packed.uses_int8
    assert torch.equal(packed.best(hidden, may_end), exact.best(hidden, may_end))
    assert packed._int8.found == 1
    monkeypatch.setattr(int8_argmax, "_MOST", 0)  # every screen fails
    assert torch.equal(packed.best(hidden, may_end), exact.best(hidden, may_end))
    assert packed._int8.missed == 1
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    assert not InferenceLLaMA(model, prepack=True).uses_int8
