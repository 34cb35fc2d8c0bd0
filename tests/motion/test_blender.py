"""Our files in Blender, by its own importers: runs where the module bpy is installed (`pip install bpy`)."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import hftrainer
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.body import smpl_body
from hftrainer.motion.fit import pose

pytest.importorskip("bpy", reason="pip install bpy")
pytestmark = pytest.mark.slow
MOTION = pose(make_motion("turn-left", 60, 3), smpl_body())
# What docs/tools/blender.md says, as a script; frame 31 of Blender is frame 30 of ours.
PROGRAM = """
import bpy, sys
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.context.scene.render.fps = 30
path = sys.argv[1]
if path.endswith(".glb"):
    bpy.ops.import_scene.gltf(filepath=path)
else:
    bpy.ops.import_anim.bvh(filepath=path, global_scale=0.01, axis_forward="-Z", axis_up="Y",
                            update_scene_fps=True, update_scene_duration=True)
body = next(thing for thing in bpy.data.objects if thing.type == "ARMATURE")
bpy.context.scene.frame_set(30 if path.endswith(".glb") else 31)
bpy.context.view_layer.update()
for name in ("pelvis", "left_wrist", "right_foot", "head"):
    print("PLACE", *(body.matrix_world @ body.pose.bones[name].head))
bpy.ops.export_scene.fbx(filepath=sys.argv[2], add_leaf_bones=False)
"""


@pytest.mark.parametrize("name", ["a.glb", "a.bvh"])
def test_blender_sees_the_same_joints_and_writes_fbx(tmp_path, name):
    hftrainer.export(MOTION, tmp_path / name)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / name), str(tmp_path / "a.fbx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    places = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("PLACE")]
    x, y, z = np.moveaxis(MOTION.joints[30, [0, 20, 11, 15]], -1, 0)
    np.testing.assert_allclose(np.array(places, dtype=float), np.stack([x, -z, y], axis=1), atol=1e-3)
    assert (tmp_path / "a.fbx").read_bytes()[:18] == b"Kaydara FBX Binary"
