"""The official HumanML3D-263 matcher: names, a second implementation, files, words, refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from hftrainer.models.checkpoint import CheckpointError
from hftrainer.models.motion.humanml263 import HumanML263Evaluator
from hftrainer.models.motion.humanml263.evaluator import HumanML263Config
from hftrainer.models.motion.humanml263.network import Matcher, MatcherConfig
from hftrainer.models.motion.humanml263.words import WordVectors
from hftrainer.registry import EVALUATORS

TINY = MatcherConfig(movement_hidden=8, movement=6, motion_hidden=10, text_hidden=7, embedding=5)
WORDS = ["sos", "eos", "unk", "a", "man", "walk", "slowly", "left"]
CAPTIONS = ["a/DET man/NOUN walk/VERB slowly/ADV", "man/NOUN zigzag/VERB left/ADJ"]


@pytest.fixture
def evaluator() -> HumanML263Evaluator:
    rng = np.random.default_rng(0)
    words = WordVectors(WORDS, rng.normal(size=(len(WORDS), 300)).astype(np.float32))
    mean, std = rng.normal(size=263).astype(np.float32), rng.uniform(0.5, 2, 263).astype(np.float32)
    return HumanML263Evaluator(HumanML263Config(matcher=TINY), Matcher(TINY), words, mean, std)


@pytest.fixture
def motions():
    rng = np.random.default_rng(1)
    return [rng.normal(size=(n, 263)) for n in (40, 196, 43, 7)]


def test_names_and_sizes_are_the_published_ones():
    with torch.device("meta"):
        matcher = Matcher(MatcherConfig())
    shapes = {name: tuple(tensor.shape) for name, tensor in matcher.state_dict().items()}
    gru = ["gru.weight_ih_l0", "gru.weight_hh_l0", "gru.bias_ih_l0", "gru.bias_hh_l0"]
    gru += [f"{name}_reverse" for name in gru]
    sequence = ["hidden", "input_emb.weight", "input_emb.bias", *gru,
                *(f"output_net.{i}.{kind}" for i in (0, 1, 3) for kind in ("weight", "bias"))]  # fmt: skip
    wanted = {f"motion_encoder.{name}" for name in sequence} | {f"text_encoder.{name}" for name in sequence}
    wanted |= {"text_encoder.pos_emb.weight", "text_encoder.pos_emb.bias"}
    wanted |= {f"movement_encoder.{n}.{k}" for n in ("main.0", "main.3", "out_net") for k in ("weight", "bias")}
    assert shapes.keys() == wanted
    assert shapes["movement_encoder.main.0.weight"] == (512, 259, 4)
    assert shapes["motion_encoder.hidden"] == (2, 1, 1024)
    assert shapes["motion_encoder.output_net.0.weight"] == (1024, 2048)
    assert shapes["motion_encoder.output_net.3.weight"] == (512, 1024)
    assert shapes["text_encoder.pos_emb.weight"] == (300, 15)
    assert shapes["text_encoder.gru.weight_ih_l0"] == (3 * 512, 512)


# --- a second implementation, one clip and one step at a time ---------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def gru_last(p, steps, hidden, suffix):
    w_i, w_h = p[f"gru.weight_ih_l0{suffix}"], p[f"gru.weight_hh_l0{suffix}"]
    b_i, b_h = p[f"gru.bias_ih_l0{suffix}"], p[f"gru.bias_hh_l0{suffix}"]
    for x in steps:
        (ri, zi, ni), (rh, zh, nh) = np.split(w_i @ x + b_i, 3), np.split(w_h @ hidden + b_h, 3)
        r, z = sigmoid(ri + rh), sigmoid(zi + zh)
        hidden = (1 - z) * np.tanh(ni + r * nh) + z * hidden
    return hidden


def embed(p, sequence):
    steps = [p["input_emb.weight"] @ x + p["input_emb.bias"] for x in sequence]
    forward = gru_last(p, steps, p["hidden"][0, 0], "")
    last = np.concatenate([forward, gru_last(p, steps[::-1], p["hidden"][1, 0], "_reverse")])
    x = p["output_net.0.weight"] @ last + p["output_net.0.bias"]
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * p["output_net.1.weight"] + p["output_net.1.bias"]
    return p["output_net.3.weight"] @ leaky(x) + p["output_net.3.bias"]


def conv(x, weight, bias):
    padded = np.pad(x, ((1, 1), (0, 0)))
    return np.array([np.einsum("oik,ki->o", weight, padded[t : t + 4]) + bias for t in range(0, len(padded) - 3, 2)])


def parameters(evaluator, part):
    return {k: v.double().numpy() for k, v in getattr(evaluator.matcher, part).state_dict().items()}


def second_motion(evaluator, motion):
    frames = len(motion) // 4 * 4
    padded = np.zeros((196, 263))
    padded[:frames] = (motion[:frames] - evaluator.mean) / evaluator.std
    m = parameters(evaluator, "movement_encoder")
    x = leaky(conv(padded[:, :259], m["main.0.weight"], m["main.0.bias"]))
    x = leaky(conv(x, m["main.3.weight"], m["main.3.bias"])) @ m["out_net.weight"].T + m["out_net.bias"]
    return embed(parameters(evaluator, "motion_encoder"), x[: frames // 4])


def second_text(evaluator, pairs):
    p = parameters(evaluator, "text_encoder")
    rows = []
    for word, tag in pairs:
        tag_vector = p["pos_emb.weight"][:, tag] + p["pos_emb.bias"]
        rows.append(evaluator.words.vectors[WORDS.index(word)] + tag_vector)
    return embed(p, rows)


def test_motion_embeddings_equal_the_second_implementation(evaluator, motions):
    got = evaluator.encode_motions(motions, batch_size=3)
    want = np.array([second_motion(evaluator, motion) for motion in motions])
    np.testing.assert_allclose(got, want, atol=1e-5)
    shorter = evaluator.encode_motions(motions, lengths=[20, 30, 40, 4])
    np.testing.assert_allclose(shorter[1], second_motion(evaluator, motions[1][:30]), atol=1e-5)


def test_text_embeddings_equal_the_second_implementation(evaluator):
    got = evaluator.encode_texts(CAPTIONS, batch_size=2)
    other = 14
    first = [("sos", other), ("a", 2), ("man", 1), ("walk", 12), ("slowly", 13), ("eos", other)]
    second = [("sos", other), ("man", 1), ("unk", other), ("left", 9), ("eos", other)]
    np.testing.assert_allclose(got, [second_text(evaluator, first), second_text(evaluator, second)], atol=1e-5)


def test_captions_are_cut_and_odd_tags_are_other(evaluator):
    long = " ".join(["man/NOUN"] * 30)
    assert len(evaluator.words.encode(long, 20)[0]) == 22
    _, tags = evaluator.words.encode("man/XYZ", 20)
    assert tags.argmax(axis=1).tolist() == [14, 14, 14]
    with pytest.raises(ValueError, match="second field of HumanML3D's text lines"):
        evaluator.encode_texts(["a man walks"])
    with pytest.raises(ValueError, match="no words"):
        evaluator.encode_texts([""])


def released(evaluator, folder):
    """Files as the authors publish them."""
    torch.save(
        {
            **{name: part.state_dict() for name, part in evaluator.matcher.named_children()},
            "opt_text_encoder": {"state": {0: {"step": 3}}, "param_groups": []},
            "epoch": 7,
        },
        folder / "finest.tar",
    )  # fmt: skip
    np.save(folder / "mean.npy", evaluator.mean)
    np.save(folder / "std.npy", evaluator.std)
    order = [3, 1, 0, 2, 5, 4, 7, 6]
    np.save(folder / "our_vab_data.npy", evaluator.words.vectors[order])
    (folder / "our_vab_words.pkl").write_bytes(pickle.dumps(WORDS))
    (folder / "our_vab_idx.pkl").write_bytes(pickle.dumps({WORDS[row]: i for i, row in enumerate(order)}))


def load_released(folder):
    return HumanML263Evaluator.from_released(
        folder / "finest.tar", mean=folder / "mean.npy", std=folder / "std.npy", glove=folder,
        config=HumanML263Config(matcher=TINY),
    )  # fmt: skip


def test_published_files_and_artifacts_load_to_the_same(evaluator, motions, tmp_path):
    released(evaluator, tmp_path)
    loaded = load_released(tmp_path)
    loaded.save_pretrained(tmp_path / "artifact")
    again = HumanML263Evaluator.from_pretrained(tmp_path / "artifact")
    for other in (loaded, again):
        np.testing.assert_array_equal(other.encode_motions(motions), evaluator.encode_motions(motions))
        np.testing.assert_array_equal(other.encode_texts(CAPTIONS), evaluator.encode_texts(CAPTIONS))
    assert EVALUATORS.get("humanml263") is HumanML263Evaluator


class Harmful:
    def __reduce__(self):
        return (print, ("this ran",))


def test_other_files_are_refused(evaluator, tmp_path, capsys):
    released(evaluator, tmp_path)
    torch.save({"movement_encoder": evaluator.matcher.movement_encoder.state_dict()}, tmp_path / "finest.tar")
    with pytest.raises(CheckpointError, match="motion_encoder"):
        load_released(tmp_path)
    torch.save({"vq_model": {"a": torch.zeros(1)}}, tmp_path / "finest.tar")
    with pytest.raises(CheckpointError, match="movement_encoder"):
        load_released(tmp_path)
    released(evaluator, tmp_path)
    np.save(tmp_path / "mean.npy", np.zeros(272))
    with pytest.raises(CheckpointError, match=r"expected floats \(263,\), got \(272,\)"):
        load_released(tmp_path)
    released(evaluator, tmp_path)
    (tmp_path / "our_vab_words.pkl").write_bytes(pickle.dumps([Harmful()]))
    with pytest.raises(CheckpointError):
        load_released(tmp_path)
    assert "this ran" not in capsys.readouterr().out
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        HumanML263Evaluator.from_pretrained(tmp_path)


def test_wrong_motions_are_refused(evaluator, motions):
    with pytest.raises(ValueError, match=r"motion 1.*272"):
        evaluator.encode_motions([motions[0], np.zeros((40, 272))])
    with pytest.raises(ValueError, match="197 frames of 197; the evaluator sees 4 to 196"):
        evaluator.encode_motions([np.zeros((197, 263))])
    with pytest.raises(ValueError, match="NaN"):
        evaluator.encode_motions([np.full((40, 263), np.nan)])
