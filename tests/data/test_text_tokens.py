"""Tokens and captions as the transformer is shown them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.synthetic.motions import write_tokens
from hftrainer.data.tokens.captioned import TextTokens, TextTokensConfig
from hftrainer.data.tokens.folder import TokenSet, tokenize
from hftrainer.models.motion.motionmillion.tokenizer import load_tokenizer


@pytest.fixture
def dataset(synthetic, tmp_path) -> DatasetFolder:
    return DatasetFolder(shutil.copytree(synthetic, tmp_path / "data"))


def source(dataset, **settings) -> TextTokens:
    write_tokens(dataset, codebook_size=240)
    return TextTokens(TextTokensConfig(root=str(dataset.root), batch_size=4, **settings))


def test_tokenizing_equals_encoding_one_by_one(dataset, tiny_model, tmp_path):
    tokenizer = load_tokenizer(tiny_model)
    names = dataset.names("train")
    count = tokenize(
        dataset, names, tmp_path / "tokens", tokenizer.encode, tokenizer_sha256=tokenizer.sha256,
        codebook_size=240, frames_per_code=2,
    )  # fmt: skip
    tokens = TokenSet(tmp_path / "tokens")
    assert count == len(tokens) == 2 * len(names)
    assert tokens.codes.dtype == np.uint16
    for entry in (0, 1, 7, len(tokens) - 1):
        motion = dataset.motion(tokens.names[entry])[entry % 2 :]
        codes = tokenizer.bundle.encode_motion(torch.from_numpy(motion[None]))[0]
        assert tokens[entry].tolist() == codes.tolist()
    tokens.check_tokenizer(tokenizer.sha256)
    with pytest.raises(ValueError, match="made by another tokenizer"):
        tokens.check_tokenizer("0" * 64)


def test_rules_of_the_release(dataset):
    data = source(dataset)
    train = data.train()
    plain = data.tokens[train.entries[0]]
    lengths = []
    for seed in range(600):
        caption, codes = train[(0, seed)]
        lengths.append(len(plain) - len(codes))
        assert caption in {c.text for c in dataset.captions(data.tokens.names[train.entries[0]])}
        assert codes.tolist() in (plain.tolist(), plain[1:].tolist(), plain[:-1].tolist())
    assert 0.28 < np.mean(lengths) < 0.39  # one code is dropped in a third of the draws
    assert train[(0, 5)][1].tolist() == train[(0, 5)][1].tolist()


def test_noise_replaces_the_share_that_is_not_kept(dataset):
    data = source(dataset, token_keep_prob=0.8, drop_token=0.0)
    train = data.train()
    plain = data.tokens[train.entries[0]]
    changed = np.mean([(train[(0, seed)][1] != plain).mean() for seed in range(300)])
    assert 0.17 < changed < 0.23


def test_long_clips_are_cut_and_parts_follow_their_tags(dataset):
    data = source(dataset, max_tokens=20, drop_token=0.0)
    train = data.train()
    index = int(np.argmax(data.tokens.lengths[train.entries]))
    name = data.tokens.names[train.entries[index]]
    starts = {train[(index, seed)][1].tolist()[0] for seed in range(50)}
    assert all(len(train[(index, seed)][1]) == 20 for seed in range(20))
    assert len(starts) > 3
    dataset.write_captions(name, ["he turns#he/PRON#0.4#0.8"])
    part = source(dataset, drop_token=0.0).train()
    caption, codes = part[(index, 0)]
    assert caption == "he turns"
    assert codes.tolist() == data.tokens[train.entries[index]][6:12].tolist()  # 15 codes a second


def test_clips_that_any_part_fits_are_cut_anywhere_and_others_keep_their_start(dataset):
    names = dataset.names("train")
    dataset.write_labels({name: {**label, "single": name == names[0]} for name, label in dataset.labels().items()})
    train = source(dataset, crop="single", shortest_stretch=10, max_tokens=20, drop_token=0.0).train()
    data = TextTokens(TextTokensConfig(root=str(dataset.root)))
    places = {name: next(i for i, e in enumerate(train.entries) if data.tokens.names[e] == name) for name in names[:2]}
    for name, anywhere in zip(names[:2], (True, False), strict=True):
        codes = data.tokens[train.entries[places[name]]].tolist()
        rows = [train[(places[name], seed)][1].tolist() for seed in range(200)]
        assert all(any(codes[i : i + len(row)] == row for i in range(len(codes))) for row in rows)
        assert ({len(row) for row in rows} == {20}) != anywhere
        assert all(row == codes[:20] for row in rows) != anywhere
    with pytest.raises(ValueError, match=r"no clip in labels\.json has the label 'nope'"):
        source(dataset, crop="nope").train()[(0, 0)]


def test_balance_and_joined_share(dataset):
    labels = dataset.labels()
    for name in dataset.names("train")[:5]:
        labels[name] = {"content": "joined", "parts": []}
    dataset.write_labels(labels)
    data = source(dataset, balance="content", joined=0.5)
    train = data.train()
    weights = train.weights()
    joined = np.array([labels[data.tokens.names[e]]["content"] == "joined" for e in train.entries])
    assert weights[joined].sum() == pytest.approx(weights.sum() / 2)
    contents = [labels[data.tokens.names[e]]["content"] for e in np.array(train.entries)[~joined]]
    totals = {c: weights[~joined][[x == c for x in contents]].sum() for c in set(contents)}
    assert max(totals.values()) == pytest.approx(min(totals.values()))


def test_validation_is_the_first_caption_and_whole(dataset):
    data = source(dataset)
    batches = data.val()
    assert sum(len(b.captions) for b in batches) == len(dataset.names("val"))
    assert all((b.codes[i, n:] == -1).all() for b in batches for i, n in enumerate(b.lengths.tolist()))


def test_incomplete_data_is_refused(dataset):
    write_tokens(dataset, codebook_size=240)
    config = TextTokensConfig(root=str(dataset.root))
    (dataset.texts / f"{dataset.names('train')[0]}.txt").unlink()
    with pytest.raises(ValueError, match="1 clips of split 'train' have no caption"):
        TextTokens(config).train()
    dataset.write_split("train", [*dataset.names("train"), "new"])
    with pytest.raises(ValueError, match=r"1 clips of split 'train' are not in .*'new'; tokenize again"):
        TextTokens(config).train()
    with pytest.raises(ValueError, match="has no tokens"):
        TextTokens(TextTokensConfig(root=str(dataset.root), tokens="other"))
