"""Tokens and statistics are one unit each: a failure in the middle leaves what was there."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare import statistics
from hftrainer.data.prepare.statistics import write_statistics
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.data.tokens.folder import TokenSet, write_token_set


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_a_failure_among_tokens_keeps_the_old_set(tmp_path):
    about = {"tokenizer_sha256": "one", "codebook_size": 100, "frames_per_code": 2}
    write_token_set(tmp_path / "tokens", iter([("a", np.array([1, 2]))]), about)
    before = content(tmp_path / "tokens")

    def broken():
        yield "a", np.array([3, 4, 5])
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_token_set(tmp_path / "tokens", broken(), {**about, "tokenizer_sha256": "two"})
    assert content(tmp_path / "tokens") == before
    assert TokenSet(tmp_path / "tokens").made_from["tokenizer_sha256"] == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["tokens"]
    write_token_set(tmp_path / "tokens", iter([("b", np.array([7]))]), {**about, "tokenizer_sha256": "two"})
    assert TokenSet(tmp_path / "tokens").names == ["b"]


def test_a_failure_among_statistics_keeps_the_old_ones_and_other_files_stay(tmp_path, monkeypatch):
    dataset = DatasetFolder(tmp_path, create=True)
    for name in ("a", "b"):
        dataset.write_motion(name, make_motion("walk", 40, ord(name)))
    dataset.write_split("train", ["a"])
    dataset.write_split("all", ["a", "b"])
    write_statistics(dataset, "train", grouped=True, with_mirrored=False)
    (tmp_path / "mean_std" / "vector_263").mkdir()
    (tmp_path / "mean_std" / "vector_263" / "mean.npy").write_bytes(b"theirs")
    before = content(tmp_path / "mean_std")

    def fail(*_):
        raise OSError("full")

    with monkeypatch.context() as patched:
        patched.setattr(statistics, "write_json", fail)
        with pytest.raises(OSError, match="full"):
            write_statistics(dataset, "all", grouped=True, with_mirrored=False)
    assert content(tmp_path / "mean_std") == before
    write_statistics(dataset, "all", grouped=True, with_mirrored=False)
    assert content(tmp_path / "mean_std") != before
    assert (tmp_path / "mean_std" / "vector_263" / "mean.npy").read_bytes() == b"theirs"
