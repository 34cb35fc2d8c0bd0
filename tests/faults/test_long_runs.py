"""What runs for hours takes no more memory in the end; caches are bounded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hftrainer import files
from hftrainer.models.motion.motionstreamer.embedding_cache import _OVERHEAD, EmbeddingCache
from hftrainer.training.contrastive import SentenceSimilarity
from tests.faults.long_runs import check

REPOSITORY = Path(__file__).parents[2]
ROW = 8 * 4 + _OVERHEAD


def embed(value: int) -> np.ndarray:
    return np.full(8, value, np.float32)


def ask(cache: EmbeddingCache, numbers: list[int], asked: list[int]) -> np.ndarray:
    def encode(places: list[int]) -> np.ndarray:
        asked.extend(numbers[place] for place in places)
        return np.stack([embed(numbers[place]) for place in places])

    return cache.rows([number.to_bytes(16, "little") for number in numbers], encode)


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_cache_of_embeddings_is_bounded_and_keeps_what_was_used_last(tmp_path, on_disk):
    path = tmp_path / "x.npz" if on_disk else None
    cache, asked = EmbeddingCache(path, "me", budget=10 * ROW), list[int]()
    for start in range(0, 100, 5):
        numbers = [0, *range(start + 1, start + 6)]  # 0 is asked for each time
        assert (ask(cache, numbers, asked) == np.stack([embed(n) for n in numbers])).all()
        assert len(cache) <= 10
    assert asked == [0, *range(1, 101)]
    again = EmbeddingCache(path, "me", budget=10 * ROW) if on_disk else cache
    asked.clear()
    ask(again, [0, 100, 99, 1], asked)
    assert asked == [1]
    wide = list(range(200, 230))  # more at once than it keeps
    assert (ask(again, wide, asked) == np.stack([embed(n) for n in wide])).all()
    assert len(again) == 10


def test_rows_that_are_kept_do_not_hold_their_batches():
    cache = EmbeddingCache()
    batch = np.zeros((1000, 8), np.float32)
    cache.rows([b"x" * 16], lambda places: batch[:1])
    assert all(row.base is None for row in cache._rows.values())


def test_vectors_of_captions_are_bounded():
    similar = SentenceSimilarity.__new__(SentenceSimilarity)
    similar.threshold, similar._vectors, similar.kept = 0.9, {}, 6
    seen: list[str] = []

    def tokenizer(texts: list[str], **_: object) -> dict[str, torch.Tensor]:
        seen.extend(texts)
        ids = torch.tensor([[int(text) + 1, 1] for text in texts])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    class Model:
        def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Model:
            angle = input_ids.sum(dim=1).float()[:, None]
            self.last_hidden_state = torch.stack([angle.cos(), angle.sin()], dim=-1)
            return self

    similar.tokenizer, similar.model = tokenizer, Model()
    for number in range(20):
        alike = similar(["0", str(number + 1), "0"])
        assert alike[0, 2]
        assert len(similar._vectors) <= 6
    assert seen.count("0") == 1
    assert seen.count("20") == 1


def test_folders_that_were_swept_are_forgotten_some_day(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MOST_SWEPT", 5)
    monkeypatch.setattr(files, "_swept", set())
    for number in range(20):
        files.write_text(tmp_path / str(number) / "x", "")
        assert len(files._swept) <= 5


def test_growth_is_found():
    rows = [{"item": n, "rss": 500_000_000, "handles": 7, "threads": 2, "objects": 300_000} for n in range(50)]
    assert check(rows, 10_000)["bytes_an_item"] == 0
    for key, gain in (("rss", 10_000), ("handles", 1), ("threads", 1), ("objects", 100)):
        grown = [{**row, key: row[key] + gain * row["item"]} for row in rows]
        with pytest.raises(AssertionError):
            check(grown, 10_000)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize(("job", "count"), [("generate", 10_000), ("evaluate", 1_000), ("train", 600)])
def test_long_runs_take_no_more_memory_in_the_end(job, count):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.faults.long_runs", job, "--count", str(count)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
