"""Every reader of files from elsewhere: seeds that it accepts, and how it is called. What is not accepted must be a
``ValueError`` or ``OSError``; what is accepted is used as commands use it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.random import default_rng

from hftrainer.arrays import Wanted, read_npy, read_npz
from hftrainer.config import load_experiment
from hftrainer.config import read_yaml as read_config_yaml
from hftrainer.data.folder import parse_caption
from hftrainer.data.prepare.caption_table import load_table
from hftrainer.data.prepare.captions import load_templates, make_captions
from hftrainer.data.prepare.tar_import import import_tar
from hftrainer.data.prepare.trials import unseen_trials
from hftrainer.data.text_motion.evaluation import annotation_pairs
from hftrainer.data.text_motion.prompt_file import read_prompt_file
from hftrainer.data.tokens.folder import load_codes
from hftrainer.evaluation.predictions import read_prediction
from hftrainer.evaluation.protocols import load_protocol
from hftrainer.models.checkpoint import open_checkpoint
from hftrainer.motion.body import FORMAT, read_body
from hftrainer.motion.body_model import body_model_offsets
from hftrainer.motion.io.asf import read_asf
from hftrainer.motion.io.bvh import read_bvh
from hftrainer.motion.io.gltf import read_gltf
from hftrainer.motion.io.smpl_npz import read_smpl_npz
from hftrainer.motion.skeleton import JOINTS
from hftrainer.motion.skeleton_map import load_map
from hftrainer.plain_text import read_text
from hftrainer.readers import read_json, read_jsonl
from hftrainer.readers import read_yaml as read_plain_yaml
from hftrainer.zoo.schema import read_card
from tests.fuzz import seeds
from tests.fuzz.mutate import mutate, tree
from tests.fuzz.seeds import as_json, as_npy, as_npz

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Reader:
    """`read` is called with the path of a file `name` that holds the input. `make` gives inputs that are accepted;
    `head` bytes in front of them say which file of a folder they are. `objects`: structures that are changed as
    such, then written by `write`."""

    name: str
    read: Callable[[Path], Any]
    make: Callable[[], list[bytes]]
    head: int = 0
    objects: Sequence[Any] = ()
    write: Callable[[Any], bytes] = bytes
    _seeds: list[bytes] = field(default_factory=list)

    @property
    def seeds(self) -> list[bytes]:
        if not self._seeds:
            self._seeds = self.make()
        return self._seeds

    def input(self, rng: random.Random, found: Sequence[bytes] = ()) -> bytes:
        """An input; `found` are earlier finds, which are changed too."""
        if self.objects and rng.random() < 0.4:
            return self.write(tree(rng.choice(self.objects), rng))
        known = [*self.seeds, *found]
        return mutate(rng.choice(known), rng.choice(known), rng, self.head)


def tensors(path: Path) -> None:
    """Open weights and load every tensor, as building a model would."""
    checkpoint = open_checkpoint(path)
    for name in checkpoint:
        if checkpoint.bytes_of(name) < 1 << 24:
            checkpoint[name]


def _asf(path: Path) -> None:
    read_asf(path)


def _templates(path: Path) -> None:
    templates = load_templates(path)
    for content in list(templates.contents)[:3]:
        for style in list(templates.styles)[:3]:
            make_captions([{"content": content, "style": style}], templates, 2, default_rng(0))


def _table(path: Path) -> None:
    table = load_table(path)
    for clip in table.clips:
        table.captions(clip), table.label(clip)
    table.recorded_fps()


def _captions(path: Path) -> None:
    for line in read_text(path).splitlines():
        parse_caption(line)


def _table_seed() -> bytes:
    lines = [
        {"about": "x", "sources": ["y"], "licence": "z"}, {"label": "walk", "captions": ["walks"], "content": "walk"},
        {"clip": "a", "label": "walk", "split": "train", "recorded_fps": 60, "same_as": ["b"]},
        {"clip": "b", "captions": ["runs", {"text": "stops", "start": 0.5, "end": 2}], "style": "s"},
    ]  # fmt: skip
    return b"\n".join(map(as_json, lines)) + b"\n"


def _file(pattern: str) -> Callable[[], list[bytes]]:
    """The first file of a pattern, its lists and tables cut short: reading YAML takes most of an input's time."""

    def make() -> list[bytes]:
        value = yaml.safe_load(sorted(REPOSITORY.glob(pattern))[0].read_text())
        value = {**value, "name": "x"} if "name" in value else value  # a card is called as its file is
        return [yaml.safe_dump(_cut(value)).encode()]

    return make


def _cut(value: Any) -> Any:
    if isinstance(value, list):
        return [_cut(item) for item in value[:1]]
    if isinstance(value, dict):
        named = any(isinstance(key, str) and ("." in key or "/" in key) for key in value)
        return {key: _cut(item) for key, item in list(value.items())[: 1 if named else None]}
    return value[:64] if isinstance(value, str) else value


def _animations() -> list[bytes]:
    document, blob = seeds.animation()
    return [seeds.as_glb(document, blob), seeds.as_glb(document, blob)]


def _gltf() -> list[bytes]:
    import base64

    document, blob = seeds.animation()
    uri = "data:application/octet-stream;base64," + base64.b64encode(blob).decode()
    return [as_json({**document, "buffers": [{"byteLength": len(blob), "uri": uri}]})]


def _bodies() -> list[bytes]:
    regressor = np.eye(24, 30, dtype=np.float32)
    return [as_npz(v_template=default_rng(0).normal(size=(30, 3)).astype(np.float32), J_regressor=regressor)]


_BODY = {"format": FORMAT, "name": "x", "unit": "metre", "offsets": {j: [0, 0.1, 0] for j in JOINTS}}
_ANNOTATION = {"meta": {}, "data_list": {"a": {"motion_id": "a", "num_frames": 60, "caption": "walks"},
               "b": {"duration": 2.0, "fps": 30, "text": "runs"}}}  # fmt: skip
_NPZ = {"poses": np.zeros((3, 72), np.float32), "trans": np.zeros((3, 3)), "mocap_framerate": np.array(30.0)}
READERS: dict[str, Reader] = {
    "torch-zip": Reader("x.pt", tensors, lambda: [seeds.as_torch(seeds.state())], 0, [seeds.state()], seeds.as_torch),
    "torch-legacy": Reader("x.pt", tensors, lambda: [seeds.as_torch(seeds.state(), legacy=True)], 0, [seeds.state()],
                           lambda value: seeds.as_torch(value, legacy=True)),
    "safetensors": Reader("x.safetensors", tensors, lambda: [seeds.as_safetensors()]),
    "npy": Reader("x.npy", lambda p: read_npy(p, kind="any"), lambda: [as_npy(seeds.MOTION), as_npy(np.arange(5))]),
    "npz": Reader("x.npz", lambda p: read_npz(p, {"a": Wanted(), "t": Wanted("text")}),
                  lambda: [as_npz(a=np.zeros((3, 4), np.float32), t=np.array(["x", "yy"]))]),
    "json": Reader("x.json", lambda p: read_json(p, (dict, list)),
                   lambda: [b'{"a": [1, 2.5, null, "x", {"b": true}]}', b"[[[]]]"]),
    "jsonl": Reader("x.jsonl", lambda p: list(read_jsonl(p)), lambda: [b'{"a": 1}\n{"b": [2]}\n']),
    "bvh": Reader("x.bvh", read_bvh, lambda: [seeds.BVH]),
    "glb": Reader("x.glb", read_gltf, _animations),
    "gltf": Reader("x.gltf", read_gltf, _gltf),
    "asf": Reader("x.asf", _asf, lambda: [seeds.ASF]),
    "smpl-npz": Reader("x.npz", read_smpl_npz, lambda: [as_npz(**_NPZ)]),
    "tar": Reader("x.tar", lambda p: import_tar([p], p.parent / "set"), lambda: [seeds.as_tar()]),
    "captions": Reader("x.txt", _captions, lambda: [b"a walk#a/DET walk/NOUN#0.0#1.5\nwaves\n"]),
    "annotation": Reader("x.json", annotation_pairs, lambda: [
        as_json(_ANNOTATION), as_json([{"id": "a", "num_frames": 3, "caption": "x"}])]),
    "prediction": Reader("x.npy", lambda p: read_prediction(p, 272), lambda: [as_npy(seeds.MOTION)]),
    "codes": Reader("x.npy", lambda p: load_codes(p, 256), lambda: [as_npy(np.arange(5)[None])]),
    "text": Reader("x.txt", read_text, lambda: ["Ü text\r\n".encode(), "x".encode("utf-16")]),
    "prompts": Reader("x.txt", read_prompt_file, lambda: [b"a person walks\nwaves\n"]),
    "trials": Reader("x.tsv", unseen_trials, lambda: [b"walks\twalk\thappy\n# no\nruns\trun\n"]),
    "body": Reader("skeleton.json", read_body, lambda: [as_json(_BODY)]),
    "body-model": Reader("x.npz", body_model_offsets, _bodies),
    "caption-table": Reader("x.jsonl", _table, lambda: [_table_seed()]),
    "templates": Reader("x.yaml", _templates, lambda: [seeds.TEMPLATES]),
    "yaml": Reader("x.yaml", read_config_yaml, lambda: [
        b"a: &x [1, 2]\nb: ${a}\nc: *x\n", b"a: {b: ${oc.env:HOME}}\nc: !!x 1\n"]),
    "plain-yaml": Reader("x.yaml", read_plain_yaml, lambda: [b"a: &x [1, 2]\nb: *x\nc: 1e3\nd: 2020-01-01\n"]),
    "skeleton-map": Reader("x.yaml", load_map, _file("hftrainer/motion/skeletons/*.yaml")),
    "protocol": Reader("x.yaml", load_protocol, _file("hftrainer/evaluation/protocols/hftrainer-v1.yaml")),
    "card": Reader("x.yaml", read_card, _file("hftrainer/zoo/models/motionstreamer272-nano.yaml")),
    "experiment": Reader("x.yaml", load_experiment, _file("configs/gotozero/debug_ar.yaml")),
}  # fmt: skip
torch.set_num_threads(1)
