"""Made-up rows for training at scale: a small set always, two million where there is time."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from hftrainer.cli import main
from hftrainer.data.flat import PackedTokens
from hftrainer.data.order import PlanSampler
from hftrainer.data.synthetic.rows import write_synthetic_rows
from hftrainer.data.tokens.packed import PackedTextTokens, PackedTextTokensConfig


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows") / "packed"
    write_synthetic_rows(folder, 1000, codebook_size=500)
    return folder


def test_made_up_rows_are_a_packed_set(rows, tmp_path):
    packed = PackedTokens(rows)
    assert packed.verify() == []
    assert len(packed) == 1000
    assert (len(packed.split("train")), len(packed.split("val"))) == (990, 10)
    assert packed.name_of(7) == "synthetic/00000/0000007"
    assert 30 <= packed.lengths.min() <= packed.lengths.max() <= 150
    assert packed.table.codes.max() < 500
    assert all(packed.table.captions(range(2000)))
    write_synthetic_rows(tmp_path / "again", 1000, codebook_size=500)
    assert PackedTokens(tmp_path / "again").made_from == packed.made_from
    with pytest.raises(ValueError, match="needs at least 200 rows, got 3"):
        write_synthetic_rows(tmp_path / "few", 3)


def test_the_benchmark_of_data(rows, tmp_path, capsys):
    settings = ["--reads", "200", "--batches", "5", "--files", "20", "--workers", "0", "--rounds", "2"]
    assert main(["bench", "data", "--rows", "1000", *settings, "--json", str(tmp_path / "b.json")]) == 0
    printed = capsys.readouterr().out
    for line in ("built in", "on disk", "opened, planned", "| one file a clip |", "| packed, batches of 256 |",
                 "| data loader, 0 workers |"):  # fmt: skip
        assert line in printed
    report = json.loads((tmp_path / "b.json").read_text())
    assert report["bench"] == "data"
    assert report["rows"] == 990
    assert report["entries"] == 1000
    assert report["bytes"] > 100_000
    assert len(report["open_seconds"]) == len(report["results"][0]["seconds"]) == 2
    assert main(["bench", "data", "--root", str(rows), *settings]) == 0
    assert "built in" not in capsys.readouterr().out


def test_verify_reports_on_a_packed_set(rows, tmp_path, capsys):
    assert main(["data", "verify", str(rows)]) == 0
    assert "split train          990" in capsys.readouterr().out
    assert main(["data", "synthetic-rows", "--out", str(tmp_path / "p"), "--rows", "300"]) == 0
    codes = np.load(tmp_path / "p" / "codes.npy")
    codes[:9] += 1
    np.save(tmp_path / "p" / "codes.npy", codes)
    assert main(["data", "verify", str(tmp_path / "p")]) == 1
    assert "WRONG: codes.npy does not match its hash" in capsys.readouterr().out


@pytest.mark.slow
def test_two_million_rows_open_at_once_and_resume_in_the_middle(tmp_path):
    write_synthetic_rows(tmp_path / "packed", 2_000_000)
    begin = time.perf_counter()
    source = PackedTextTokens(PackedTextTokensConfig(root=str(tmp_path / "packed")))
    train = source.train()
    plan = source.plan(train, seed=1)
    first = train.__getitems__(plan.batch(0))
    opened = time.perf_counter() - begin
    assert len(first.captions) == 16
    assert opened < 6  # the bar is 2 s on a quiet machine; `hftrainer bench data` states it
    assert len(train) == 1_980_000
    middle = plan.batches_per_epoch // 2
    later = source.plan(train, seed=1)
    later.start_at(plan.position(middle))
    going_on = iter(PlanSampler(later))
    for number in range(middle, middle + 3):
        again, want = train.__getitems__(next(going_on)), train.__getitems__(plan.batch(number))
        assert again.captions == want.captions
        assert again.codes.equal(want.codes)
    spread = [np.ptp(train.lengths[[i for i, _ in plan.batch(n)]]) for n in range(200)]
    assert np.mean(spread) < 10  # of 30 to 150 codes
    seen = np.array([i for n in range(2000) for i, _ in plan.batch(n)])
    assert len(np.unique(seen)) == len(seen)
