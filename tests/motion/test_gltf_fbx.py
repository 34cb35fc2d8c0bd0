"""Animations in glTF and FBX: the same marching body as in BVH, with scales, skins, other takes and broken files."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hftrainer.motion.io.bvh import read_bvh
from hftrainer.motion.io.gltf import read_gltf
from hftrainer.motion.io.source import MotionFileError
from hftrainer.motion.retarget import RetargetOptions, retarget
from hftrainer.motion.rotation import angle_between
from hftrainer.motion.skeleton_map import load_map
from tests.motion.layouts import LAYOUTS, Layout, write_pose

LAYOUT = Layout(**{**vars(LAYOUTS[0]), "unit": 1.0})
FRAMES = 12


@pytest.fixture
def body(tmp_path):
    """The body as a BVH, in metres: names, parents, local rotations and translations (T, J), offsets."""
    write_pose(LAYOUT, tmp_path / "march.bvh", frames=FRAMES)
    bvh = read_bvh(tmp_path / "march.bvh")
    bvh.values[:, 3] += np.arange(FRAMES)  # something that moves
    return bvh


def wanted(bvh):
    return retarget(bvh, load_map("mixamo"), RetargetOptions(metres_per_unit=1.0, skip_first=0))


def same(clip, want, millimetres=0.01):
    assert 1000 * np.abs(clip.joints - want.joints).max() < millimetres
    assert np.degrees(angle_between(clip.rotations, want.rotations)).max() < 0.01


class Gltf:
    """Writes a glTF: an armature of scale 0.01 over the body in centimetres, as Mixamo's converters have it."""

    def __init__(self, bvh, interpolation="LINEAR", skin=True):
        self.views, self.accessors, self.data = [], [], b""
        rotations, translations = bvh.local_transforms()
        children = {j: [c + 1 for c, p in enumerate(bvh.parents) if p == j] for j in range(-1, len(bvh.names))}
        self.nodes = [{"name": "Armature", "scale": [0.01] * 3, "children": children[-1]}]
        for joint, name in enumerate(bvh.names):
            # the nodes' own pose is not the bind pose
            node = {"name": name, "translation": list(100 * bvh.offsets[joint]), "rotation": [0, 0, 0, 1]}
            if skin:
                node["rotation"] = list(Rotation.from_euler("y", 30, degrees=True).as_quat())
            self.nodes.append(node | ({"children": children[joint]} if children[joint] else {}))
        times = self.add(np.arange(FRAMES, dtype="<f4") / 30, "SCALAR")
        samplers, channels = [], []
        for joint in range(len(bvh.names)):
            tracks = [("rotation", Rotation.from_matrix(rotations[:, joint]).as_quat(), "VEC4")]
            if joint == 0:
                tracks.append(("translation", 100 * translations[:, joint], "VEC3"))
            for path, values, kind in tracks:
                if interpolation == "CUBICSPLINE":
                    values = np.stack([0 * values, values, 0 * values], axis=1).reshape(-1, values.shape[1])
                output = self.add(values.astype("<f4"), kind)
                samplers.append({"input": times, "output": output, "interpolation": interpolation})
                channels.append({"sampler": len(samplers) - 1, "target": {"node": joint + 1, "path": path}})
        short = {"samplers": [{**samplers[0], "input": times}], "channels": [channels[0]], "name": "walk"}
        self.json = {
            "asset": {"version": "2.0"}, "nodes": self.nodes, "scenes": [{"nodes": [0]}], "scene": 0,
            "animations": [short, {"name": "march", "samplers": samplers, "channels": channels}][1:],
        }  # fmt: skip
        if skin:
            _, places = bvh.rest_transforms()
            bind = np.broadcast_to(np.eye(4), (len(bvh.names), 4, 4)).copy()
            bind[:, :3, 3] = -100 * places
            inverse = self.add(bind.swapaxes(1, 2).reshape(-1, 16).astype("<f4"), "MAT4")
            self.json["skins"] = [{"joints": list(range(1, len(bvh.names) + 1)), "inverseBindMatrices": inverse}]

    def add(self, array, kind):
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes})
        self.data += array.tobytes()
        self.accessors.append(
            {"bufferView": len(self.views) - 1, "componentType": 5126, "count": len(array), "type": kind}
        )
        return len(self.accessors) - 1

    def document(self, **buffer):
        return {**self.json, "bufferViews": self.views, "accessors": self.accessors,
                "buffers": [{"byteLength": len(self.data), **buffer}]}  # fmt: skip

    def glb(self, path):
        text = json.dumps(self.document()).encode()
        text += b" " * (-len(text) % 4)
        chunks = (
            struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(self.data), b"BIN\0") + self.data
        )
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return path


@pytest.mark.parametrize("how", ["LINEAR", "STEP", "CUBICSPLINE"])
@pytest.mark.parametrize("skin", [True, False])
def test_a_glb_gives_the_same_clip_as_the_bvh(tmp_path, body, how, skin):
    clip = retarget(
        read_gltf(Gltf(body, how, skin).glb(tmp_path / "a.glb")), load_map("mixamo"), RetargetOptions(skip_first=0)
    )
    same(clip, wanted(body))


def test_a_gltf_with_its_buffer_inside_or_beside(tmp_path, body):
    file = Gltf(body)
    inside = "data:application/octet-stream;base64," + base64.b64encode(file.data).decode()
    (tmp_path / "in.gltf").write_text(json.dumps(file.document(uri=inside)))
    (tmp_path / "out.gltf").write_text(json.dumps(file.document(uri="a%20b.bin")))
    (tmp_path / "a b.bin").write_bytes(file.data)
    for name in ("in.gltf", "out.gltf"):
        same(retarget(read_gltf(tmp_path / name), load_map("mixamo"), RetargetOptions(skip_first=0)), wanted(body))


def change(document, path, value):
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("animations",), [], "holds no animation"),
        (("nodes", 3, "children"), [1], "not a tree"),
        (("accessors", 0, "count"), 10**9, "reaches past its buffer"),
        (("accessors", 0, "count"), -1, "reaches past its buffer"),
        (("accessors", 1, "count"), 2, "is broken"),
        (("accessors", 0, "bufferView"), 99, "not a readable glTF file"),
        (("buffers", 0, "uri"), "../../outside.bin", "a buffer"),
        (("buffers", 0, "uri"), "/etc/passwd", "a buffer"),
        (("nodes",), {}, "expected a list, got an object"),
    ],
)
def test_broken_gltf_files_are_refused(tmp_path, body, path, value, message):
    document = Gltf(body).document()
    document["buffers"][0]["uri"] = "a.bin"
    (tmp_path / "a.bin").write_bytes(Gltf(body).data)
    change(document, path, value)
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    with pytest.raises(MotionFileError, match=message):
        read_gltf(tmp_path / "a.gltf")


def test_a_cut_glb_is_refused(tmp_path, body):
    path = Gltf(body).glb(tmp_path / "a.glb")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MotionFileError, match="cut short"):
        read_gltf(path)


# --- FBX --------------------------------------------------------------------------------------------------------------

SECOND = 46_186_158_000  # FBX's units of time


def fbx(bvh) -> str:
    """An ASCII FBX 7.4 of the body in centimetres, angles in FBX's order (x first), one curve a channel."""
    rotations, translations = bvh.local_transforms()
    times = [int(f * SECOND / 30) for f in range(FRAMES)]
    objects, connections = [], []
    objects.append('AnimationStack: 9000, "AnimStack::Take 001", "" {\n Properties70: {\n'
                   f'  P: "LocalStop", "KTime", "Time", "",{times[-1]}\n }}\n}}\n'
                   'AnimationLayer: 9001, "AnimLayer::Base", "" {\n}')  # fmt: skip
    connections.append('C: "OO",9001,9000')
    for joint, (name, parent) in enumerate(zip(bvh.names, bvh.parents, strict=True)):
        x, y, z = 100 * bvh.offsets[joint]
        objects.append(f'Model: {100 + joint}, "Model::{name}", "LimbNode" {{\n Version: 232\n Properties70: {{\n'
                       f'  P: "Lcl Translation", "Lcl Translation", "", "A",{x},{y},{z}\n }}\n}}')  # fmt: skip
        connections.append(f'C: "OO",{100 + joint},{100 + parent if parent >= 0 else 0}')
        angles = Rotation.from_matrix(rotations[:, joint]).as_euler("xyz", degrees=True)
        tracks = [("R", "Lcl Rotation", np.degrees(np.unwrap(np.radians(angles), axis=0)))]
        if parent < 0:
            tracks.append(("T", "Lcl Translation", 100 * translations[:, joint]))
        for kind, what, values in tracks:
            node = 20_000 + 10 * joint + (kind == "T") * 5
            objects.append(f'AnimationCurveNode: {node}, "AnimCurveNode::{kind}", "" {{\n}}')
            connections += [f'C: "OO",{node},9001', f'C: "OP",{node},{100 + joint}, "{what}"']
            for axis, letter in enumerate("XYZ"):
                curve = node + 1 + axis
                listed = ",".join(f"{v:.9g}" for v in values[:, axis])
                objects.append(
                    f'AnimationCurve: {curve}, "AnimCurve::", "" {{\n Default: 0\n KeyVer: 4008\n'
                    f" KeyTime: *{FRAMES} {{\n  a: {','.join(map(str, times))}\n }}\n"
                    f" KeyValueFloat: *{FRAMES} {{\n  a: {listed}\n }}\n KeyAttrFlags: *1 {{\n  a: 4\n }}\n"
                    f" KeyAttrDataFloat: *4 {{\n  a: 0,0,0,0\n }}\n KeyAttrRefCount: *1 {{\n  a: {FRAMES}\n }}\n}}"
                )
                connections.append(f'C: "OP",{curve},{node}, "d|{letter}"')
    return (
        "; FBX 7.4.0 project file\nFBXHeaderExtension:  {\n FBXHeaderVersion: 1003\n FBXVersion: 7400\n}\n"
        'GlobalSettings:  {\n Version: 1000\n Properties70:  {\n  P: "UpAxis", "int", "Integer", "",1\n'
        '  P: "UpAxisSign", "int", "Integer", "",1\n  P: "FrontAxis", "int", "Integer", "",2\n'
        '  P: "FrontAxisSign", "int", "Integer", "",1\n  P: "CoordAxis", "int", "Integer", "",0\n'
        '  P: "CoordAxisSign", "int", "Integer", "",1\n  P: "UnitScaleFactor", "double", "Number", "",1\n'
        '  P: "TimeMode", "enum", "", "",6\n }\n}\n'
        f"Objects:  {{\n{chr(10).join(objects)}\n}}\nConnections:  {{\n{chr(10).join(connections)}\n}}\n"
    )


def test_an_fbx_gives_the_same_clip_as_the_bvh(tmp_path, body):
    pytest.importorskip("ufbx", reason="pip install 'hftrainer[fbx]'")
    from hftrainer.motion.io.fbx import read_fbx

    (tmp_path / "a.fbx").write_text(fbx(body))
    motion = read_fbx(tmp_path / "a.fbx")
    assert motion.fps == 30.0
    assert motion.metres_per_unit == pytest.approx(0.01)
    same(retarget(motion, load_map("mixamo"), RetargetOptions(skip_first=0)), wanted(body), millimetres=0.1)


def test_what_is_no_fbx_is_refused(tmp_path):
    pytest.importorskip("ufbx", reason="pip install 'hftrainer[fbx]'")
    from hftrainer.motion.io.fbx import read_fbx

    (tmp_path / "a.fbx").write_text("hello")
    with pytest.raises(MotionFileError, match="not a readable FBX file"):
        read_fbx(tmp_path / "a.fbx")


def test_a_missing_ufbx_names_its_command(tmp_path, monkeypatch):
    import sys

    from hftrainer.extras import MissingExtra
    from hftrainer.motion.io.fbx import read_fbx

    monkeypatch.setitem(sys.modules, "ufbx", None)
    with pytest.raises(MissingExtra, match=r"hftrainer\[fbx\]"):
        read_fbx(tmp_path / "a.fbx")
