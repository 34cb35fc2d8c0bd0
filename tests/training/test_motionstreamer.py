"""Training an evaluator: its losses against torch's own, and runs of seconds on procedural data."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from torch.distributions import Normal, kl_divergence

from hftrainer.config import ConfigError, load_experiment
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.text_motion.pairs import TextMotionBatch
from hftrainer.models.motion.motionstreamer import MotionStreamer272Evaluator
from hftrainer.models.motion.motionstreamer.network import Gaussian, MotionDecoder
from hftrainer.models.motion.motionstreamer.text_model import new_tokenizer
from hftrainer.registry import TASKS
from hftrainer.training import contrastive
from hftrainer.training.contrastive import SentenceSimilarity, TextMotionLoss, TextMotionLossConfig, info_nce
from hftrainer.training.fit import fit
from tests.conftest import GOLDEN, REPOSITORY
from tests.tiny import SENTENCES, tiny_evaluator
from tests.training.test_fit import QUIET, losses, stop_after

DEBUG = REPOSITORY / "configs" / "evaluation" / "debug_motionstreamer272.yaml"


def experiment(folder, synthetic, *overrides):
    return load_experiment(DEBUG, [f"output_dir={folder}", f"data.root={synthetic}", *QUIET, *overrides])


# --- losses -----------------------------------------------------------------------------------------------------------


def test_info_nce_by_hand():
    motion, text = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    alike = torch.eye(3, dtype=torch.bool)
    alike[0, 2] = alike[2, 0] = True
    logits = F.cosine_similarity(motion[:, None], text[None], dim=-1) / 0.1
    want = 0.0
    for i in range(3):
        rivals = [j for j in range(3) if {i, j} != {0, 2}]
        want += -logits[i, i] + torch.logsumexp(logits[i, rivals], 0)
        want += -logits[i, i] + torch.logsumexp(logits[rivals, i], 0)
    torch.testing.assert_close(info_nce(motion, text, alike, 0.1), want / 6)
    everything = torch.ones(3, 3, dtype=torch.bool)  # nothing to tell apart: no loss, and no NaN
    assert float(info_nce(motion, text, everything, 0.1)) == pytest.approx(0)


def test_divergences_are_torchs():
    a, b = (Gaussian(torch.randn(4, 6), torch.randn(4, 6)) for _ in range(2))

    def normal(g):
        return Normal(g.mean, g.std)

    torch.testing.assert_close(contrastive.kl_divergence(a, b), kl_divergence(normal(a), normal(b)).mean())
    standard = Normal(torch.zeros(4, 6), torch.ones(4, 6))
    torch.testing.assert_close(contrastive.kl_divergence(a), kl_divergence(normal(a), standard).mean())


def test_the_sum_has_the_releases_weights():
    text, motion = (Gaussian(torch.randn(4, 6), torch.randn(4, 6)) for _ in range(2))
    latents, decoded = (text.sample(), motion.sample()), (torch.randn(4, 9, 3), torch.randn(4, 9, 3))
    target, alike = torch.randn(4, 9, 3), torch.eye(4, dtype=torch.bool)
    terms = TextMotionLoss(TextMotionLossConfig())(text, motion, latents, decoded, target, alike)
    want = terms["reconstruction"] + 1e-5 * terms["kl"] + 1e-5 * terms["latent"] + 0.1 * terms["contrastive"]
    torch.testing.assert_close(terms["loss"], want)
    torch.testing.assert_close(terms["reconstruction"], sum(F.smooth_l1_loss(d, target) for d in decoded))


def test_a_sample_has_the_gaussians_mean_and_deviation():
    g = Gaussian(torch.full((40000, 1), 2.0), torch.full((40000, 1), -1.0))
    assert float(g.sample().mean()) == pytest.approx(2.0, abs=0.02)
    assert float(g.sample().std()) == pytest.approx(np.exp(-0.5), abs=0.02)


def test_the_decoder_is_zero_past_the_end_and_does_not_see_it():
    decoder = MotionDecoder(5, 8, 2, 2, 16, 0.0, 50).eval()
    latent = torch.randn(2, 8)
    mask = torch.arange(9)[None] < torch.tensor([[9], [4]])
    out = decoder(latent, mask)
    assert not out[1, 4:].any()
    torch.testing.assert_close(out[1, :4], decoder(latent[1:], mask[1:, :4])[0])


# --- the task ---------------------------------------------------------------------------------------------------------


def task_of(synthetic, bundle=None, **settings):
    from hftrainer.data.text_motion.pairs import TextMotion, TextMotionConfig

    source = TextMotion(TextMotionConfig(root=str(synthetic), groups=settings.pop("groups", None)))
    section = {"name": "motionstreamer272", "train_text_model": True, **settings}
    return TASKS.build(section, bundle=bundle or tiny_evaluator(), source=source)


def batch_of(captions, groups):
    return TextMotionBatch(
        captions, torch.randn(len(captions), 8, 272), torch.full((len(captions),), 8), torch.tensor(groups)
    )


def test_rows_that_are_no_negatives(synthetic):
    task = task_of(synthetic)
    alike = task.alike(batch_of(["a", "b", "a", "c", "d"], [0, 1, 2, 1, -1]))
    want = np.eye(5, dtype=bool)
    want[[0, 2, 1, 3], [2, 0, 3, 1]] = True
    np.testing.assert_array_equal(alike.numpy(), want)
    assert not task.alike(batch_of(["a", "b"], [-1, -1]))[0, 1]


def test_a_sentence_model_finds_more_of_them(synthetic, tmp_path):
    evaluator = tiny_evaluator()
    evaluator.text_encoder.text_model.save_pretrained(tmp_path / "sentences")
    evaluator.tokenizer.save_pretrained(tmp_path / "sentences")
    captions = [*SENTENCES[:3], SENTENCES[0]]
    similar = SentenceSimilarity(str(tmp_path / "sentences"), 0.9)
    rows = []
    for caption in captions:
        batch = evaluator.tokenizer([caption], return_tensors="pt")
        hidden = evaluator.text_encoder.text_model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        rows.append(hidden[0].mean(dim=0))
    cosines = F.cosine_similarity(torch.stack(rows)[:, None], torch.stack(rows)[None], dim=-1)
    middle = float(cosines.flatten().sort().values.unique()[:-1].mean())
    similar.threshold = middle
    np.testing.assert_array_equal(similar(captions).numpy(), (cosines > middle).numpy())
    assert similar(captions)[0, 3]
    task = task_of(synthetic, sentence_model=str(tmp_path / "sentences"), alike_above=-1.0)
    assert task.alike(batch_of(["a", "b"], [-1, -1])).all()


def test_a_debug_run_learns_and_leaves_an_evaluator(tmp_path, synthetic):
    run = fit(experiment(tmp_path / "run", synthetic))
    curve = losses(run)
    values = [float(curve[step]) for step in sorted(curve)]
    assert sum(values[-5:]) < 0.8 * sum(values[:5])
    found = json.loads((run / "last.json").read_text())["metrics"]
    assert found["val/R@1"] > 2 / 6 - 1e-6  # six clips; by chance one in six, or two for a pair of one content
    assert {"val/R@3", "val/MM-Dist", "val/contrastive", "val/loss"} <= found.keys()

    evaluator = MotionStreamer272Evaluator.from_pretrained(run / "best")
    folder = DatasetFolder(synthetic)
    mean, std = folder.statistics()
    np.testing.assert_allclose(evaluator.mean, mean)
    np.testing.assert_allclose(evaluator.std, std)
    motions = [folder.motion(name) for name in folder.names("val")]
    assert evaluator.encode_motions(motions).shape == (len(motions), 32)
    assert evaluator.encode_texts(["a person does something that no caption says"]).shape == (1, 32)


def test_resuming_gives_the_same_losses_bit_for_bit(tmp_path, synthetic):
    """Dropout and sampling included."""
    settings = ["trainer.max_steps=8", "trainer.checkpoint_every_n_steps=4", "trainer.val_every_n_steps=3",
                "callbacks=[{name: ema, decay: 0.9}]"]  # fmt: skip
    fit(experiment(tmp_path / "straight", synthetic, *settings))
    stop_after(experiment(tmp_path / "halves", synthetic, *settings), 5)
    fit(experiment(tmp_path / "halves", synthetic, *settings))
    assert losses(tmp_path / "straight") == losses(tmp_path / "halves")
    assert sorted(losses(tmp_path / "halves")) == list(range(8))


def test_a_given_language_model_stays_as_it_is(tmp_path, synthetic):
    folder = DatasetFolder(synthetic)
    captions = [caption.text for name in folder.names() for caption in folder.captions(name)]
    given = tiny_evaluator()
    given.text_encoder.text_model.save_pretrained(tmp_path / "text")
    new_tokenizer(captions, 120).save_pretrained(tmp_path / "text")
    run = fit(
        experiment(tmp_path / "run", synthetic, f"model.text.source={tmp_path / 'text'}", "task.train_text_model=false",
                   "trainer.max_steps=3", "trainer.val_every_n_steps=3", "trainer.checkpoint_every_n_steps=3")
    )  # fmt: skip
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert "bundle.text_encoder.mu_token" in state
    assert "decoder.final_layer.weight" in state
    assert not any("text_model" in name for name in state)
    trained = MotionStreamer272Evaluator.from_pretrained(run / "last")
    for name, tensor in given.text_encoder.text_model.state_dict().items():
        assert torch.equal(trained.text_encoder.text_model.state_dict()[name], tensor), name


def test_modes_of_the_parts(synthetic):
    task = task_of(synthetic, train_text_model=False, bundle=evaluator_with_source())
    task.train()
    assert task.bundle.text_encoder.seqTransEncoder.training
    assert not task.bundle.text_encoder.text_model.training
    assert not any(p.requires_grad for p in task.bundle.text_encoder.text_model.parameters())
    assert task.bundle.text_encoder.mu_token.requires_grad
    assert task_of(synthetic).train().bundle.text_encoder.text_model.training


def evaluator_with_source():
    evaluator = tiny_evaluator()
    evaluator.config.text.source = str(GOLDEN / "tiny_distilbert")
    return evaluator


def test_what_cannot_be_trained(synthetic):
    with pytest.raises(ConfigError, match="train_text_model must be true"):
        task_of(synthetic, train_text_model=False)
    with pytest.raises(ConfigError, match="motions with captions"):
        TASKS.build({"name": "motionstreamer272", "train_text_model": True}, bundle=tiny_evaluator(), source=object())


def test_training_starts_from_an_evaluators_weights_and_tokenizer(synthetic, tmp_path):
    first = tiny_evaluator()
    for weight in first.parameters():
        torch.nn.init.normal_(weight)
    first.save_pretrained(tmp_path / "first")
    bundle = tiny_evaluator()
    bundle.tokenizer = None
    task = task_of(synthetic, bundle=bundle, init=str(tmp_path / "first"))
    for name, weight in first.named_parameters():
        assert torch.equal(bundle.get_parameter(name), weight)
    assert bundle.tokenizer.get_vocab() == first.tokenizer.get_vocab()
    assert bundle.text_encoder.mu_token.requires_grad
    task_of(synthetic, bundle=bundle, init=str(tmp_path / "first"), train_text_model=False)
    small = MotionStreamer272Evaluator.from_config(replace(bundle.config, ff_size=16))
    with pytest.raises(ConfigError, match=r"task\.init: .* of other sizes"):
        task_of(synthetic, bundle=small, init=str(tmp_path / "first"))
    assert task.bundle is bundle


def test_the_vocabulary_is_that_of_the_captions():
    tokenizer = new_tokenizer(SENTENCES, 120)
    assert new_tokenizer(SENTENCES[::-1], 120).get_vocab() == tokenizer.get_vocab()
    assert tokenizer.tokenize("Someone is walking, then waves") == ["someone", "is", "walking", ",", "then", "waves"]
    assert tokenizer.tokenize("walkings") != ["[UNK]"]
    assert tokenizer(["run"])["input_ids"][0][0] == tokenizer.cls_token_id
    with pytest.raises(ValueError, match="vocab_size=20 has no room"):
        new_tokenizer(SENTENCES, 20)


def test_logs_hold_every_term(tmp_path, synthetic):
    run = fit(experiment(tmp_path / "run", synthetic, "trainer.max_steps=2", "callbacks=[]"))
    with next(run.glob("logs/version_*/metrics.csv")).open() as stream:
        columns = csv.DictReader(stream).fieldnames
    assert {f"train/{name}" for name in ("loss", "reconstruction", "kl", "latent", "contrastive")} <= set(columns)
