"""Released files to an artifact: tensor by tensor, resumable, and compared with the source if asked.

Weights go into a folder beside the target, ``.<name>-partial``, shard by shard; the target appears when everything is
there. An interrupted conversion resumes where it stopped, if the source is still the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hftrainer.files import only_writer, write_json, write_text
from hftrainer.manifest import MANIFEST, write_manifest
from hftrainer.models.checkpoint import (
    Checkpoint,
    CheckpointError,
    find_weights,
    open_checkpoint,
    tensor_hash,
    write_state,
)
from hftrainer.models.motion.motionmillion import artifact, card, files
from hftrainer.models.motion.motionmillion.config import MotionMillionConfig
from hftrainer.models.motion.motionmillion.network.llama import LLaMAHFConfig
from hftrainer.models.motion.motionmillion.upstream import sizes_of
from hftrainer.models.t5_files import encoder_hash, encoder_names
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.motion.statistics import load_statistics
from hftrainer.readers import read_json
from hftrainer.registry import TEXT_ENCODERS

_WEIGHTS = (".safetensors", ".bin", ".h5", ".msgpack", ".ot", ".pt", ".pth", ".onnx")
Say = Callable[[str], None]


@dataclass
class Conversion:
    """What to convert, and to where. Without `fsq`, `mean` or `std` they are looked for beside `ar`."""

    ar: Path
    out: Path
    fsq: Path
    mean: Path
    std: Path
    text_encoder: Path | None = None
    ar_config_name: str = "auto"
    dtype: torch.dtype | None = None
    repo_id: str | None = None
    trained_on: str = "auto"  # "train", "all", "unknown", or "auto": from the file's name
    shard_bytes: int = 5 << 30


def convert(job: Conversion, *, say: Say = lambda line: None) -> None:
    """Write the artifact. Memory stays below a few of the largest tensors, whatever the size of the files."""
    ar, fsq = (
        open_checkpoint(job.ar, keys=("trans", "state_dict")),
        open_checkpoint(job.fsq, keys=("net", "state_dict")),
    )
    config = _config(job, ar, fsq)
    mean, std = load_statistics(job.mean, job.std, get_representation(DEFAULT))
    staging = job.out.with_name(f".{job.out.name}-partial")
    with only_writer(staging):
        if job.out.exists():  # another process, which held the folder until now, has just finished it
            shutil.rmtree(staging)
            raise CheckpointError(f"{job.out} appeared meanwhile; choose another folder")
        source = _identity(job, ar, fsq)
        _start(staging, source, say)
        _write_parts(job, staging, ar, fsq, say)
        for name, values in (("mean.npy", mean), ("std.npy", std)):
            np.save(staging / name, values)
        _describe(job, staging, config)
        _check_complete(staging, _parts(staging))
        if _identity(job, ar, fsq) != source:
            (staging / "progress.json").unlink()  # what is there may be of either
            raise CheckpointError("the files that are converted changed meanwhile; run the same command again")
        _finish(job.out, staging)


def _write_parts(job: Conversion, staging: Path, ar: Checkpoint, fsq: Checkpoint, say: Say) -> None:
    for stem, state, dtype in (("fsq", fsq, torch.float32), ("ar", ar, job.dtype)):
        if not _is_done(staging, stem):
            say(f"{stem}: {len(state)} tensors, {sum(map(state.bytes_of, state)) / 1e9:.2f} GB from {state.path.name}")
            _note_done(staging, stem, _write_weights(staging, stem, state, dtype, job.shard_bytes))
    if job.text_encoder is not None and not _is_done(staging, "text_encoder"):
        say(f"text_encoder: {job.text_encoder}")
        names = copy_text_encoder(job.text_encoder, staging / "text_encoder", job.shard_bytes)
        _note_done(staging, "text_encoder", [f"text_encoder/{name}" for name in names])


def _finish(out: Path, staging: Path) -> None:
    """Write the manifest and give the folder its name; it goes back if a file is deleted until then."""
    parts = _parts(staging)
    (staging / "progress.json").unlink()
    write_manifest(staging)
    if out.exists():
        raise CheckpointError(f"{out} appeared meanwhile; the converted model is in {staging}")
    os.replace(staging, out)
    try:
        _check_complete(out, parts, MANIFEST)
    except CheckpointError:
        os.replace(out, staging)
        raise


def compare_tensors(job: Conversion, *, say: Say = lambda line: None) -> int:
    """Hash every tensor of source and artifact; how many there are. Raises `CheckpointError` naming what differs."""

    def both(stem: str, path: Path, keys: tuple[str, ...]) -> tuple[Checkpoint, Checkpoint]:
        return open_checkpoint(path, keys=keys), open_checkpoint(find_weights(job.out, stem))

    parts = {
        "fsq": (*both("fsq", job.fsq, ("net", "state_dict")), torch.float32),
        "ar": (*both("ar", job.ar, ("trans", "state_dict")), job.dtype),
    }
    if job.text_encoder is not None:
        made = open_text_encoder(job.out / "text_encoder")
        parts["text_encoder"] = (open_text_encoder(job.text_encoder), made, None)
    for stem, (source, made, dtype) in parts.items():
        if set(source) != set(made):
            different = sorted(set(source) ^ set(made))[:3]
            raise CheckpointError(f"{job.out}: {stem} has different tensors than {source.path}: {different}")
        for name in source:
            cast = dtype if source.dtype_of(name).is_floating_point else None
            if tensor_hash(source[name].to(cast or source.dtype_of(name))) != tensor_hash(made[name]):
                raise CheckpointError(f"{job.out}: {stem} tensor {name} is not that of {source.path}")
        say(f"{stem}: {len(source)} tensors have the source's hashes")
    return sum(len(source) for source, _, _ in parts.values())


@torch.inference_mode()
def compare_outputs(job: Conversion, *, codes: int = 8, say: Say = lambda line: None) -> None:
    """Logits, greedy codes and decoded motion of source and artifact on the same made-up text features.

    The two are loaded one after the other. Raises `CheckpointError` naming what differs.
    """
    from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle

    def outputs(bundle: MotionMillionBundle) -> dict[str, Tensor]:
        assert bundle.ar is not None
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(1, 12, bundle.ar.config.clip_dim, generator=generator)
        mask = torch.ones(1, 12, dtype=torch.bool)
        made = bundle.ar.generate(features, mask, codes, min_new_tokens=codes)
        row = torch.cat([torch.full((1, 12), bundle.ar.config.pad_id), made.tokens], dim=1)
        return {
            "logits": bundle.ar(row, features, mask)[:, 11:].float(),
            "greedy codes": made.tokens,
            "decoded motion": bundle.decode_codes(made.tokens),
        }

    source = MotionMillionBundle(
        fsq_path=job.fsq, ar_path=job.ar, mean_path=job.mean, std_path=job.std, dtype=job.dtype
    )
    want = outputs(source)
    del source
    made = outputs(MotionMillionBundle.from_pretrained(job.out, text_encoder=None))
    for name, value in want.items():
        if not torch.equal(value, made[name]):
            raise CheckpointError(f"{job.out}: {name} differ from those of {job.ar}")
    say(f"logits, {codes} greedy codes and the decoded motion are equal")


def copy_text_encoder(source: Path, target: Path, shard_bytes: int) -> list[str]:
    """Copy a transformers folder: configuration and tokenizer unchanged, and only the encoder's weights. The names of
    the copies.

    The released Flan-T5 holds a decoder too, more than half of its 11 GB. Raises `CheckpointError` for a folder that is
    no T5's, or has no weights that can be read tensor by tensor.
    """
    if not (source / "config.json").is_file():
        raise CheckpointError(f"{source} is not a text encoder folder: it has no config.json")
    state = open_text_encoder(source)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    copies = []
    for path in _plain_files(source):
        weights = path.suffix in _WEIGHTS or path.name.endswith(tuple(f"{s}.index.json" for s in _WEIGHTS))
        if not weights:
            out = target / path.relative_to(source)
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out)
            copies.append(path.relative_to(source).as_posix())
    types = {name: (state.dtype_of(name), state.shape_of(name)) for name in state}
    return copies + write_state(target, "model", types, state.__getitem__, shard_bytes=shard_bytes)


def open_text_encoder(folder: Path) -> Checkpoint:
    """The encoder's tensors in a T5 folder, each once."""
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} has no safetensors weights; load and save_pretrained it with transformers first"
        )
    state = open_checkpoint(find_weights(folder, "model"))
    names = encoder_names(list(state))
    if "shared.weight" not in names:
        raise CheckpointError(f"{folder} does not hold a T5 encoder: it has no embedding 'shared.weight'")
    return state.renamed(names)


# --- parts ----------------------------------------------------------------------------------------------------------


def _config(job: Conversion, ar: Checkpoint, fsq: Checkpoint) -> MotionMillionConfig:
    config = MotionMillionConfig(ar=sizes_of(ar))
    if job.ar_config_name != "auto":
        named = LLaMAHFConfig.from_name(job.ar_config_name)
        held = config.ar.config
        if (named.n_layer, named.n_embd) != (held.n_layer, held.n_embd):
            raise CheckpointError(
                f"{job.ar} holds {held.n_layer} layers of width {held.n_embd}, "
                f"{job.ar_config_name} has {named.n_layer} of {named.n_embd}"
            )
    artifact.check_names("fsq", fsq, config)
    artifact.check_names("ar", ar, config)
    config.check()
    if job.text_encoder is not None:
        config.text_encoder = TEXT_ENCODERS.part({"name": "t5", "source": "text_encoder"})
    return config


def _write_weights(
    folder: Path, stem: str, state: Checkpoint, dtype: torch.dtype | None, shard_bytes: int
) -> list[str]:
    types = {}
    for name in state:
        kind = state.dtype_of(name)
        types[name] = (dtype if dtype is not None and kind.is_floating_point else kind, state.shape_of(name))
    return write_state(folder, stem, types, lambda name: state[name].to(types[name][0]), shard_bytes=shard_bytes)


def _describe(job: Conversion, folder: Path, config: MotionMillionConfig) -> None:
    config.training_splits = training_splits(job)
    text = folder / "text_encoder"
    sha256 = encoder_hash(open_checkpoint(find_weights(text, "model"))) if job.text_encoder is not None else None
    content = files.describe(config, has_text=job.text_encoder is not None, text_sha256=sha256)
    write_json(folder / files.CONFIG, content)
    write_json(folder / "model_index.json", files.index(has_ar=True, has_text=job.text_encoder is not None))
    write_text(folder / "README.md", card.model_card(config, repo_id=job.repo_id, source=job.ar.name))


def training_splits(job: Conversion) -> str:
    """ "train", "all" or "unknown"; `auto` reads the released names (``motionmillion_7B_all.pth``)."""
    if job.trained_on != "auto":
        return job.trained_on
    words = job.ar.stem.lower().replace("-", "_").split("_")
    return "all" if "all" in words else "train" if "train" in words else "unknown"


def _plain_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


# --- resuming ---------------------------------------------------------------------------------------------------------


def _identity(job: Conversion, ar: Checkpoint, fsq: Checkpoint) -> dict[str, Any]:
    def of(path: Path, state: Mapping[str, Tensor]) -> list[Any]:
        size = path.stat().st_size if path.is_file() else 0
        return [str(path.resolve()), size, path.stat().st_mtime_ns, len(state)]

    text: list[Any] = [str(job.text_encoder)]
    if job.text_encoder is not None:
        text += [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in _plain_files(job.text_encoder)]
    return {"ar": of(job.ar, ar), "fsq": of(job.fsq, fsq), "dtype": str(job.dtype), "text": text}


def _start(staging: Path, source: dict[str, Any], say: Say) -> None:
    progress = staging / "progress.json"
    if progress.is_file():
        if read_json(progress).get("source") == source:
            say(f"resuming {staging}")
            for stale in staging.rglob(".*.part*"):  # of a file that was being written when the process was killed
                stale.unlink()
            return
        say(f"{staging} was from a different source; starting over")
    for path in staging.iterdir():  # not the folder itself, which is held
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_json(progress, {"source": source, "done": {}})


def _parts(staging: Path) -> dict[str, dict[str, int]]:
    """Finished parts: each with its files and their bytes."""
    done = read_json(staging / "progress.json")["done"]
    return done if isinstance(done, dict) else {}  # an earlier release had a list of names


def _is_done(staging: Path, part: str) -> bool:
    return _is_whole(staging, _parts(staging).get(part))


def _is_whole(staging: Path, found: dict[str, int] | None) -> bool:
    return found is not None and all(
        (staging / name).is_file() and (staging / name).stat().st_size == size for name, size in found.items()
    )


def _check_complete(folder: Path, parts: dict[str, dict[str, int]], *more: str) -> None:
    """Raise `CheckpointError` if somebody deleted a file while others were written."""
    described = ("mean.npy", "std.npy", files.CONFIG, "model_index.json", "README.md", *more)
    gone = [part for part, found in parts.items() if not _is_whole(folder, found)]
    gone += [name for name in described if not (folder / name).is_file()]
    if gone:
        raise CheckpointError(f"files of {gone[0]} in {folder} were deleted meanwhile; run the same command again")


def _note_done(staging: Path, part: str, names: list[str]) -> None:
    try:
        sizes = {name: (staging / name).stat().st_size for name in names}
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename} was deleted meanwhile; run the same command again") from error
    content = {**read_json(staging / "progress.json"), "done": {**_parts(staging), part: sizes}}
    write_json(staging / "progress.json", content)
