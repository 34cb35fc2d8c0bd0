"""The files of generated motions: one set a motion, a page that plays all of them, and a manifest beside.

The manifest is written after every batch, so an interrupted run goes on where it stopped: an item whose prompt, seed,
settings and model are those of a finished one, and whose files are there, is kept.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.arrays import read_npy
from hftrainer.extras import need
from hftrainer.files import atomic_path, write_json
from hftrainer.motion.io.bvh_write import write_bvh
from hftrainer.motion.io.npz import write_npz
from hftrainer.motion.representation.base import Representation, get_representation
from hftrainer.motion.representation.convert import check_route, convert
from hftrainer.pipelines.base import GeneratedMotion, TextToMotionPipeline
from hftrainer.pipelines.prompts import seeded_rows
from hftrainer.readers import read_json
from hftrainer.render.video import render_video
from hftrainer.render.viewer import ViewerClip, write_viewer
from hftrainer.requests import SamplingParams
from hftrainer.version import __version__

FORMATS = ("npy", "npz", "bvh", "mp4", "html")
MANIFEST = "manifest.json"
PAGE = "index.html"
_WITH_ROTATIONS = "motion272"  # what npz and bvh are written from


@dataclass
class Job:
    """What is to be made: `num_motions` of each prompt, into `out`, with these files."""

    prompts: list[str]
    out: Path
    num_motions: int = 1
    seed: int = 0
    seconds: float | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    formats: tuple[str, ...] = FORMATS
    batch_size: int = 16
    truncate: bool = False


@dataclass
class Item:
    """One motion of a job and where its files are, without suffix."""

    prompt: str
    seed: int | None
    stem: str
    key: str


def run_job(
    pipeline: TextToMotionPipeline,
    job: Job,
    *,
    model: str,
    fingerprint: str,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, Any]:
    """Make what is missing and write the page; the manifest. Failed items are in it with their error."""
    form = pipeline.motion_format
    check_formats(job.formats, form)
    settings = _settings(job, pipeline, fingerprint)
    items = _items(job, settings)
    done = _finished(job, items)
    manifest: dict[str, Any] = {
        "model": model,
        "model_hash": fingerprint,
        "settings": settings,
        "fps": form.fps,
        "representation": form.name,
        "versions": _versions(),
        "items": [done[item.key] for item in items if item.key in done],
    }
    todo = [item for item in items if item.key not in done]
    for start in progress(range(0, len(todo), job.batch_size)):
        batch = todo[start : start + job.batch_size]
        for item, record in zip(batch, _make_batch(pipeline, job, batch), strict=True):
            done[item.key] = record
        manifest["items"] = [done[item.key] for item in items if item.key in done]
        write_json(job.out / MANIFEST, manifest)
    if "html" in job.formats:
        write_page(job.out, manifest)
    write_json(job.out / MANIFEST, manifest)
    return manifest


def check_formats(formats: Sequence[str], form: Representation | None = None) -> None:
    """Raise before any work if a format is unknown, what it needs is not installed, or `form` does not give it."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"unknown formats {unknown}; known: {', '.join(FORMATS)}")
    if "mp4" in formats:
        need("imageio_ffmpeg", "writing mp4 files")
        need("PIL", "writing mp4 files")
    if form is not None and form.name != _WITH_ROTATIONS:
        for name in (name for name in formats if name in ("npz", "bvh")):
            try:
                check_route(form.name, _WITH_ROTATIONS)
            except ValueError as error:
                raise ValueError(f"{name} files hold joint rotations: {error}; leave {name} out") from error


def write_files(stem: Path, motion: np.ndarray, title: str, formats: Sequence[str], form: Representation) -> list[str]:
    """Write one motion (T, width) of `form` as `stem` + suffix for each format; the file names."""
    written = []
    for name in formats:
        path = stem.with_name(f"{stem.name}.{name}")
        if name == "npy":
            with atomic_path(path) as temporary, open(temporary, "wb") as stream:
                np.save(stream, motion.astype(np.float32))
        elif name == "npz":
            write_npz(path, _with_rotations(motion, form))
        elif name == "bvh":
            write_bvh(path, _with_rotations(motion, form))
        elif name == "mp4":
            render_video(path, form.to_joints(motion), title=title, fps=form.fps)
        else:
            continue  # html is one page for all
        written.append(path.name)
    return written


def _with_rotations(motion: np.ndarray, form: Representation) -> np.ndarray:
    """The motion in the representation that files with rotations are written from."""
    if form.name == _WITH_ROTATIONS:
        return motion
    return np.asarray(convert(motion, form.name, _WITH_ROTATIONS).values)


def write_page(out: Path, manifest: dict[str, Any]) -> None:
    """The page that plays every motion of a manifest."""
    clips = []
    form = get_representation(manifest["representation"])
    for record in manifest["items"]:
        if "error" not in record:
            joints = form.to_joints(read_npy(out / f"{record['stem']}.npy"))
            notes = {
                "seed": str(record["seed"]),
                "length": f"{record['frames'] / form.fps:.1f} s",
                "end": "by itself" if record["ended"] else "cut",
            }
            clips.append(ViewerClip(joints=joints, title=record["prompt"], notes=notes, fps=form.fps))
    if clips:
        write_viewer(out / PAGE, clips, title=f"{manifest['model']}: {len(clips)} motions")


def _make_batch(pipeline: TextToMotionPipeline, job: Job, batch: list[Item]) -> list[dict[str, Any]]:
    """Generate together, then write the files of each in a thread of its own: encoding waits for ffmpeg."""
    motions = pipeline.generate_rows(
        [(item.prompt, item.seed) for item in batch],
        seconds=job.seconds,
        sampling=job.sampling,
        batch_size=job.batch_size,
        truncate=job.truncate,
    )
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda pair: _write_item(job, *pair), zip(batch, motions, strict=True)))


def _write_item(job: Job, item: Item, made: GeneratedMotion) -> dict[str, Any]:
    record: dict[str, Any] = {"prompt": item.prompt, "seed": item.seed, "stem": item.stem, "key": item.key}
    if len(made.motion) == 0:
        return {**record, "error": "the model ended before the first frame; try another seed"}
    formats = job.formats if "npy" in job.formats else ("npy", *job.formats)
    files = write_files(job.out / item.stem, made.motion, item.prompt, formats, get_representation(made.representation))
    return {
        **record,
        "frames": len(made.motion),
        "seconds": round(made.seconds, 3),
        "codes": len(made.tokens),
        "ended": made.ended,
        "text_tokens": made.text_tokens,
        "files": files,
    }


def _settings(job: Job, pipeline: TextToMotionPipeline, fingerprint: str) -> dict[str, Any]:
    """Everything that changes a motion but its prompt and seed."""
    return {
        "sampling": asdict(job.sampling),
        "seconds": job.seconds,
        "max_sample_steps": pipeline.max_sample_steps,
        "truncate": job.truncate,
        "model_hash": fingerprint,
        "formats": list(job.formats),
    }


def _items(job: Job, settings: dict[str, Any]) -> list[Item]:
    items = []
    digits = max(3, len(str(len(job.prompts))))
    rows = iter(seeded_rows([prompt for prompt in job.prompts for _ in range(job.num_motions)], job.seed))
    for number, prompt in enumerate(job.prompts):
        slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].rstrip("-") or "motion"
        for _ in range(job.num_motions):
            _, seed = next(rows)
            key = hashlib.sha256(json.dumps([prompt, seed, settings], sort_keys=True).encode()).hexdigest()[:16]
            items.append(Item(prompt, seed, f"{number:0{digits}d}_{slug}_s{seed}", key))
    return items


def _finished(job: Job, items: list[Item]) -> dict[str, dict[str, Any]]:
    """Records of an earlier run that still stand: same key and place, every file there and not empty."""
    path = job.out / MANIFEST
    if not path.is_file():
        return {}
    try:
        records = {record["key"]: record for record in read_json(path, max_bytes=1 << 30)["items"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a manifest of ours ({error}); choose another output folder") from error
    kept = {}
    for item in items:
        record = records.get(item.key)
        if record and "error" not in record and record["stem"] == item.stem:
            files = [job.out / name for name in record["files"]]
            if all(file.is_file() and file.stat().st_size for file in files):
                kept[item.key] = record
    return kept


def _versions() -> dict[str, str]:
    import torch
    import transformers

    return {
        "hftrainer": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
