"""The files of generated motions: one set a motion, a page that plays all of them, and a manifest beside.

The manifest is written as batches are finished, so an interrupted run continues where it stopped: an item whose
prompt, seed, settings and model are those of a finished one, and whose files are there, is kept. Motions of earlier
runs into the same folder stay in the manifest and on the page.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.arrays import read_npy
from hftrainer.files import Sparingly, only_writer, sha256, write_json
from hftrainer.motion.body import Body, BodyMotion, smpl_body
from hftrainer.motion.fit import pose
from hftrainer.motion.io.read_body import read_motions
from hftrainer.motion.representation.base import DEFAULT
from hftrainer.pipelines.base import GeneratedMotion, TextToMotionPipeline
from hftrainer.pipelines.folder import MANIFEST as MANIFEST
from hftrainer.pipelines.folder import PAGE as PAGE
from hftrainer.pipelines.folder import Item, existing, wanted
from hftrainer.readers import parse_json
from hftrainer.render.export import ENDINGS, ExportOptions, check_formats, write, write_features
from hftrainer.render.viewer import clip_of, write_viewer
from hftrainer.requests import SamplingParams
from hftrainer.version import __version__

FORMATS = ("npy", "npz", "bvh", "glb", "mp4", "html")  # what is written unless something else is asked for
_MOST_IN_A_VIDEO = 4


@dataclass
class Job:
    """What is to be made: `num_motions` of each prompt, into `out`, with these files.

    `options`: how motions are written, but for the .npy, which always holds the model's own features; `raw`: files show
    them without smoothing and foot locking. `timelines`: for a prompt that stands for several, the parts (prompt,
    seconds) of its motion; `loaded`: how the model was loaded, as far as that changes its motions (dtype, ...).
    """

    prompts: list[str]
    out: Path
    num_motions: int = 1
    seed: int = 0
    seconds: float | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    formats: tuple[str, ...] = FORMATS
    batch_size: int = 16
    truncate: bool = False
    options: ExportOptions = field(default_factory=ExportOptions)
    raw: bool = False
    timelines: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    loaded: dict[str, Any] = field(default_factory=dict)


def run_job(
    pipeline: TextToMotionPipeline,
    job: Job,
    *,
    model: str,
    fingerprint: str,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, Any]:
    """Make what is missing and write the page; the manifest with the items of this job.

    Failed items are in it with their error. The file has the items of earlier runs, too. ``ValueError`` if another
    process makes motions in the folder.
    """
    check_formats(job.formats, job.options)
    with only_writer(job.out):
        return _run_job(pipeline, job, model, fingerprint, progress)


def _run_job(
    pipeline: TextToMotionPipeline,
    job: Job,
    model: str,
    fingerprint: str,
    progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> dict[str, Any]:
    settings = parse_json(json.dumps(_settings(job, pipeline, fingerprint)), MANIFEST)  # as it gives them back
    before = existing(job.out)
    items = wanted(job.prompts, job.num_motions, job.seed, settings, before["items"])
    records: dict[str, dict[str, Any]] = {record["key"]: record for record in before["items"]}
    manifest: dict[str, Any] = {
        "model": model,
        "model_hash": fingerprint,
        "settings": settings,
        "fps": pipeline.motion_format.fps,
        "representation": pipeline.representation,
        "versions": _versions(),
        "runs": [run for run in before["runs"] if run.get("settings") != settings]
        + [{"model": model, "settings": settings}],
        **({"videos": before["videos"]} if before["videos"] else {}),
    }
    todo, sparingly = [item for item in items if item.key not in records], Sparingly()

    def note() -> None:
        write_json(job.out / MANIFEST, {**manifest, "items": _in_order(records)})

    try:
        for start in progress(range(0, len(todo), job.batch_size)):
            batch = todo[start : start + job.batch_size]
            for item, record in zip(batch, _make_batch(pipeline, job, batch), strict=True):
                records[item.key] = record
            sparingly.call(note)
    finally:
        if sparingly.left_out:
            note()
    body = getattr(pipeline.bundle, "body", None)
    if videos := before["videos"] | _side_by_side(job, items, records, before["videos"], body or smpl_body()):
        manifest["videos"] = videos
    if "html" in job.formats:
        write_page(job.out, list(_in_order(records)), model, body)
    write_json(job.out / MANIFEST, {**manifest, "items": _in_order(records)})
    return {**manifest, "items": [records[item.key] for item in items]}


def write_files(
    stem: Path,
    made: GeneratedMotion,
    formats: Sequence[str],
    *,
    options: ExportOptions | None = None,
    raw: bool = False,
) -> tuple[list[str], BodyMotion]:
    """Write one motion as `stem` + ending for each format but html, which is one page for all.

    Gives the file names, and the motion that the files show.
    """
    options = options or ExportOptions()
    paths = {name: stem.with_name(stem.name + ENDINGS.get(name, f".{name}")) for name in formats if name != "html"}
    if "npy" in paths:  # before the motion is fitted to its body, which the others wait for
        write_features(paths["npy"], made.motion)
    shown = options.apply(made.posed(raw=raw), raw=raw)
    for name, path in paths.items():
        if name != "npy":
            write(path, [shown], options, titles=[made.prompt], kind=name, raw=raw)
    return [path.name for path in paths.values()], shown


def write_page(out: Path, records: Sequence[dict[str, Any]], model: str, body: Body | None) -> None:
    """The page that plays every motion of a folder."""
    clips = []
    for record in records:
        if "error" in record:
            continue
        shown = _shown_again(out, record, body or smpl_body())
        notes = {"seed": str(record["seed"]), "length": f"{shown.seconds:.1f} s", "end": ending(record)}
        if record.get("known") is False:
            notes["known"] = f"no; nearest: {', '.join(record.get('nearest', []))}" if record.get("nearest") else "no"
        ends = [(name, name.removeprefix(record["stem"] + ".")) for name in record["files"]]
        files = {end: name for name, end in ends if end != "npy"}
        clips.append(clip_of(shown, record["prompt"], notes, files=files))
    if clips:
        write_viewer(out / PAGE, clips, title=f"{model}: {len(clips)} motion{'s' if len(clips) > 1 else ''}")


def ending(record: dict[str, Any]) -> str:
    """How a motion came to its end, in words."""
    if record.get("ended"):
        return "by itself"
    return "as asked" if record.get("asked") else "at the model's limit"


def _shown_again(out: Path, record: dict[str, Any], body: Body) -> BodyMotion:
    """The motion that a record's files show: from its .npz, or fitted again with the record's options."""
    arrays = out / f"{record['stem']}.npz"
    if arrays.name in record["files"]:
        return read_motions(arrays)[0][1]
    features = read_npy(out / f"{record['stem']}.npy")
    raw = record.get("raw", False)
    fitted = pose(features, body, representation=record.get("representation", DEFAULT), raw=raw)
    return ExportOptions(**record.get("options", {})).apply(fitted, raw=raw)


def _make_batch(pipeline: TextToMotionPipeline, job: Job, batch: list[Item]) -> list[dict[str, Any]]:
    """Generate together, and write the files of each motion as it gets ready, in threads: encoding waits for ffmpeg."""
    records: dict[int, Future[dict[str, Any]]] = {}
    pool = ThreadPoolExecutor(2)

    def written(motions: Iterable[tuple[int, GeneratedMotion]]) -> Iterator[tuple[int, GeneratedMotion]]:
        for number, made in motions:
            records[number] = pool.submit(_write_item, job, batch[number], made)
            yield number, made

    try:
        if job.timelines:
            for _ in written((number, _timeline(pipeline, job, item)) for number, item in enumerate(batch)):
                pass
        else:
            pipeline.generate_rows(
                [(item.prompt, item.seed) for item in batch],
                seconds=job.seconds,
                sampling=job.sampling,
                batch_size=job.batch_size,
                truncate=job.truncate,
                progress=written,
            )
        return [records[number].result() for number in range(len(batch))]
    finally:
        pool.shutdown(cancel_futures=True)  # what was not begun when something failed is not waited for


def _timeline(pipeline: TextToMotionPipeline, job: Job, item: Item) -> GeneratedMotion:
    timeline = getattr(pipeline, "timeline", None)
    if timeline is None:
        raise ValueError(f"{type(pipeline).__name__} generates one motion per prompt, and no timelines (--then)")
    made: GeneratedMotion = timeline(job.timelines[item.prompt], seed=item.seed, sampling=job.sampling)
    return made


def _write_item(job: Job, item: Item, made: GeneratedMotion) -> dict[str, Any]:
    record: dict[str, Any] = {"prompt": item.prompt, "seed": item.seed, "stem": item.stem, "key": item.key}
    if len(made.motion) == 0:
        return {**record, "error": "the model ended before the first frame; try another seed"}
    formats = job.formats if "npy" in job.formats else ("npy", *job.formats)
    try:
        files, _ = write_files(job.out / item.stem, made, formats, options=job.options, raw=job.raw)
    except ValueError as error:  # a loop of a clip that is too short: the others are still made
        return {**record, "error": str(error)}
    return {
        **record,
        "frames": len(made.motion),
        "seconds": round(made.seconds, 3),
        "codes": len(made.tokens),
        "ended": made.ended,
        "asked": job.seconds is not None or bool(job.timelines) or made.prompt_seconds is not None,
        "text_tokens": made.text_tokens,
        "known": made.known,
        "similarity": made.similarity,
        "nearest": list(made.nearest),
        "warnings": list(made.warnings),
        "prompt_seconds": made.prompt_seconds,
        "representation": made.representation,
        "options": asdict(job.options),
        "raw": job.raw,
        "files": files,
        "sha256": {name: sha256(job.out / name) for name in files},
    }


def _side_by_side(
    job: Job, items: Sequence[Item], records: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]], body: Body
) -> dict[str, dict[str, Any]]:
    """With several motions a prompt, one more video that has them side by side; those of this job, by name, with the
    keys of their motions and their hash. One that is as it was made, of these motions, is kept.

    It is named after the first motion, so that runs with other seeds or settings keep theirs.
    """
    if "mp4" not in job.formats or job.num_motions < 2:
        return {}
    videos = {}
    for prompt in sorted({item.prompt for item in items}):
        of_prompt = {item.key: records[item.key] for item in items if item.prompt == prompt}
        made = {key: record for key, record in of_prompt.items() if "error" not in record}
        if not 2 <= len(made) <= _MOST_IN_A_VIDEO:
            continue
        path = job.out / f"{next(iter(made.values()))['stem']}_all.mp4"
        known = before.get(path.name, {})
        if not (known.get("of") == list(made) and path.is_file() and known.get("sha256") == sha256(path)):
            motions = [_shown_again(job.out, record, body) for record in made.values()]
            write(path, motions, job.options, titles=[prompt] + [""] * (len(motions) - 1), kind="mp4")
        videos[path.name] = {"of": list(made), "sha256": sha256(path)}
    return videos


def _in_order(records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records.values(), key=lambda record: str(record["stem"]))


def _settings(job: Job, pipeline: TextToMotionPipeline, fingerprint: str) -> dict[str, Any]:
    """Everything that changes a motion's files but its prompt and seed."""
    return {
        "sampling": job.sampling.record(),
        "seconds": job.seconds,
        "max_sample_steps": pipeline.max_sample_steps,
        "truncate": job.truncate,
        "model_hash": fingerprint,
        "formats": list(job.formats),
        "options": asdict(job.options),
        "raw": job.raw,
        **({"timelines": job.timelines} if job.timelines else {}),
        **({"loaded": job.loaded} if job.loaded else {}),
    }


def _versions() -> dict[str, str]:
    import torch

    return {
        "hftrainer": __version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),  # which importing would take longer than all the rest
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
