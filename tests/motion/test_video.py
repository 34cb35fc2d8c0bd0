"""Pictures: what is drawn, side by side, with the letters that a font has."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.body import smpl_body
from hftrainer.motion.fit import pose
from hftrainer.render.video import frames, render_video

pytest.importorskip("PIL", reason="pip install 'hftrainer[viz]'")
WALK = pose(make_motion("walk", 12, 0), smpl_body())
SIZE = (320, 180)


def drawn(*args, **options):
    return [np.asarray(picture.convert("RGBA")) for picture in frames(*args, size=SIZE, **options)]


def near(picture, color):
    return (np.abs(picture[..., :3].astype(int) - color).max(axis=-1) < 60).sum()


def test_what_ffmpeg_could_not_write_is_one_sentence(tmp_path):
    """It once was a video that ended too early, and success; or its command with all that it said, in twenty lines."""
    pytest.importorskip("imageio_ffmpeg")
    code = f"""if True:
        import resource, signal, sys
        from hftrainer.cli import main
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        sys.exit(main(["export", {str(tmp_path / "walk.npy")!r}, "--formats", "mp4", "--out", {str(tmp_path)!r}]))"""
    np.save(tmp_path / "walk.npy", make_motion("walk", 40, 0).astype(np.float32))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    failed = [line for line in done.stderr.splitlines() if not line.startswith("[")]  # which is ffmpeg itself
    assert len(failed) == 1
    assert failed[0].startswith("failed: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walk.npy"]


def test_left_is_orange_and_right_is_blue():
    pictures = drawn([WALK])
    assert len(pictures) == 12
    assert pictures[0].shape == (180, 320, 4)
    assert near(pictures[5], [229, 138, 79]) > 50
    assert near(pictures[5], [63, 127, 193]) > 50
    assert np.abs(pictures[0].astype(int) - pictures[11]).max() > 50  # it moves


def test_side_by_side_and_the_shorter_one_waits():
    short = pose(make_motion("walk", 6, 0), smpl_body())
    pictures = drawn([WALK, short], titles=["", ""])
    assert len(pictures) == 12
    right = [picture[:160, 160:] for picture in pictures]  # above the clock
    assert np.array_equal(right[7], right[11])
    assert not np.array_equal(pictures[7][:160, :160], pictures[11][:160, :160])


def test_transparent_pictures_have_no_sky():
    assert drawn([WALK], transparent=True)[0][0, 0, 3] == 0
    assert drawn([WALK])[0][0, 0, 3] == 255


def test_letters_without_a_font_are_left_out():
    plain, latin, unknown = (drawn([WALK], titles=[text])[0] for text in ("", "walk", "\U0001304c\ue123"))
    assert np.array_equal(plain, unknown)
    assert not np.array_equal(plain, latin)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_open_again(tmp_path, suffix):
    from PIL import Image

    render_video(tmp_path / f"a{suffix}", WALK, size=SIZE, transparent=True)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.n_frames == (12 if suffix == ".webp" else 6)
        assert image.size == SIZE


def test_what_cannot_be_drawn_is_said(tmp_path):
    with pytest.raises(ValueError, match="cannot be transparent"):
        render_video(tmp_path / "a.mp4", WALK, transparent=True)
    with pytest.raises(ValueError, match="1 to 6 motions"):
        render_video(tmp_path / "a.mp4", [WALK] * 7, titles=[""] * 7)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no fork here")
def test_ffmpeg_is_started_without_what_runs_at_a_fork(tmp_path):
    """OpenBLAS ends its threads there, and a product of matrices in another thread would wait for them for ever."""
    pytest.importorskip("imageio_ffmpeg", reason="pip install 'hftrainer[viz]'")
    forks = []
    os.register_at_fork(before=lambda: forks.append(1))
    render_video(tmp_path / "a.mp4", WALK, size=SIZE)
    assert (tmp_path / "a.mp4").stat().st_size > 1000
    assert not forks
