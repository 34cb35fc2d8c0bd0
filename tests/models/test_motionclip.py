"""MotionCLIP-135 against transformers' CLIP, published sizes, artifacts, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModel

from hftrainer.data.synthetic.motions import make_motion
from hftrainer.models.checkpoint import CheckpointError
from hftrainer.models.motion.motionclip import MotionCLIP135Evaluator
from hftrainer.models.motion.motionclip.network import MotionCLIP, TowerConfig
from hftrainer.motion.representation.convert import motion272_to_motion135
from hftrainer.registry import EVALUATORS

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
END = 29
CONFIG = {
    "text_config": {**SIZES, "vocab_size": 30, "eos_token_id": END, "hidden_act": "quick_gelu", "max_length": 20},
    "motion_config": {**SIZES, "hidden_size": 12, "layer_norm_eps": 1e-5},
    "projection_dim": 8,
    "logit_scale_init_value": 2.6592,
}


def tiny_network() -> MotionCLIP:
    towers = (TowerConfig(**SIZES, positions=11), TowerConfig(**{**SIZES, "hidden_size": 12}, positions=41))
    network = MotionCLIP(*towers, vocab_size=30, eos_token_id=END, projection_dim=8)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture
def tokenizer(tmp_path):
    letters = [*"abcdefghijklm", *(f"{letter}</w>" for letter in "abcdefghijklm")]
    words = {token: i for i, token in enumerate([*letters, "ab</w>", "<|startoftext|>", "x", "<|endoftext|>"])}
    assert words["<|endoftext|>"] == END
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    return CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))


@pytest.fixture
def evaluator(tokenizer):
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=135).astype(np.float32), rng.uniform(0.5, 2, 135).astype(np.float32)
    return MotionCLIP135Evaluator(tiny_network(), mean, std, tokenizer, CONFIG)


@pytest.fixture
def motions():
    return [motion272_to_motion135(make_motion("walk", n, n), layout="columns") for n in (20, 40, 7)]


def test_the_published_model_has_its_number_of_parameters():
    with torch.device("meta"):
        wide = TowerConfig(768, 3072, 12, 12, positions=513)
        network = MotionCLIP(TowerConfig(), wide)
    assert sum(p.numel() for p in network.parameters()) == 149_468_929
    names = network.state_dict().keys()
    assert {
        "text_model.embeddings.token_embedding.weight", "text_model.encoder.layers.11.self_attn.q_proj.bias",
        "text_model.final_layer_norm.weight", "text_projection.weight", "motion_projection.weight", "logit_scale",
        "motion_model.embeddings.class_embedding", "motion_model.embeddings.motion_projection.weight",
        "motion_model.embeddings.position_embedding.weight", "motion_model.pre_layernorm.weight",
        "motion_model.encoder.layers.0.mlp.fc1.weight", "motion_model.encoder.layers.0.layer_norm2.bias",
        "motion_model.post_layernorm.bias",
    } <= names  # fmt: skip


def test_the_text_tower_is_clips():
    network = tiny_network()
    config = CLIPTextConfig(**SIZES, vocab_size=30, max_position_embeddings=11, projection_dim=8, eos_token_id=END,
                            bos_token_id=27, pad_token_id=END)  # fmt: skip
    oracle = CLIPTextModelWithProjection(config).eval()
    ours = {k: v for k, v in network.state_dict().items() if k.startswith("text_")}
    oracle.load_state_dict(ours)
    ids = torch.randint(0, 27, (5, 11))
    for row, end in enumerate((3, 10, 1, 7, 5)):
        ids[row, end:] = END
    mask = torch.arange(11)[None] <= torch.tensor([3, 10, 1, 7, 5])[:, None]
    want = oracle(input_ids=ids, attention_mask=mask.long()).text_embeds
    torch.testing.assert_close(network.embed_text(ids, mask), want, atol=1e-5, rtol=0)
    cut = network.embed_text(ids[:1, :4], mask[:1, :4])  # padding changes nothing
    torch.testing.assert_close(cut, want[:1], atol=1e-5, rtol=0)


def test_the_motion_tower_is_clips_vision_tower_over_frames():
    network = tiny_network()
    config = CLIPVisionConfig(**{**SIZES, "hidden_size": 12}, attn_implementation="eager")
    vision = CLIPVisionModel(config).eval()
    vision = getattr(vision, "vision_model", vision)
    tower = network.motion_model
    vision.encoder.load_state_dict(tower.encoder.state_dict())
    motion = torch.randn(3, 20, 135)
    for length in (20, 5):
        frames = motion[:, :length] @ tower.embeddings.motion_projection.weight.T
        x = torch.cat([tower.embeddings.class_embedding.expand(3, 1, -1), frames], dim=1)
        x = tower.pre_layernorm(x + tower.embeddings.position_embedding.weight[: length + 1])
        last = vision.encoder(inputs_embeds=x).last_hidden_state
        want = tower.post_layernorm(last[:, 0]) @ network.motion_projection.weight.T
        mask = torch.arange(20)[None].expand(3, 20) < length
        torch.testing.assert_close(network.embed_motion(motion, mask), want, atol=1e-5, rtol=0)


def test_embeddings_do_not_depend_on_neighbours(evaluator, motions):
    both = evaluator.encode_motions(motions)
    for i, motion in enumerate(motions):
        np.testing.assert_allclose(evaluator.encode_motions([motion])[0], both[i], atol=1e-5)
    captions = ["ab c", "a b c d e f g h", "m"]
    texts = evaluator.encode_texts(captions)
    for i, caption in enumerate(captions):
        np.testing.assert_allclose(evaluator.encode_texts([caption])[0], texts[i], atol=1e-5)
    unit = evaluator.encode_motions(motions, normalize=True)
    np.testing.assert_allclose(unit, both / np.linalg.norm(both, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(evaluator.encode_motions(motions, lengths=[7, 7, 7])[2], both[2], atol=1e-5)
    assert evaluator.encode_texts(["a b c d e f g h i j k l m a b c"]).shape == (1, 8)  # cut to the positions


def test_artifacts_load_to_the_same(evaluator, motions, tmp_path):
    evaluator.save_pretrained(tmp_path / "artifact")
    again = MotionCLIP135Evaluator.from_pretrained(tmp_path / "artifact")
    for name, weight in evaluator.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], weight), name
    # the same weights at another place in memory may take other kernels, which round the last bit otherwise
    np.testing.assert_allclose(again.encode_motions(motions), evaluator.encode_motions(motions), atol=1e-6)
    np.testing.assert_allclose(again.encode_texts(["ab c"]), evaluator.encode_texts(["ab c"]), atol=1e-6)
    assert again.logit_scale == pytest.approx(evaluator.logit_scale)
    assert EVALUATORS.get("motionclip135") is MotionCLIP135Evaluator


def test_published_artifacts_need_statistics_and_a_tokenizer(evaluator, motions, tmp_path):
    evaluator.save_pretrained(tmp_path / "artifact")
    for name in ("stats.json", "tokenizer"):
        (tmp_path / "artifact" / name).rename(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"no stats\.json.*as stats="):
        MotionCLIP135Evaluator.from_pretrained(tmp_path / "artifact")
    with pytest.raises(CheckpointError, match=r"no tokenizer.*as tokenizer="):
        MotionCLIP135Evaluator.from_pretrained(tmp_path / "artifact", stats=tmp_path / "stats.json")
    given = {"stats": tmp_path / "stats.json", "tokenizer": tmp_path / "tokenizer"}
    again = MotionCLIP135Evaluator.from_pretrained(tmp_path / "artifact", **given)
    np.testing.assert_allclose(again.encode_motions(motions), evaluator.encode_motions(motions), atol=1e-6)
    (tmp_path / "stats.json").write_text(json.dumps({"transl": {"mean": [0, 0, 0], "std": [1, 1]}}))
    with pytest.raises(CheckpointError, match=r"3 finite numbers as transl\.std, got 2"):
        MotionCLIP135Evaluator.from_pretrained(tmp_path / "artifact", **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"motion_config": {**CONFIG["motion_config"], "hidden_act": "gelu"}}, "expected 'quick_gelu'"),
        ({"motion_config": {"hidden_size": 12}}, "motion_config has no intermediate_size"),
        ({"text_config": None}, "expected an object 'text_config'"),
        ({"text_config": {**CONFIG["text_config"], "num_hidden_layers": 3}}, "does not fit MotionCLIP"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(evaluator, tmp_path, change, message):
    evaluator.save_pretrained(tmp_path)
    (tmp_path / "bundle_config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(CheckpointError, match=message):
        MotionCLIP135Evaluator.from_pretrained(tmp_path)


def test_wrong_motions_are_refused(evaluator):
    motion = make_motion("walk", 20, 0)
    with pytest.raises(ValueError, match="expected \\(frames, 135\\) of motion135, got \\(20, 272\\)"):
        evaluator.encode_motions([motion])
    with pytest.raises(ValueError, match="columns_interleaved, MotionCLIP-135 reads columns"):
        evaluator.encode_motions([motion272_to_motion135(motion)])
    with pytest.raises(ValueError, match="NaN"):
        evaluator.encode_motions([np.full((20, 135), np.nan)])
    with pytest.raises(ValueError, match="30 frames asked for, it has 20"):
        evaluator.encode_motions([motion272_to_motion135(motion, layout="columns")], lengths=[30])
