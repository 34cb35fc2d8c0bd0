"""The picture of a run: which points are in it, and that something is drawn where they are."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.training.curves import Axis, choose_panels, draw_curves, read_curves, running_mean


def write(run, version, rows):
    folder = run / "logs" / f"version_{version}"
    folder.mkdir(parents=True)
    lines = ["step,train/loss,val/fid", *(",".join(map(str, row)) for row in rows)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def run(tmp_path):
    write(tmp_path, 2, [(step, 5.0 / (step + 1), "") for step in range(10)] + [(9, "", 30.0)])
    write(tmp_path, 10, [(8, 0.7, ""), (12, "nan", 20.0)])  # resumed: step 8 again
    return tmp_path


def test_a_resumed_run_is_one_curve(run):
    curves = read_curves(run)
    assert curves["val/FID"] == [(9, 30.0), (12, 20.0)]
    assert dict(curves["train/loss"])[8] == 0.7
    assert dict(curves["train/loss"])[7] == 5.0 / 8
    with pytest.raises(ValueError, match="give the output_dir of a run"):
        read_curves(run / "logs")


def test_runs_of_earlier_versions_are_read_in_todays_names(tmp_path):
    folder = tmp_path / "logs" / "version_0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("step,val/r1,val/real_slide,val/Jitter\n4,0.5,0.002,3.5\n")
    assert read_curves(tmp_path) == {
        "val/Jitter": [(4, 3.5)], "val/R@1": [(4, 0.5)], "val/real/Slide": [(4, pytest.approx(2.0))],
    }  # fmt: skip


def test_what_belongs_together_is_one_panel():
    names = ["train/loss", "val/loss", "val/real/Slide", "val/Slide", "lr"]
    assert choose_panels(names) == [["train/loss", "val/loss"], ["val/Slide", "val/real/Slide"], ["lr"]]


def test_a_picture_of_both(run):
    from PIL import Image

    picture = np.asarray(Image.open(draw_curves(run, run / "curves.png")))
    assert picture.shape == (304, 800, 3)
    colored = picture.max(axis=2).astype(int) - picture.min(axis=2) > 60
    assert colored[80:270, 60:380].sum() > 200  # a line in the first panel
    assert colored[80:270, 460:780].sum() > 100  # and in the second
    with pytest.raises(ValueError, match=r"did not log \['val/fiD'\]"):
        draw_curves(run, run / "curves.png", names=["val/fiD"])


def test_axes_and_means():
    assert Axis(0, 1).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Axis(0, 5000).ticks() == [0, 1000, 2000, 3000, 4000, 5000]
    axis = Axis.around([float("nan"), 3.0, 3.0])
    assert axis.low < 3 < axis.high
    assert running_mean([(0, 1.0), (1, 3.0), (2, float("nan")), (3, 5.0)], share=0.5) == [
        (0, 1.0), (1, 2.0), (2, 3.0), (3, 5.0),
    ]  # fmt: skip
