"""Packed sets give what the folder gives, open without being read, and refuse what does not belong to them."""

from __future__ import annotations

import json
import pickle
import shutil
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hftrainer.data.draws import below, uniform
from hftrainer.data.flat import PackedTokens
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.order import PlanSampler
from hftrainer.data.synthetic.motions import write_tokens
from hftrainer.data.tokens.folder import TokenSet, write_token_set
from hftrainer.data.tokens.pack import Tokenizer, pack_tokens
from hftrainer.registry import DATASETS


@pytest.fixture
def dataset(synthetic, tmp_path) -> DatasetFolder:
    """Captions for full clips and for parts, long clips and joined ones; codes of 240."""
    dataset = DatasetFolder(shutil.copytree(synthetic, tmp_path / "data"))
    names, labels = dataset.names("train"), dataset.labels()
    dataset.write_captions(names[0], ["he turns#he/PRON#0.4#1.4", "Ein Mensch läuft übermütig – 走る"])
    for name in names[1:5]:
        labels[name] = {"content": "joined", "parts": []}
    write_tokens(dataset, codebook_size=240)
    labels.pop(names[6])
    dataset.write_labels(labels)
    return dataset


def pair(dataset, **rules):
    """The folder and the packed set under the same rules."""
    packed = dataset.root / "packed"
    if not packed.is_dir():
        pack_tokens(dataset, packed)
    build = DATASETS.build
    return (
        build({"name": "text_tokens", "root": str(dataset.root), "batch_size": 4, **rules}),
        build({"name": "packed_tokens", "root": str(packed), "batch_size": 4, **rules}),
    )


def batches(source, count: int, workers: int = 0, start: int = 0, rank: int = 0, world: int = 1):
    train = source.train()
    plan = source.plan(train, seed=3)
    plan.start_at(plan.position(start * world))
    sampler = PlanSampler(plan, rank=rank, world=world)
    loader = DataLoader(train, batch_sampler=sampler, collate_fn=source.collate, num_workers=workers)
    return list(islice(loader, count))


def same(got, want) -> bool:
    return len(got) == len(want) and all(
        a.captions == b.captions and torch.equal(a.codes, b.codes) and torch.equal(a.lengths, b.lengths)
        for a, b in zip(got, want, strict=True)
    )


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"max_tokens": 30, "shortest_stretch": 10},
        {"token_keep_prob": 0.8},
        {"token_keep_prob": -1.0, "max_tokens": 40},
        {"balance": "content", "joined": 0.5, "balance_power": 0.7},
    ],
    ids=lambda rules: "-".join(rules) or "released",
)
def test_a_packed_set_gives_the_batches_of_its_folder(dataset, rules):
    folder, packed = pair(dataset, **rules)
    assert same(batches(packed, 20), batches(folder, 20))
    assert same(packed.val(), folder.val())
    assert len(packed.val()) > 0
    np.testing.assert_array_equal(packed.statistics[0], folder.statistics[0])


def test_rows_do_not_depend_on_their_batch(dataset):
    _, packed = pair(dataset, token_keep_prob=0.9, max_tokens=40)
    train = packed.train()
    items = [(i % len(train), 1000 + 7 * i) for i in range(50)]
    together = train.__getitems__(items)
    assert (together.codes[0, together.lengths[0] :] == -1).all()
    for i, item in enumerate(items):
        caption, codes = train[item]
        assert caption == together.captions[i]
        assert codes.tolist() == together.codes[i, : together.lengths[i]].tolist()


def test_workers_ranks_and_a_start_in_the_middle_see_the_same_order(dataset):
    _, packed = pair(dataset)
    whole = batches(packed, 14)  # several epochs of 28 rows
    assert same(batches(packed, 14, workers=2), whole)
    assert same(batches(packed, 9, start=5), whole[5:])
    ranks = [batches(packed, 4, rank=rank, world=3, start=1) for rank in range(3)]
    assert same([ranks[n % 3][n // 3] for n in range(11)], whole[3:14])


def test_workers_map_the_files_again(dataset):
    _, packed = pair(dataset)
    train = packed.train()
    sent = pickle.dumps(train.table)
    assert len(sent) < 1000  # the folder's name, not its content
    assert pickle.loads(sent).captions([0, 1]) == train.table.captions([0, 1])  # noqa: S301
    assert isinstance(train.table.codes.base, np.memmap)
    folder, _ = pair(dataset)
    copied = pickle.loads(pickle.dumps(folder.train()))  # noqa: S301
    assert same([copied.plain([3])], [folder.train().plain([3])])


def test_what_is_packed_is_what_was_there(dataset):
    pack_tokens(dataset, dataset.root / "packed", splits=["train", "val"])
    packed, tokens = PackedTokens(dataset.root / "packed"), TokenSet(dataset.root / "tokens")
    wanted = {*dataset.names("train"), *dataset.names("val")}
    kept = [i for i, name in enumerate(tokens.names) if name in wanted]
    assert len(packed) == len(kept) == packed.made_from["entries"]
    assert packed.table.codes.dtype == np.uint16
    for place, entry in enumerate(kept):
        clip = int(packed.table.clips[place])
        assert packed.name_of(clip) == tokens.names[entry]
        assert packed[place].tolist() == tokens[entry].tolist()
        numbers = range(*packed.table.first_caption[clip : clip + 2].tolist())
        assert packed.table.captions(numbers) == [c.text for c in dataset.captions(tokens.names[entry])]
    assert {packed.name_of(int(packed.table.clips[i])) for i in packed.split("train")} == set(dataset.names("train"))
    assert packed.verify() == []
    with pytest.raises(ValueError, match=r"has no split 'test'; it has \['train', 'val'\]"):
        packed.split("test")
    packed.check_tokenizer("synthetic")
    with pytest.raises(ValueError, match="made by another tokenizer"):
        packed.check_tokenizer("0" * 64)


def test_one_file_a_clip_as_the_official_code_writes_them(dataset):
    tokens = TokenSet(dataset.root / "tokens")
    folder = dataset.root / "VQVAE_codebook_65536_FSQ_all"
    folder.mkdir()
    for entry, name in enumerate(tokens.names):
        np.save(folder / f"{name}.npy", tokens[entry][None].astype(np.int32))
    shutil.rmtree(dataset.root / "tokens")
    with pytest.raises(ValueError, match="does not record its tokenizer; give the model with --model"):
        pack_tokens(dataset, dataset.root / "packed")
    tokenizer = Tokenizer("abc", 240, 2)
    pack_tokens(dataset, dataset.root / "packed", tokenizer=tokenizer, splits=["train"])
    packed = PackedTokens(dataset.root / "packed")
    packed.check_tokenizer("abc")
    names = [packed.name_of(i) for i in range(len(packed))]
    assert names == dataset.names("train")
    assert packed[2].tolist() == tokens[tokens.names.index(names[2])].tolist()
    np.save(folder / f"{names[2]}.npy", np.array([[240]]))
    with pytest.raises(ValueError, match=r"codes 240\.\.240, the model has 240"):
        pack_tokens(dataset, dataset.root / "other", tokenizer=tokenizer)
    np.save(folder / f"{names[2]}.npy", np.zeros((3, 4)))
    with pytest.raises(ValueError, match="expected integer codes"):
        pack_tokens(dataset, dataset.root / "other", tokenizer=tokenizer)
    assert not (dataset.root / "other").exists()


def test_large_codebooks_take_four_bytes(dataset):
    about = {**TokenSet(dataset.root / "tokens").made_from, "codebook_size": 70_000}
    write_token_set(dataset.root / "tokens", ((n, np.array([3, 69_999])) for n in dataset.names()), about)
    pack_tokens(dataset, dataset.root / "packed")
    packed, tokens = PackedTokens(dataset.root / "packed"), TokenSet(dataset.root / "tokens")
    assert packed.table.codes.dtype == np.uint32
    assert packed[5].tolist() == tokens[5].tolist()


def test_clips_that_lack_something_are_named_or_left_out(dataset):
    names = dataset.names("train")
    (dataset.texts / f"{names[3]}.txt").unlink()
    dataset.write_split("train", [*names, "new"])
    with pytest.raises(ValueError, match=rf"1 clips have no codes, e.g. 'new'; 1 clips have no caption.*{names[3]}"):
        pack_tokens(dataset, dataset.root / "packed")
    assert not (dataset.root / "packed").exists()
    counts = pack_tokens(dataset, dataset.root / "packed", skip_incomplete=True)
    assert (counts.without_codes, counts.without_captions) == (["new"], [names[3]])
    packed = PackedTokens(dataset.root / "packed")
    assert packed.made_from["splits"]["train"]["entries"] == len(names) - 1
    assert names[3] not in {packed.name_of(i) for i in range(packed.made_from["clips"])}


def test_damage_is_found(dataset):
    folder = dataset.root / "packed"
    pack_tokens(dataset, folder)
    codes = np.load(folder / "codes.npy")
    np.save(folder / "codes.npy", codes[::-1])
    assert PackedTokens(folder).verify() == ["codes.npy does not match its hash"]
    np.save(folder / "codes.npy", codes[:-1])
    with pytest.raises(ValueError, match=r"codes.npy has \d+ bytes, expected \d+; make it with"):
        PackedTokens(folder)
    np.save(folder / "codes.npy", codes)
    about = json.loads((folder / "made_from.json").read_text())
    (folder / "made_from.json").write_text(json.dumps({**about, "format": "other"}))
    with pytest.raises(ValueError, match="has the format 'other', expected 'hftrainer-packed-tokens-v1'"):
        PackedTokens(folder)
    with pytest.raises(ValueError, match="is not a packed dataset"):
        PackedTokens(dataset.root)


def test_a_folder_that_holds_something_else_is_not_replaced(dataset):
    with pytest.raises(ValueError, match="exists and is not a packed dataset"):
        pack_tokens(dataset, dataset.root)
    pack_tokens(dataset, dataset.root / "packed")
    pack_tokens(dataset, dataset.root / "packed", splits=["val"])
    assert list(PackedTokens(dataset.root / "packed").made_from["splits"]) == ["val"]


def test_draws_are_even_and_depend_on_seed_and_counter():
    seeds = np.arange(20_000, dtype=np.uint64)
    first, second = uniform(seeds, 0), uniform(seeds, 1)
    for numbers in (first, second):
        assert 0 <= numbers.min() <= numbers.max() < 1
        counts = np.bincount((numbers * 10).astype(int), minlength=10)
        assert abs(counts - 2000).max() < 200
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03
    assert uniform(seeds[5:6], np.array([1]))[0] == second[5]
    assert set(below(seeds, 3, 4).tolist()) == {0, 1, 2, 3}
    # SplitMix64's published first output for seed 0
    assert uniform(np.zeros(1, np.uint64), 0)[0] == (0xE220A8397B1DCDAF >> 11) * 2.0**-53
