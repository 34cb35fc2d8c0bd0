"""Readers of folders: one file of a complete folder is replaced by the input, whose first byte says which."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from zlib import crc32

import numpy as np
import torch

from hftrainer.data.flat import PackedTokens
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.import_records import ImportRecords
from hftrainer.data.tokens.folder import TokenSet
from hftrainer.evaluation.compare import read_run
from hftrainer.manifest import verify_manifest, write_manifest
from hftrainer.models.motion.humanml263.words import WordVectors
from hftrainer.models.motion.motionmillion.adapter import merge_adapter
from hftrainer.models.motion.motionmillion.artifact import read_folder_config
from hftrainer.models.motion.motionstreamer.embedding_cache import EmbeddingCache
from hftrainer.models.text_features import StoredTextFeatures, write_text_features
from hftrainer.motion.io.asf import read_amc
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.motion.statistics import load_statistics
from hftrainer.pipelines.base import read_sampling
from hftrainer.pipelines.exact_length import read_records
from hftrainer.pipelines.folder import existing, wanted
from hftrainer.training.curves import read_curves
from hftrainer.training.record import RunRecord
from hftrainer.zoo.detect import declared_names, declared_representation
from tests.fuzz import seeds
from tests.fuzz.mutate import tree
from tests.fuzz.readers import READERS, Reader, tensors
from tests.fuzz.seeds import as_json, as_npy, as_npz, as_torch


class Folder(Reader):
    """`files`: what is in the folder, by name. `read` gets the folder. `fit` is called before, to mend what would be
    refused without a look at the replaced file."""

    def __init__(
        self,
        files: Callable[[], dict[str, bytes]],
        read: Callable[..., Any],
        *,
        only: tuple[str, ...] = (),
        fit: Callable[[Path, str], None] = lambda folder, name: None,
        objects: dict[str, tuple[Any, Callable[[Any], bytes]]] | None = None,
    ):
        self.files, self.only, self.fit, self.trees = files, only, fit, objects or {}
        self._files: dict[str, bytes] = {}
        self._place: tuple[int, Path] | None = None
        super().__init__("input", lambda path: self._replaced(path, read), self._inputs, head=1)

    @property
    def content(self) -> dict[str, bytes]:
        if not self._files:
            self._files = self.files()
        return self._files

    @property
    def names(self) -> list[str]:
        return sorted(self.only or self.content)

    def input(self, rng: random.Random, found: Any = ()) -> bytes:
        if self.trees and rng.random() < 0.4:
            name = rng.choice(sorted(self.trees))
            value, write = self.trees[name]
            return bytes([self.names.index(name)]) + write(tree(value, rng))
        return super().input(rng, found)

    def _inputs(self) -> list[bytes]:
        return [bytes([i]) + self.content[name] for i, name in enumerate(self.names)]

    def _folder(self, beside: Path) -> Path:
        """The complete folder, made once in each process."""
        if self._place is None or self._place[0] != os.getpid() or not self._place[1].is_dir():
            place = Path(mkdtemp(dir=beside))
            for name, data in self.content.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(data)
            self._place = os.getpid(), place
        return self._place[1]

    def _replaced(self, path: Path, read: Callable[..., Any]) -> None:
        data = path.read_bytes()
        folder = self._folder(path.parent)
        name = self.names[(data[0] if data else 0) % len(self.names)]
        (folder / name).write_bytes(data[1:])
        try:
            self.fit(folder, name)
            read(folder, name) if read is _read_model_files else read(folder)
        finally:
            (folder / name).write_bytes(self.content[name])


# --- what is in the folders -------------------------------------------------------------------------------------------


def _dataset() -> dict[str, bytes]:
    mean = np.where(np.arange(272) == 9, 0.85, 0.0)
    return {
        "labels.json": as_json({"a": {"content": "walk"}}), "split/x.txt": b"a\n",
        "motion_data/a.npy": as_npy(seeds.MOTION),
        "texts/a.txt": b"a walk#a/DET walk/NOUN#0.0#1.5\n", "representation.json": b'{"representation": "motion272"}',
        "mean_std/Mean.npy": as_npy(mean), "mean_std/Std.npy": as_npy(np.full(272, 0.1)),
    }  # fmt: skip


def _read_dataset(folder: Path) -> None:
    dataset = DatasetFolder(folder)
    dataset.labels(), dataset.splits(), dataset.captions("a")
    for name in dataset.names("x"):
        dataset.motion(name), dataset.frames(name), dataset.captions(name)
    dataset.statistics()


def _sharded() -> dict[str, bytes]:
    index = {"metadata": {"total_size": 40}, "weight_map": {"a": "m.safetensors", "b": "m.safetensors"}}
    return {"x.safetensors.index.json": as_json(index), "m.safetensors": seeds.as_safetensors()}


def _amc(folder: Path) -> None:
    read_amc(folder / "x_1.amc")


def _deepspeed(stage: int) -> Callable[[], dict[str, bytes]]:
    return lambda: {
        "t/mp_rank_00_model_states.pt": as_torch(seeds.deepspeed_model(stage)),
        "t/zero_pp_rank_0_mp_rank_00_optim_states.pt": as_torch(seeds.deepspeed_optimizer(stage)), "latest": b"t",
    }  # fmt: skip


def _deepspeed_trees(stage: int) -> dict[str, tuple[Any, Callable[[Any], bytes]]]:
    return {
        "t/mp_rank_00_model_states.pt": (seeds.deepspeed_model(stage), as_torch),
        "t/zero_pp_rank_0_mp_rank_00_optim_states.pt": (seeds.deepspeed_optimizer(stage), as_torch),
    }


def _words() -> dict[str, bytes]:
    data, names, rows = seeds.words()
    return {"our_vab_data.npy": data, "our_vab_words.pkl": names, "our_vab_idx.pkl": rows}


def _packed() -> dict[str, bytes]:
    arrays: dict[str, Any] = {
        "codes": np.arange(6, dtype=np.uint16), "offsets": np.array([0, 2, 6]), "clips": np.array([0, 1], np.int32),
        "first_caption": np.array([0, 1, 3]), "text": np.frombuffer(b"walksrunsgo", np.uint8),
        "text_offsets": np.array([0, 5, 9, 11]), "names": np.frombuffer(b"ab", np.uint8),
        "name_offsets": np.array([0, 1, 2]), "split_0": np.array([0, 1], np.int32),
        "spans": np.zeros((3, 2), np.float32), "label_0": np.array([0, 1], np.int32),
    }  # fmt: skip
    files = {f"{name}.npy": as_npy(array) for name, array in arrays.items()}
    about = {
        "format": PackedTokens.format, "codebook_size": 16, "frames_per_code": 2, "tokenizer_sha256": "0",
        "splits": {"train": {"array": "split_0"}}, "labels": {"style": {"array": "label_0", "values": ["x", "y"]}},
        "files": {name: {"bytes": len(data), "sha256": "0"} for name, data in files.items()},
    }  # fmt: skip
    return {**files, "made_from.json": as_json(about)}


def _size_fits(folder: Path, name: str) -> None:
    about = json.loads(_PACKED.content["made_from.json"])
    if name != "made_from.json":
        about["files"][name]["bytes"] = (folder / name).stat().st_size
        (folder / "made_from.json").write_text(json.dumps(about))


def _read_packed(folder: Path) -> None:
    packed = PackedTokens(folder)
    packed.verify()
    for entry in range(min(len(packed), 3)):
        packed[entry], packed.name_of(int(packed.table.clips[entry]))
    for split in packed.made_from["splits"]:
        packed.split(split)
    packed.statistics(), packed.lengths, packed.representation


def _token_set() -> dict[str, bytes]:
    return {
        "made_from.json": as_json({"tokenizer_sha256": "0", "codebook_size": 16}), "names.txt": b"a\nb\n",
        "codes.npy": as_npy(np.arange(6, dtype=np.uint16)), "offsets.npy": as_npy(np.array([0, 2, 6])),
    }  # fmt: skip


def _read_token_set(folder: Path) -> None:
    made = TokenSet(folder)
    made.check_tokenizer("0")
    for entry in range(min(len(made), 3)):
        made[entry]


def _generated() -> dict[str, bytes]:
    item = {"prompt": "walks", "seed": 1, "stem": "000_walks_s1", "key": "k", "files": ["a.npy"], "seconds": 1.0,
            "sha256": {"a.npy": "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119"}}  # fmt: skip
    return {"manifest.json": as_json({"items": [item], "runs": [{"model": "m", "settings": {}}]}), "a.npy": bytes(4)}


def _read_generated(folder: Path) -> None:
    before = existing(folder)
    wanted(["walks", "runs"], 2, 0, {"a": 1}, before["items"])
    [run for run in before["runs"] if run.get("settings") != {}]


def _records() -> dict[str, bytes]:
    record = {"name": "a", "at": 1.0, "frames": 4, "sha256": "0", "padded": 0, "settings": "x"}
    return {"_generation/0of1.jsonl": as_json(record) + b"\n" + as_json({**record, "at": 2.0}) + b"\n"}


def _model_files() -> dict[str, bytes]:
    from tests.tiny import make_tiny_bundle

    place = Path(mkdtemp())
    make_tiny_bundle().save_pretrained(place / "m")
    kept = ("model_index.json", "mm_config.json", "mean.npy", "std.npy")
    for path in (place / "m").iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_manifest(place / "m")
    sampling = as_json({"do_sample": True, "temperature": 0.9, "top_p": 0.9, "top_k": 5})
    files = {name: (place / "m" / name).read_bytes() for name in (*kept, "manifest.json")}
    files["config.json"] = as_json({"architectures": ["X"], "model_type": "x"})
    return {**files, "generation_config.json": sampling}


def _model_config(folder: Path) -> None:
    config = read_folder_config(folder)
    if crc32((folder / "mm_config.json").read_bytes()) % 50:
        return  # building takes longer than all the rest
    with torch.device("meta"):
        config.tokenizer.build()
        if config.ar is not None:
            config.ar.build()


def _statistics(folder: Path) -> None:
    load_statistics(folder / "mean.npy", folder / "std.npy", get_representation(DEFAULT))


def _declared(folder: Path) -> None:
    list(declared_names(folder)), declared_representation(folder)


_MODEL_READERS: dict[str, Callable[[Path], Any]] = {
    "mm_config.json": _model_config, "mean.npy": _statistics, "std.npy": _statistics, "model_index.json": _declared,
    "config.json": _declared, "generation_config.json": read_sampling, "manifest.json": verify_manifest,
}  # fmt: skip


def _read_model_files(folder: Path, changed: str | None = None) -> None:
    """All of it, or only by what reads the file that was changed; the others say what they always say."""
    for name, read in _MODEL_READERS.items():
        if changed in (None, name):
            read(folder)


def _run() -> dict[str, bytes]:
    from hftrainer.evaluation import compare

    items = {name: np.zeros((4, 2)) for name in compare._ARRAYS}
    for name, want in compare._ARRAYS.items():
        shape = tuple(4 if size is None else size for size in want.shape or (4,))
        kind = {"text": np.array(["a"] * 4), "int": np.zeros(shape, int), "bool": np.zeros(shape, bool)}
        items[name] = kind.get(want.kind, np.zeros(shape))  # type: ignore[arg-type]
    report = {"protocol": {"name": "p", "metrics": {"use": ["FID"]}}, "rows": {"predicted": {"FID": 1.0}}}
    return {compare.RESULT: as_json(report), compare.PER_ITEM: as_npz(**items)}


def _training() -> dict[str, bytes]:
    record = {"status": "running", "step": 3, "results": {"val/loss": 1.0},
              "starts": [{"config": "config.yaml", "processes": 1, "from_step": 0}]}  # fmt: skip
    return {"run.json": as_json(record), "config.yaml": b"seed: 1\nmodel: {name: x}\n"}


def _read_training(folder: Path) -> None:
    record = RunRecord(folder)
    record.status, record.finished, record.step, record.results, record.processes, record.lines()
    record.newest_config()


def _curves() -> dict[str, bytes]:
    rows = b"epoch,step,train/loss,val/loss\n0,1,2.5,\n0,2,1.5,1.25\n"
    return {"logs/version_0/metrics.csv": rows, "logs/version_1/metrics.csv": rows}


def _adapter() -> dict[str, bytes]:
    from safetensors.torch import save

    name = "base_model.model.transformer.h.0.attn.c_proj"
    weights = {f"{name}.lora_A.weight": torch.zeros(2, 32), f"{name}.lora_B.weight": torch.zeros(32, 2)}
    return {"adapter_config.json": as_json({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}),
            "adapter_model.safetensors": save(weights)}  # fmt: skip


def _merge(folder: Path) -> None:
    global _AR
    if _AR is None:
        from tests.tiny import make_tiny_bundle

        _AR = make_tiny_bundle().ar
    merge_adapter(_AR, folder)


_AR: Any = None


def _features() -> dict[str, bytes]:
    from tests.tiny import SENTENCES, tiny_text_encoder

    path = Path(mkdtemp()) / "x.safetensors"
    write_text_features(path, SENTENCES[:3], tiny_text_encoder(8))
    return {"x.safetensors": path.read_bytes()}


def _read_features(folder: Path) -> None:
    stored = StoredTextFeatures(folder / "x.safetensors")
    texts = stored.texts[:2]
    stored.count_tokens(texts)
    stored(texts)
    stored.part()


def _cache() -> dict[str, bytes]:
    keys, rows = np.zeros((2, 16), np.uint8), np.zeros((2, 8), np.float32)
    return {"x.npz": as_npz(identity=np.array("me"), keys=keys, rows=rows)}


def _read_cache(folder: Path) -> None:
    EmbeddingCache(folder / "x.npz", "me").rows([b"k" * 16], lambda places: np.zeros((len(places), 8), np.float32))


def _import_records() -> dict[str, bytes]:
    record = {"clip": "a", "from": "../x", "source": "a.bvh", "prefix": "", "frames": 3, "sha256": "0", "key": "k"}
    return {"import.jsonl": as_json(record) + b"\n" + as_json({"clip": "a", "removed": True}) + b"\n"}


def _read_import_records(folder: Path) -> None:
    records = ImportRecords(folder)
    records.mend_end()
    records.finish()


_PACKED = Folder(_packed, _read_packed, fit=_size_fits)
READERS |= {
    "dataset": Folder(_dataset, _read_dataset),
    "index": Folder(_sharded, lambda folder: tensors(folder / "x.safetensors.index.json")),
    "words": Folder(_words, WordVectors.from_released),
    "packed": _PACKED,
    "token-set": Folder(_token_set, _read_token_set),
    "generated": Folder(_generated, _read_generated, only=("manifest.json",)),
    "records": Folder(_records, read_records),
    "import-records": Folder(_import_records, _read_import_records),
    "embedding-cache": Folder(_cache, _read_cache),
    "training-record": Folder(_training, _read_training),
    "curves": Folder(_curves, read_curves, only=("logs/version_0/metrics.csv",)),
    "evaluation-run": Folder(_run, read_run),
    "amc": Folder(lambda: {"x_1.amc": seeds.AMC, "x.asf": seeds.ASF}, _amc),
    "deepspeed": Folder(_deepspeed(1), tensors, objects=_deepspeed_trees(1)),
    "deepspeed-3": Folder(_deepspeed(3), tensors, objects=_deepspeed_trees(3)),
    "text-features": Folder(_features, _read_features),
    "adapter": Folder(_adapter, _merge),
    "model-files": Folder(_model_files, _read_model_files),
}
