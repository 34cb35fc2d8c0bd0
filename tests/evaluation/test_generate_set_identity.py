"""Which model a generated set is of, where it was made from released files."""

from __future__ import annotations

import numpy as np

from hftrainer.apps.generate_set import Source


def test_statistics_and_text_encoders_of_released_files_count(tmp_path):
    for name in ("ar.pth", "fsq.pth", "mean.npy", "std.npy"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5" / "config.json").write_text("{}")
    released = {name: str(tmp_path / f"{name}.pth") for name in ("ar", "fsq")}
    released |= {name: str(tmp_path / f"{name}.npy") for name in ("mean", "std")}

    def identity(**changed):
        return Source(released={**released, **changed}).identify()[1]

    first = identity(text_model=str(tmp_path / "t5"))
    assert first == identity(text_model=str(tmp_path / "t5"))
    (tmp_path / "t5" / "config.json").write_text('{"d_model": 8}')
    second = identity(text_model=str(tmp_path / "t5"))
    np.save(tmp_path / "mean.npy", np.ones(272))
    third = identity(text_model=str(tmp_path / "t5"))
    released = {name: released[name] for name in ("ar", "fsq")}
    as_mean, as_std = identity(mean=str(tmp_path / "std.npy")), identity(std=str(tmp_path / "std.npy"))
    assert as_mean != as_std  # one file given for different things
    assert len({first, second, third, identity(), identity(text_model="google/flan-t5-xl")}) == 5
