"""Small files of every kind that is read, as bytes."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
from typing import Any

import numpy as np
import torch

MOTION = np.zeros((4, 272), np.float32)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def as_torch(content: Any, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def state() -> dict[str, Any]:
    """What a checkpoint holds, with odd types."""
    weights = torch.nn.Linear(2, 3).state_dict() | {"half": torch.zeros(2).half(), "n": torch.arange(3)}
    return {"net": weights, "args": {"lr": 0.1, "betas": (0.9, 0.99)}, "mean": np.arange(3.0)}


def deepspeed_model(stage: int) -> dict[str, Any]:
    groups = [{"a": torch.Size([2, 3]), "b": torch.Size([2])}]
    return {
        "module": {"a": torch.zeros(2, 3), "b": torch.zeros(2), "seen": torch.zeros(1), "still": torch.zeros(2)},
        "param_shapes": groups, "buffer_names": ["seen"], "shared_params": {"c": "a"},
        "frozen_param_shapes": {"still": torch.Size([2])}, "frozen_param_fragments": {"still": torch.zeros(2)},
        "ds_version": "0.17", "zero_stage": stage,
    }  # fmt: skip


def deepspeed_optimizer(stage: int) -> dict[str, Any]:
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    return {"optimizer_state_dict": {"zero_stage": stage, "partition_count": [1], key: [torch.zeros(8)]}}


def as_safetensors() -> bytes:
    header = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "__metadata__": {"format": "pt"},
              "b": {"dtype": "I64", "shape": [1], "data_offsets": [16, 24]}}  # fmt: skip
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(24)


def as_npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array))
    return stream.getvalue()


def as_npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def as_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        members = (("motion_data/a.npy", as_npy(MOTION)), ("texts/a.txt", b"walks\n"), ("split/train.txt", b"a\n"),
                   ("mean_std/Mean.npy", as_npy(np.zeros(272))), ("codes/a.npy", as_npy(np.arange(4))))  # fmt: skip
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def as_glb(document: dict[str, Any], blob: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I", len(text)) + b"JSON" + text + struct.pack("<I", len(blob)) + b"BIN\0" + blob
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def animation() -> tuple[dict[str, Any], bytes]:
    """A glTF document of two joints that turn, and its buffer: two times, two quaternions, two translations."""
    times, turns = np.array([0, 1 / 30], "<f4"), np.tile(np.array([0, 0, 0, 1], "<f4"), (2, 1))
    places = np.array([[0, 1, 0], [0, 1, 0.1]], "<f4")
    blob = times.tobytes() + turns.tobytes() + places.tobytes()
    views = [{"buffer": 0, "byteOffset": at, "byteLength": size} for at, size in ((0, 8), (8, 32), (40, 24))]
    accessors = [
        {"bufferView": view, "componentType": 5126, "count": 2, "type": kind, **more}
        for view, kind, more in ((0, "SCALAR", {"min": [0], "max": [1 / 30]}), (1, "VEC4", {}), (2, "VEC3", {}))
    ]
    document = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "Hips", "children": [1], "translation": [0, 1, 0]},
                  {"name": "Leg", "rotation": [0, 0, 0, 1], "translation": [0, -1, 0], "scale": [1, 1, 1]}],
        "skins": [{"joints": [0, 1]}], "buffers": [{"byteLength": len(blob)}], "bufferViews": views,
        "accessors": accessors,
        "animations": [{"name": "walk",
            "samplers": [{"input": 0, "output": 1}, {"input": 0, "output": 2, "interpolation": "LINEAR"}],
            "channels": [{"sampler": 0, "target": {"node": 1, "path": "rotation"}},
                         {"sampler": 1, "target": {"node": 0, "path": "translation"}}]}],
    }  # fmt: skip
    return document, blob


def words() -> tuple[bytes, bytes, bytes]:
    """The three files of word vectors, as HumanML3D's evaluator has them."""
    names = ["sos", "eos", "unk", "walk"]
    return as_npy(np.zeros((4, 3))), pickle.dumps(names), pickle.dumps({name: i for i, name in enumerate(names)})


BVH = b"""HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Leg
  {
    OFFSET 0 -1 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 -1 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.0333
0 1 0 0 0 0 1 2 3
0 1 0 5 0 0 1 2 3
"""
ASF = b""":version 1.10
:name x
:units
  mass 1.0
  length 0.45
  angle deg
:root
  order TX TY TZ RX RY RZ
  axis XYZ
  position 0 0 0
  orientation 0 0 0
:bonedata
  begin
    id 1
    name leg
    direction 0 -1 0
    length 7
    axis 0 0 20 XYZ
    dof rx ry
    limits (-160 20)
           (-70 70)
  end
:hierarchy
  begin
    root leg
  end
"""
AMC = b"""#!OML:ASF x
:FULLY-SPECIFIED
:DEGREES
1
root 0 17 0 0 0 0
leg 1 2
2
root 0 17 1 0 5 0
leg 1 3
"""
TEMPLATES = b"""clip: 'set-(?P<content>.+)_(?P<style>[^_]+)_\\d+'
subjects: [a person, someone]
mirrored: {walk: walk, turn-left: turn-right}
croppable: [walk]
contents:
  walk: [walk forward, "go and *turn left"]
  turn-left: [turn left]
styles:
  normal: {plain: true}
  happy: {adverbs: [happily], adjectives: [happy], endings: [with joy], subjects: [a happy person]}
"""
