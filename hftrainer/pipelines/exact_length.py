"""Motions of exactly the asked lengths for an evaluation, one canonical `<name>.npy` each, in any number of processes.

What a folder holds beside the motions:

    _generation/settings.json    everything that changes a motion but its caption, length and seed; one set a folder
    _generation/*.jsonl          a line for every motion, written after its file: codes, padded frames, hash, ...
    manifest.json                all of it, put together whenever a process has finished its part

A rerun keeps a motion whose line agrees with what is asked for and whose file has the recorded hash, shape and no NaN;
whatever else is there is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.arrays import read_npy
from hftrainer.files import atomic_path, sha256, write_json
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.pipelines.base import Float32, GeneratedMotion, TextToMotionPipeline
from hftrainer.pipelines.prompts import seeded_rows
from hftrainer.pipelines.sized import SizedIterator
from hftrainer.readers import inside, json_field, parse_json, read_json
from hftrainer.requests import GenerationRequest, SamplingParams
from hftrainer.version import __version__

MANIFEST = "manifest.json"
RECORDS = "_generation"
SETTINGS = "settings.json"


@dataclass(frozen=True)
class ClipRequest:
    """One motion that is wanted: `frames` frames of `caption`, drawn with `seed`, as `<name>.npy`."""

    name: str
    caption: str
    frames: int
    seed: int


@dataclass
class GenerationSettings:
    """What decides about motions beside the requests. `about` is only noted: sources, commands, hashes of captions.

    `representation` is the model's, which `model_hash` stands for.
    """

    model: str
    model_hash: str
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_sample_steps: int = 150
    dtype: str = "as stored"
    about: dict[str, Any] = field(default_factory=dict)
    representation: str = DEFAULT

    def settings(self) -> dict[str, Any]:
        """What motions depend on; two sets of it never share a folder."""
        return {
            "model_hash": self.model_hash,
            "sampling": self.sampling.record(),
            "max_sample_steps": self.max_sample_steps,
            "dtype": self.dtype,
        }


class OtherSettings(ValueError):
    """The folder holds motions that were made by another model, with other settings, or by something else."""


def make_requests(
    pairs: Iterable[tuple[str, str, int]], seed: int, *, generations: int = 1, of_first: int | None = None
) -> list[ClipRequest]:
    """A request for each (name, caption, frames), seeds counting up where a caption comes again.

    With `generations`, the first `of_first` clips (all of them by default) get more of them: ``<name>_1``, ``<name>_2``
    and so on beside ``<name>``, for multimodality. Seeds are given out here, before sharding, so that they depend on
    neither the number of processes nor on what is there already.
    """
    pairs = list(pairs)
    rows = [(name, caption, frames) for name, caption, frames in pairs]
    for number in range(1, generations):
        rows += [(f"{name}_{number}", caption, frames) for name, caption, frames in pairs[:of_first]]
    names = [name for name, _, _ in rows]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is a clip's name and one of several generations; generate into several folders")
    for name in names:
        inside("the output folder", name, suffix=".npy", what="a clip's name")
    seeds = seeded_rows([caption for _, caption, _ in rows], seed)
    return [
        ClipRequest(name, caption, int(frames), int(row_seed or 0))
        for (name, caption, frames), (_, row_seed) in zip(rows, seeds, strict=True)
    ]


def prepare(out: Path, generation: GenerationSettings, *, overwrite: bool = False) -> None:
    """Claim `out` for a generation; `OtherSettings` if it holds another one's motions."""
    path = out / RECORDS / SETTINGS
    settings = generation.settings()
    if not path.is_file() and not overwrite:
        strangers = next((p for p in out.rglob("*.npy") if p.name[0] != "."), None)
        if strangers is not None and not path.is_file():  # another process may have claimed it meanwhile
            raise OtherSettings(
                f"{out} has motions that this command did not generate ({strangers.name}, ...); choose another folder, "
                "or write over them with --overwrite"
            )
    if path.is_file():
        there = json_field(read_json(path), "settings", dict, path)
        changed = sorted(key for key in {*there, *settings} if there.get(key) != settings.get(key))
        if changed and not overwrite:
            what = "; ".join(f"{key}: {there.get(key)!r} there, {settings.get(key)!r} now" for key in changed)
            raise OtherSettings(
                f"{out} holds motions of another generation ({what}); choose another folder, or --overwrite"
            )
        if not changed:
            return
    write_json(path, {"settings": settings, "model": generation.model, "about": generation.about})


def shard_of(requests: Sequence[ClipRequest], index: int, total: int) -> list[ClipRequest]:
    """The requests whose place modulo `total` is `index`."""
    if not 0 <= index < total:
        raise ValueError(f"shard {index} of {total}: the index must lie between 0 and {total - 1}")
    return list(requests[index::total])


def generate(
    pipeline: TextToMotionPipeline,
    generation: GenerationSettings,
    requests: Sequence[ClipRequest],
    out: Path,
    *,
    batch_size: int | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    label: str = "0of1",
) -> dict[str, str]:
    """Make the requests whose motions are not there yet; what went wrong, by name.

    Every motion is written as soon as it is decoded. A motion without any frame (the model ended at once) is a failure:
    there is nothing that could be held at rest.
    """
    done = finished(out, generation, requests)
    todo = [request for request in requests if request.name not in done]
    failed: dict[str, str] = {}
    if not todo:
        return failed
    if pipeline.representation != generation.representation:
        raise ValueError(
            f"the model generates {pipeline.representation}, but {generation.representation} is requested; "
            "give GenerationSettings(representation=...) as the model's"
        )
    with open(_open_records(out, label), "a", encoding="utf-8") as records:
        before = time.perf_counter()
        for request, made in progress(SizedIterator(_stream(pipeline, generation, todo, batch_size), len(todo))):
            now = time.perf_counter()
            record = {**_describe(request, generation, made), "wall_seconds": round(now - before, 4), "at": time.time()}
            before = now
            if len(made.motion) == 0:
                failed[request.name] = record["error"] = "the model ended before the first frame"
            elif not np.isfinite(made.motion).all():
                failed[request.name] = record["error"] = "the motion holds NaN or infinite values"
            else:
                record["sha256"] = _write(
                    out / f"{request.name}.npy", fit_length(made.motion, request.frames, made.representation)
                )
            records.write(json.dumps(record, ensure_ascii=False) + "\n")
            records.flush()
    return failed


def fit_length(motion: Float32, frames: int, representation: str = DEFAULT) -> Float32:
    """Exactly `frames` frames of a motion (t, width): cut, or its last pose held, at rest, until then."""
    return np.asarray(get_representation(representation).pad_at_rest(motion[:frames], frames), dtype=np.float32)


def _stream(
    pipeline: TextToMotionPipeline, generation: GenerationSettings, todo: Sequence[ClipRequest], batch_size: int | None
) -> Iterator[tuple[ClipRequest, GeneratedMotion]]:
    """Motions as they get ready. No codes are decoded that the cut would drop."""
    steps, floor = generation.max_sample_steps, generation.sampling.min_new_tokens
    requests = []
    for request in todo:
        most = min(steps, pipeline.codes_for(request.frames))
        requests.append(GenerationRequest(request.caption, request.seed, most, min(floor, most), request.frames))
    for number, made in pipeline.run(requests, generation.sampling, batch_size=batch_size):
        yield todo[number], made


def _write(path: Path, motion: Float32) -> str:
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as stream:
            np.save(stream, motion)
        return sha256(temporary)


def _describe(request: ClipRequest, generation: GenerationSettings, made: GeneratedMotion) -> dict[str, Any]:
    return {
        **asdict(request),
        "key": request_key(request, generation),
        "codes": len(made.tokens),
        "ended": made.ended,
        "text_tokens": made.text_tokens,
        "seconds": round(request.frames / get_representation(made.representation).fps, 4),
        "padded_frames": max(0, request.frames - len(made.motion)),
    }


# --- what is there ----------------------------------------------------------------------------------------------------


def request_key(request: ClipRequest, generation: GenerationSettings) -> str:
    """Identity of a motion: its request and everything else that it depends on."""
    content = json.dumps([asdict(request), generation.settings()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def finished(out: Path, generation: GenerationSettings, requests: Sequence[ClipRequest]) -> dict[str, dict[str, Any]]:
    """Records, by name, of the motions that are there and are what is asked for: every file is opened and compared."""
    records = read_records(out)
    found = {}
    for request in requests:
        record = records.get(request.name)
        if record is None or "error" in record or record.get("key") != request_key(request, generation):
            continue
        path = out / f"{request.name}.npy"
        if why_not_valid(path, request.frames, record.get("sha256"), generation.representation) is None:
            found[request.name] = record
    return found


def why_not_valid(path: Path, frames: int, digest: str | None = None, representation: str = DEFAULT) -> str | None:
    """What is wrong with a motion file; None if nothing is: shape, type, finite numbers and, if given, its hash."""
    if not path.is_file():
        return "missing"
    try:
        motion = read_npy(path, shape=(frames, get_representation(representation).width), finite=True)
    except (OSError, ValueError) as error:
        return str(error)
    if motion.dtype != np.float32:
        return f"float32 is expected, it holds {motion.dtype}"
    if digest is not None and sha256(path) != digest:
        return "was changed after it was written"
    return None


def read_records(out: Path) -> dict[str, dict[str, Any]]:
    """The newest record of every name; a line that an interruption cut off does not count."""
    records: dict[str, dict[str, Any]] = {}
    for path in sorted((out / RECORDS).glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = parse_json(line, path)
                if record["at"] >= records.get(record["name"], record)["at"]:
                    records[record["name"]] = record
    return records


def _open_records(out: Path, label: str) -> Path:
    """The file for this process's records, its last line ended: an interruption may have cut it off."""
    path = out / RECORDS / f"{label}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n"):
        with open(path, "a", encoding="utf-8") as stream:
            stream.write("\n")
    return path


# --- the complete folder ----------------------------------------------------------------------------------------------


def coverage(out: Path, generation: GenerationSettings, requests: Sequence[ClipRequest]) -> dict[str, str]:
    """What is not there or not as asked for, by name, with the reason. Empty if everything is."""
    return _missing(out, requests, finished(out, generation, requests), generation.representation)


def _missing(
    out: Path, requests: Sequence[ClipRequest], done: Mapping[str, Any], representation: str
) -> dict[str, str]:
    records, missing = read_records(out), {}
    for request in requests:
        if request.name not in done:
            path = out / f"{request.name}.npy"
            wrong = why_not_valid(path, request.frames, None, representation) or "made with other settings, or changed"
            missing[request.name] = str(records.get(request.name, {}).get("error", wrong))
    return missing


def write_manifest(out: Path, generation: GenerationSettings, requests: Sequence[ClipRequest]) -> dict[str, Any]:
    """Write manifest.json over all that is there of the requests; its content.

    Processes that finish together wait for each other, so that the last one's manifest is complete.
    """
    with _alone(out / RECORDS / "lock"):
        done = finished(out, generation, requests)
        items = [done[request.name] for request in requests if request.name in done]
        manifest = {
            "format_version": 1,
            "hftrainer": __version__,
            "model": generation.model,
            **generation.settings(),
            **generation.about,
            "representation": generation.representation,
            "fps": get_representation(generation.representation).fps,
            "wanted": len(requests),
            "made": len(items),
            "padded_clips": sum(item["padded_frames"] > 0 for item in items),
            "padded_frames": sum(item["padded_frames"] for item in items),
            "wall_seconds": round(sum(item["wall_seconds"] for item in items), 3),
            "missing": _missing(out, requests, done, generation.representation),
            "items": items,
        }
        write_json(out / MANIFEST, manifest)
    return manifest


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time, where the system can lock files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as stream:
        try:
            import fcntl
        except ImportError:  # Windows; manifests of processes that end in the same moment may be incomplete there
            yield
            return
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
