"""Motion files to a dataset folder; a file that fails is reported and skipped, and a rerun makes what has changed."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.convert_motion import ImportSettings, as_record, convert_motion
from hftrainer.data.prepare.import_records import ImportRecords, append, only_import
from hftrainer.data.prepare.workers import run_all
from hftrainer.files import atomic_path, sha256
from hftrainer.motion.io.read import SUFFIXES, companions
from hftrainer.motion.representation.base import DEFAULT
from hftrainer.readers import inside

Progress = Callable[..., Iterable[Any]]


@dataclass
class ImportReport:
    """What became of each file: `imported` and `kept` (unchanged since an earlier run) with frames by clip, `failed` by
    path, clips that `left` because their file is gone or fails now, and `records` of all clips of this import."""

    imported: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A file and the clip that it becomes; `sha256` is of the file and of what else it is read from.

    `origin` is the imported folder, seen from the data set, and `source` the file's place below it.
    """

    path: Path
    clip: str
    sha256: str
    origin: str
    source: str


def import_motions(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: ImportSettings,
    *,
    prefix: str = "",
    workers: int = 1,
    progress: Progress | None = None,
) -> ImportReport:
    """Convert every motion file below `source` into `out`/motion_data.

    A clip is named `prefix` and its file's stem, or its path below `source` where stems repeat. import.jsonl in `out`
    says what each clip was made from; one whose file, map, options and code are the same is not made again, and one
    whose file is gone or fails now leaves. Several sources may be imported into one folder, one after the other.
    """
    source = Path(source)
    names, clashes = clip_names(source, prefix)
    dataset = DatasetFolder(out, create=True)
    if dataset.representation != DEFAULT:
        raise ValueError(
            f"{dataset.root} holds {dataset.representation} motions; imports make {DEFAULT}. Import into another "
            "folder, and convert that: hftrainer data convert-representation"
        )
    dataset.root.mkdir(parents=True, exist_ok=True)
    with only_import(dataset.root):
        _remove_leftovers(dataset)
        records = ImportRecords(dataset.root)
        records.mend_end()
        report = ImportReport(failed=clashes)
        origin = os.path.relpath(source if source.is_dir() else source.parent, dataset.root)
        base = source if source.is_dir() else source.parent
        todo = _to_do(dataset, records, names, settings, origin, base, report)
        _remove_stale(dataset, records, names, source, origin, report)
        convert = partial(_convert_into, dataset.root, settings)
        results = run_all(convert, _begun(todo, records), workers, _died)
        for job, result in progress(results, len(todo)) if progress else results:
            _take(job, result, dataset, records, report)
        records.finish()
    mine = set(report.imported) | set(report.kept)
    report.records = {name: record for name, record in records.clips.items() if name in mine}
    return report


def clip_names(source: Path, prefix: str = "") -> tuple[dict[Path, str], dict[str, str]]:
    """The clip of each motion file below `source`, and files that cannot have one, with the reason."""
    if source.is_dir():
        files = sorted(
            p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and p.name[0] != "."
        )
    else:
        files = [source] if source.is_file() else []
    if not files:
        raise ValueError(f"no motion files ({', '.join(SUFFIXES)}) below {str(source)!r}")
    base = source if source.is_dir() else source.parent
    stems: dict[str, int] = {}
    for path in files:
        stems[path.stem.casefold()] = stems.get(path.stem.casefold(), 0) + 1
    names: dict[Path, str] = {}
    clashes: dict[str, str] = {}
    taken: dict[str, Path] = {}
    for path in files:
        alone = stems[path.stem.casefold()] == 1
        name = prefix + (path.stem if alone else path.relative_to(base).with_suffix("").as_posix())
        try:
            inside(base, name, suffix=".npy", what=f"{path}: the clip's name")
            if name.casefold() in taken:
                raise ValueError(f"{path}: {taken[name.casefold()].name} next to it would have the same clip name")
        except ValueError as error:
            clashes[str(path)] = str(error)
            continue
        taken[name.casefold()] = path
        names[path] = name
    return names, clashes


def _to_do(
    dataset: DatasetFolder,
    records: ImportRecords,
    names: dict[Path, str],
    settings: ImportSettings,
    origin: str,
    base: Path,
    report: ImportReport,
) -> list[Job]:  # fmt: skip
    """Files whose clip is not there, or was made from something else; the others are kept."""
    todo = []
    for path, name in names.items():
        record = records.clips.get(name)
        try:
            job = Job(path, name, _hash(path), origin, path.relative_to(base).as_posix())
        except (OSError, ValueError) as error:
            todo.append(Job(path, name, f"unreadable: {error}", origin, path.name))
            continue
        if record is None:
            if dataset.motion_path(name).exists():
                report.failed[str(path)] = _NOT_OURS.format(clip=name)
                continue
        elif record["from"] != origin and not _same_source(dataset.root, record, path):
            report.failed[str(path)] = _OTHER.format(clip=name, other=record["from"])
            continue
        elif _fits(dataset, record, job, settings):
            report.kept[name] = record["frames"]
            if record["from"] != origin:
                records.add({**record, "from": origin})
            continue
        todo.append(job)
    return todo


_NOT_OURS = (
    "clip {clip!r} is already in the dataset, but was not imported; remove it, or use --prefix to distinguish the two"
)
_OTHER = "clip {clip!r} was imported from {other!r}; use --prefix to distinguish the two, or choose another --out"


def _same_source(root: Path, record: dict[str, Any], path: Path) -> bool:
    """Whether a clip's recorded file is this one, or is gone (its folder was moved)."""
    recorded = root / record["from"] / record.get("source", "")
    return not recorded.exists() or recorded.resolve() == path.resolve()


def _fits(dataset: DatasetFolder, record: dict[str, Any], job: Job, settings: ImportSettings) -> bool:
    """Whether a clip was made from this very file in this very way, and is as it was made."""
    if record.get("key") != settings.key(job.clip) or record.get("sha256") != job.sha256:
        return False
    path = dataset.motion_path(job.clip)
    return path.is_file() and record.get("motion_sha256") == sha256(path)


def _hash(path: Path) -> str:
    others = companions(path)
    if not others:
        return sha256(path)
    return hashlib.sha256("".join(sha256(p) for p in [path, *others]).encode()).hexdigest()


def _begun(todo: list[Job], records: ImportRecords) -> Iterator[Job]:
    """The jobs; a clip that is about to be written is noted as this import's."""
    for job in todo:
        if job.clip not in records.clips:
            records.add({"clip": job.clip, "from": job.origin, "source": job.source, "begun": True})
        yield job


def _take(
    job: Job, result: dict[str, Any] | str, dataset: DatasetFolder, records: ImportRecords, report: ImportReport
) -> None:
    if isinstance(result, str):
        report.failed[str(job.path)] = result
        if dataset.motion_path(job.clip).exists():
            dataset.motion_path(job.clip).unlink()
            report.left.append(job.clip)
        records.add({"clip": job.clip, "removed": True})
        return
    records.take(result)
    report.imported[job.clip] = result["frames"]


def _convert_into(root: Path, settings: ImportSettings, job: Job) -> dict[str, Any] | str:
    """Write a clip and its record; what was wrong. One bad file, whatever is bad about it, never ends an import."""
    if job.sha256.startswith("unreadable: "):
        return job.sha256.removeprefix("unreadable: ")
    try:
        made = convert_motion(job.path, settings, job.clip)
        stream = io.BytesIO()
        np.save(stream, made.motion)
        data = stream.getvalue()
        with atomic_path(DatasetFolder(root, create=True).motion_path(job.clip)) as temporary:
            temporary.write_bytes(data)
    except (ValueError, ImportError) as error:
        return str(error)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # every other file would fail too
            raise
        return f"{job.path}: {error}"
    except MemoryError:
        return f"{job.path}: not enough memory"
    except Exception as error:  # noqa: BLE001 - a fault of ours in one file must not cost the others
        return f"{job.path}: cannot be read ({type(error).__name__}: {error})"
    record = {
        "clip": job.clip, "from": job.origin, "source": job.source, "sha256": job.sha256,
        "skeleton": settings.skeleton.name, "key": settings.key(job.clip), **as_record(made),
        "motion_sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    append(root, record)
    return record


def _died(job: Job) -> str:
    return f"{job.path}: the process that read it died; is the file too large for memory?"


def _remove_stale(
    dataset: DatasetFolder, records: ImportRecords, names: dict[Path, str], source: Path, origin: str,
    report: ImportReport,
) -> None:  # fmt: skip
    """Clips of an earlier import of this folder whose files are gone leave it."""
    if not source.is_dir():
        return
    for name in [n for n, r in records.clips.items() if r["from"] == origin and n not in set(names.values())]:
        dataset.motion_path(name).unlink(missing_ok=True)
        records.add({"clip": name, "removed": True})
        report.left.append(name)


def _remove_leftovers(dataset: DatasetFolder) -> None:
    """Temporary files of a killed import; nobody else writes motions while the folder is held."""
    if dataset.motions.is_dir():
        for path in dataset.motions.rglob(".*.part.npy"):
            path.unlink(missing_ok=True)
