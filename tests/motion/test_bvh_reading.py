"""Reading BVH files: channel orders, what other programs write, and what is wrong with a broken file."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.motion.io.bvh import BVHError, read_bvh
from hftrainer.motion.rotation import axis_angle_to_matrix, yaw

SMALL = """HIERARCHY
ROOT hip
{{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition {root}
  JOINT knee
  {{
    OFFSET 0 -4 0
    CHANNELS {knee}
    End Site
    {{
      OFFSET 0 -1 0
    }}
  }}
}}
MOTION
Frames: 2
Frame Time: 0.0333333
{frames}
"""


def small(
    tmp_path, root="Yrotation Xrotation Zrotation", knee="1 Xrotation", frames="1 2 3 10 20 30 40\n0 0 0 0 0 0 0"
):
    path = tmp_path / "small.bvh"
    path.write_text(SMALL.format(root=root, knee=knee, frames=frames))
    return path


def test_channel_order_and_single_channels(tmp_path):
    rotations, translations = read_bvh(small(tmp_path)).local_transforms()
    y, x, z = np.radians([10.0, 20.0, 30.0])
    want = yaw(np.array(y)) @ axis_angle_to_matrix(np.array([x, 0, 0])) @ axis_angle_to_matrix(np.array([0, 0, z]))
    np.testing.assert_allclose(rotations[0, 0], want, atol=1e-12)
    np.testing.assert_allclose(rotations[0, 1], axis_angle_to_matrix(np.array([np.radians(40.0), 0, 0])), atol=1e-12)
    assert translations[0].tolist() == [[1, 2, 3], [0, -4, 0]]  # position channels replace the offset


def test_position_channels_of_a_joint_replace_its_offset(tmp_path):
    path = small(tmp_path, knee="6 Xposition Yposition Zposition Zrotation Xrotation Yrotation",
                 frames="0 0 0 0 0 0 7 8 9 0 0 0\n" + "0 " * 12)  # fmt: skip
    assert read_bvh(path).local_transforms()[1][0, 1].tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: "nothing", "not a BVH file"),
        (lambda t: t.replace("HIERARCHY", "HIERARCH"), "not a BVH file"),
        (lambda t: t.replace("40\n", "nan\n"), "frame 0 holds a NaN"),
        (lambda t: t.replace("40\n", "forty\n"), "not a number"),
        (lambda t: t.replace("40\n", "\n"), "says 2 frames of 7 channels, but holds 13 values"),
        (lambda t: t.replace("Frames: 2", "Frames: 3"), "says 3 frames"),
        (lambda t: t.replace("1 Xrotation", "1 Xrotaton"), "lists channels"),
        (lambda t: t.replace("OFFSET 0 -4 0", "OFFSET 0 -4"), "HIERARCHY"),
        (lambda t: t.replace("}\nMOTION", "MOTION"), "open braces"),
    ],
)
def test_broken_files_say_what_is_wrong(tmp_path, change, message):
    path = small(tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(BVHError, match=message) as caught:
        read_bvh(path)
    assert "small.bvh" in str(caught.value)


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "b.bvh").write_bytes(b"\x80\x03HIERARCHY\x00\xff")
    with pytest.raises(BVHError, match="not text"):
        read_bvh(tmp_path / "b.bvh")


def same_motion(a, b):
    assert a.names == b.names
    np.testing.assert_allclose(a.values, b.values)
    np.testing.assert_allclose(a.offsets, b.offsets)
    assert a.channels == b.channels


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace("Xrotation", "xrotation").replace("Zposition", "ZPosition").replace("Yrot", "YROT"),
        lambda t: t.replace("HIERARCHY", "Hierarchy").replace("JOINT", "Joint").replace("MOTION", "motion"),
        lambda t: t.replace("ROOT hip\n{", "ROOT hip{").replace("JOINT knee\n  {", "JOINT knee {"),
        lambda t: t.replace("\n    }\n  }\n}", "}}}"),
        lambda t: t.replace("Frames: 2", "Frames:2").replace("Frame Time: ", "Frame Time:"),
        lambda t: t.replace("Frames: 2", "FRAMES :\t2").replace("Frame Time", "frame  time"),
        lambda t: "# by a program\n" + t.replace("MOTION", "// here it moves\nMOTION"),
        lambda t: "\n\n" + t.replace("\n", "\r\n"),
        lambda t: "\ufeff" + t,
        lambda t: t.replace("\n", "\r"),
        lambda t: t.replace("End Site", "End site"),
        lambda t: t.replace("End Site", "END SITE"),
        lambda t: t.rstrip() + "\n\n   \n",
        lambda t: t.replace("OFFSET 0 -4 0", "OFFSET 0 -4 0 # knee").replace("Frames: 2", "Frames: 2 // two"),
        lambda t: t.replace("End Site", "EndSite"),
        lambda t: t + "\x1a",
        lambda t: t + "\0\0\0",
    ],
)
def test_what_other_programs_write_is_read_alike(tmp_path, change):
    want = read_bvh(small(tmp_path))
    text = (tmp_path / "small.bvh").read_text()
    assert change(text) != text
    (tmp_path / "other.bvh").write_bytes(change(text).encode())
    same_motion(read_bvh(tmp_path / "other.bvh"), want)


def test_names_in_latin_1_are_read(tmp_path):
    text = small(tmp_path).read_text().replace("knee", "H\u00fcfte")
    (tmp_path / "latin.bvh").write_bytes(text.encode("latin-1"))
    assert read_bvh(tmp_path / "latin.bvh").names == ["hip", "H\u00fcfte"]


def test_surplus_rows_are_left_out_and_said(tmp_path):
    want = read_bvh(small(tmp_path))
    text = (tmp_path / "small.bvh").read_text() + "9 9 9 9 9 9 9\n"
    (tmp_path / "more.bvh").write_text(text)
    bvh = read_bvh(tmp_path / "more.bvh")
    same_motion(bvh, want)
    assert "1 more rows than its 2" in bvh.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("Frames: 2", "Frames: 999999999999"), "but holds 14 values"),
        (lambda t: t.replace("6 Xposition Yposition Zposition Yrotation Xrotation Zrotation", "0").replace(
            "1 Xrotation", "0"), "no joint has CHANNELS"),
        (lambda t: t.replace("OFFSET 0 -4 0", "OFFSET 0 -inf 0"), "OFFSET is not a finite"),
        (lambda t: t.replace("JOINT knee", "ROOT second"), "second ROOT"),
        (lambda t: t + "1 2 3\n", "holds 17 values"),
        (lambda t: t.replace("  JOINT knee\n  {\n", "  JOINT knee\n  {\n" * 600), "below one another"),
    ],
)  # fmt: skip
def test_claims_are_checked_before_memory_is_asked_for(tmp_path, change, message):
    text = small(tmp_path).read_text()
    (tmp_path / "small.bvh").write_text(change(text))
    with pytest.raises(BVHError, match=message):
        read_bvh(tmp_path / "small.bvh")


@pytest.mark.parametrize("time", ["0", "1e-320", "1e308", "nan"])
def test_a_frame_time_that_cannot_be_leaves_the_rate_open(tmp_path, time):
    text = small(tmp_path).read_text().replace("0.0333333", time)
    (tmp_path / "small.bvh").write_text(text)
    bvh = read_bvh(tmp_path / "small.bvh")
    assert bvh.fps == 0.0
    assert "is not usable" in bvh.notes[0]


def test_a_device_is_refused(tmp_path):
    (tmp_path / "zero.bvh").symlink_to("/dev/zero")
    with pytest.raises(BVHError, match="device"):
        read_bvh(tmp_path / "zero.bvh")
