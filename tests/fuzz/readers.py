"""Every reader of files from elsewhere: seeds that it accepts, and how it is called. What is not accepted must be a
``ValueError`` or ``OSError``."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hftrainer.arrays import Wanted, read_npy, read_npz
from hftrainer.config import Experiment, load_experiment, read_yaml
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.captions import load_templates
from hftrainer.data.prepare.tar_import import import_tar
from hftrainer.data.text_motion.prompt_file import read_prompt_file
from hftrainer.manifest import verify_manifest
from hftrainer.models.checkpoint import open_checkpoint
from hftrainer.motion.io.asf import read_asf
from hftrainer.motion.io.bvh import read_bvh
from hftrainer.motion.io.gltf import read_gltf
from hftrainer.motion.io.smpl_npz import read_smpl_npz
from hftrainer.motion.skeleton_map import load_map
from hftrainer.plain_text import read_text
from hftrainer.readers import read_json, read_jsonl

REPOSITORY = Path(__file__).parents[2]
Read = Callable[[Path], Any]


def tensors(path: Path) -> None:
    """Open weights and load every tensor, as building a model would."""
    checkpoint = open_checkpoint(path)
    for name in checkpoint:
        if checkpoint.bytes_of(name) < 1 << 24:
            checkpoint[name]


def _torch(*, legacy: bool) -> bytes:
    stream = io.BytesIO()
    state = torch.nn.Linear(2, 3).state_dict() | {"half": torch.zeros(2).half(), "n": torch.arange(3)}
    content = {"net": state, "args": {"lr": 0.1, "betas": (0.9, 0.99)}, "mean": np.arange(3.0)}
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def _safetensors() -> bytes:
    header = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "__metadata__": {"format": "pt"},
              "b": {"dtype": "I64", "shape": [1], "data_offsets": [16, 24]}}  # fmt: skip
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(24)


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.zeros((3, 4), np.float32), t=np.array(["x", "yy"]))
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in (("motion_data/a.npy", _npy(np.zeros((4, 272), np.float32))), ("texts/a.txt", b"walks\n")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _tar_into(path: Path) -> None:
    import_tar([path], path.parent / "set")


def _manifest(path: Path) -> None:
    (path.parent / "manifest.json").write_bytes(path.read_bytes())
    verify_manifest(path.parent)


def _dataset(path: Path) -> None:
    folder = path.parent / "data"
    (folder / "split").mkdir(parents=True, exist_ok=True)
    (folder / "texts").mkdir(exist_ok=True)
    for place in ("labels.json", "split/x.txt", "texts/a.txt", "representation.json"):
        (folder / place).write_bytes(path.read_bytes())
        try:
            dataset = DatasetFolder(folder)
            dataset.labels(), dataset.names("x"), dataset.captions("a")
        finally:
            (folder / place).unlink()
            (folder / "split/x.txt").touch()


def _config(path: Path) -> Experiment:
    return load_experiment(path)


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
GLTF = b'{"asset": {"version": "2.0"}, "nodes": [{"name": "a", "children": [1]}, {}], "scenes": [{"nodes": [0]}]}'
YAML = (REPOSITORY / "configs/gotozero/debug_ar.yaml").read_bytes()
READERS: dict[str, tuple[str, Read, list[bytes]]] = {
    "json": ("x.json", lambda p: read_json(p, (dict, list)), [b'{"a": [1, 2.5, null, "x", {"b": true}]}', b"[[[]]]"]),
    "jsonl": ("x.jsonl", lambda p: list(read_jsonl(p)), [b'{"a": 1}\n{"b": [2]}\n']),
    "yaml": ("x.yaml", read_yaml, [YAML, b"a: &x [1, *x]\nb: ${a}\n", b"a: ${oc.env:HOME}\n"]),
    "experiment": ("x.yaml", _config, [YAML]),
    "skeleton-map": ("x.yaml", load_map, [next(REPOSITORY.glob("hftrainer/motion/skeletons/*.yaml")).read_bytes()]),
    "templates": ("x.yaml", load_templates,
                  [next(REPOSITORY.glob("hftrainer/data/prepare/caption_templates/*.yaml")).read_bytes()]),
    "npy": ("x.npy", lambda p: read_npy(p, kind="any"), [_npy(np.zeros((3, 272), np.float32)), _npy(np.arange(5))]),
    "npz": ("x.npz", lambda p: read_npz(p, {"a": Wanted(), "t": Wanted("text")}), [_npz()]),
    "torch-zip": ("x.pt", tensors, [_torch(legacy=False)]),
    "torch-legacy": ("x.pt", tensors, [_torch(legacy=True)]),
    "safetensors": ("x.safetensors", tensors, [_safetensors()]),
    "index": ("x.safetensors.index.json", tensors, [b'{"metadata": {}, "weight_map": {"a": "m.safetensors"}}']),
    "bvh": ("x.bvh", read_bvh, [BVH]),
    "gltf": ("x.gltf", read_gltf, [GLTF]),
    "asf": ("x.asf", read_asf, [b":version 1.10\n:name x\n:units\n mass 1.0\n length 0.45\n angle deg\n"]),
    "smpl-npz": ("x.npz", read_smpl_npz, [_npz()]),
    "text": ("x.txt", read_text, ["Ü text\r\n".encode(), "x".encode("utf-16")]),
    "prompts": ("x.txt", read_prompt_file, [b"a person walks\nwaves\n"]),
    "tar": ("x.tar", _tar_into, [_tar()]),
    "manifest": ("x.json", _manifest, [b'{"files": [{"path": "x.json", "bytes": 1, "sha256": "0"}]}']),
    "dataset": ("x.txt", _dataset, [b'{"a": {"content": "walk"}}', b"a\nb/c\n", b"a walk#a/DET walk/NOUN#0.0#1.5\n"]),
}  # fmt: skip
