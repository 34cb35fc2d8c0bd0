"""``hftrainer bench stream``: what it says of seams, waits and memory is what a known motion has."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hftrainer.bench.seams import at_seams, elsewhere, fastest_joint, real_limits
from hftrainer.bench.stream import growth, read_clips
from hftrainer.cli import main
from hftrainer.motion.representation.base import get_representation

FORM = get_representation("joints")


def moving(speeds):
    """Frames of 22 joints, of which the first moves by these m/s."""
    joints = np.zeros((len(speeds) + 1, 22, 3))
    joints[1:, 0, 2] = np.cumsum(speeds) / FORM.fps
    return joints.reshape(len(joints), -1)


def test_a_jump_is_seen_at_its_seam_and_nowhere_else():
    speeds = np.ones(99)
    speeds[49] = 7.0  # into frame 50
    motion = moving(speeds)
    np.testing.assert_allclose(fastest_joint(motion, FORM)[0], speeds, atol=1e-9)
    first, second = at_seams(motion, [50, 80], FORM)
    assert (first["frame"], second["frame"]) == (50, 80)
    assert first["speed"] == pytest.approx(7.0)
    assert first["acceleration"] == pytest.approx(6.0 * FORM.fps)
    assert second["speed"] == pytest.approx(1.0)
    assert elsewhere(motion, [50], FORM)["speed"] == pytest.approx(1.0)


def test_limits_are_percentiles_over_frames():
    limits = real_limits([moving(np.arange(100.0)), moving(np.zeros(1)), moving(np.full(100, 50.0))], FORM, 75.0)
    assert (limits["clips"], limits["frames"]) == (2, 202)  # a clip of two frames has no acceleration
    assert limits["speed"] == pytest.approx(50.0)
    with pytest.raises(ValueError, match="no real motion"):
        real_limits([], FORM)


def test_memory_is_that_of_the_second_half():
    frames = np.arange(100.0)
    memories = np.where(frames < 50, 1000 * frames, 49_000 + 2 * (frames - 49))
    assert growth(frames, memories) == pytest.approx(2.0)


def test_all_parts_are_measured_and_bars_count(tmp_path, tiny_model, capsys):
    real = tmp_path / "real"
    (real / "motion_data").mkdir(parents=True)
    still = np.zeros((40, 272), np.float32)
    still[:, [2, 6]] = 1.0  # no turn
    np.save(real / "motion_data" / "still.npy", still)
    command = ["bench", "stream", "a person walks", "run", "--model", str(tiny_model), "--seconds", "1.5"]
    command += ["--timelines", "1", "--minutes", "0.1", "--tries", "2", "--real", str(real)]
    status = main([*command, "--json", str(tmp_path / "stream.json")])
    found = json.loads((tmp_path / "stream.json").read_text())
    radius = found["depends"]["radius"]
    assert max(found["depends"]["measured_radius"]) == radius  # no code beyond it changes a frame, the last one does
    assert [row["codes"] for row in found["first"]] == [radius + 1, 14, 11, 8]
    assert found["first"][0]["largest_mm"] < 0.01 < found["first"][-1]["largest_mm"]
    assert (found["seams"]["seams"], found["seams"]["real"]["clips"]) == (1, 1)
    assert found["follows"] is None  # this model has no action classifier
    live = found["live"]
    assert 180 <= live["frames"] < 200
    assert live["changes"] == 3
    assert live["codes_until_a_prompt_shows"] == 16
    # a random model jumps about, and nothing else moves: the bar of real motion is missed
    assert status == 1
    assert any("at a seam" in line for line in found["missed"])
    assert "missed: " in capsys.readouterr().out


def test_a_folder_without_motions_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give a dataset folder"):
        list(read_clips(tmp_path, 3))
