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
from hftrainer.data.prepare.import_records import NAME, ImportRecords, append
from hftrainer.data.prepare.workers import run_all
from hftrainer.files import atomic_path, only_writer, sha256
from hftrainer.motion.io.read import SUFFIXES, companions
from hftrainer.motion.representation.base import DEFAULT
from hftrainer.readers import FileError, inside

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

    `origin` is the imported folder, seen from the data set, `source` the file's place below it, and `prefix` what the
    clip's name was given in front.
    """

    path: Path
    clip: str
    sha256: str
    origin: str
    source: str
    prefix: str


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
    whose file is gone or fails now leaves. It stays if it may be the settings that fail: if it was made with another
    skeleton, or if no file succeeds. Several sources may be imported into one folder, one after the other.
    """
    source = Path(source)
    earlier = source.is_dir() and (Path(out) / NAME).is_file()
    names, clashes = clip_names(source, prefix, may_be_empty=earlier)
    dataset = DatasetFolder(out, create=True)
    if dataset.representation != DEFAULT:
        raise FileError(
            f"{dataset.root} holds {dataset.representation} motions; imports make {DEFAULT}. Import into another "
            "folder, and convert that: hftrainer data convert-representation"
        )
    dataset.root.mkdir(parents=True, exist_ok=True)
    with only_writer(dataset.root):
        _remove_leftovers(dataset)
        records = ImportRecords(dataset.root)
        records.mend_end()
        report = ImportReport(failed=clashes)
        origin = os.path.relpath(source if source.is_dir() else source.parent, dataset.root)
        base = source if source.is_dir() else source.parent
        todo = _to_do(dataset, records, names, settings, origin, base, prefix, report)
        _remove_stale(dataset, records, names, source, origin, prefix, settings, report)
        if not (names or clashes or report.left):
            raise ValueError(_NO_FILES.format(source=str(source)))
        convert = partial(_convert_into, dataset.root, settings)
        failed: dict[Job, str] = {}
        results = run_all(convert, _begun(todo, records), workers, _died)
        for job, result in progress(results, len(todo)) if progress else results:
            if isinstance(result, str):
                failed[job] = result
            else:
                records.take(result)
                report.imported[job.clip] = result["frames"]
        for job, reason in failed.items():
            _take_failed(job, reason, dataset, records, settings, report)
        records.finish()
    mine = set(report.imported) | set(report.kept)
    report.records = {name: record for name, record in records.clips.items() if name in mine}
    return report


_NO_FILES = f"no motion files ({', '.join(SUFFIXES)}) below {{source!r}}"


def clip_names(source: Path, prefix: str = "", *, may_be_empty: bool = False) -> tuple[dict[Path, str], dict[str, str]]:
    """The clip of each motion file below `source`, and files that cannot have one, with the reason."""
    if source.is_dir():
        files = sorted(
            p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and p.name[0] != "."
        )
    else:
        files = [source] if source.is_file() else []
    if not files and not may_be_empty:
        raise ValueError(_NO_FILES.format(source=str(source)))
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
        name = "/".join(part.strip() for part in name.split("/"))  # split files are read without space around names
        try:
            inside(base, name, suffix=".npy", what=f"{path}: the clip's name")
            if name.casefold() in taken:
                raise FileError(f"{path}: {taken[name.casefold()].name} next to it would have the same clip name")
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
    prefix: str,
    report: ImportReport,
) -> list[Job]:  # fmt: skip
    """Files whose clip is not there, or was made from something else; the others are kept."""
    todo = []
    for path, name in names.items():
        record = records.clips.get(name)
        try:
            job = Job(path, name, _hash(path), origin, path.relative_to(base).as_posix(), prefix)
        except (OSError, ValueError) as error:
            job = Job(path, name, f"{_UNREADABLE}{error}", origin, path.relative_to(base).as_posix(), prefix)
        if record is None:
            if dataset.motion_path(name).exists():
                report.failed[str(path)] = _NOT_OURS.format(clip=name)
                continue
        elif record["from"] != origin and not _same_source(dataset.root, record, job):
            report.failed[str(path)] = _OTHER.format(clip=name, other=record["from"])
            continue
        elif _fits(dataset, record, job, settings):
            report.kept[name] = record["frames"]
            now = {"from": origin, "source": job.source, "prefix": prefix}
            if {**record, **now} != record:
                records.add({**record, **now})
            continue
        todo.append(job)
    return todo


_UNREADABLE = "unreadable: "  # in the place of a hash
_NOT_OURS = (
    "clip {clip!r} is already in the dataset, but was not imported; remove it, or use --prefix to distinguish the two"
)
_OTHER = "clip {clip!r} was imported from {other!r}; use --prefix to distinguish the two, or choose another --out"


def _same_source(root: Path, record: dict[str, Any], job: Job) -> bool:
    """Whether a clip's recorded file is this one: in the same place, or with the same content where that is gone."""
    recorded = _recorded_file(root, record)
    if recorded.is_file():
        return recorded.resolve() == job.path.resolve()
    return bool(record.get("sha256", job.sha256) == job.sha256)


def _recorded_file(root: Path, record: dict[str, Any]) -> Path:
    return Path(os.path.normpath(root.resolve() / record["from"] / record.get("source", "")))


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
            records.add(
                {"clip": job.clip, "from": job.origin, "source": job.source, "prefix": job.prefix, "begun": True}
            )
        yield job


def _take_failed(
    job: Job, reason: str, dataset: DatasetFolder, records: ImportRecords, settings: ImportSettings,
    report: ImportReport,
) -> None:  # fmt: skip
    """A clip whose file fails leaves, unless it is the settings that may be wrong and not the file."""
    record, path = records.clips.get(job.clip, {}), dataset.motion_path(job.clip)
    unchanged = "sha256" in record and (record["sha256"] == job.sha256 or job.sha256.startswith(_UNREADABLE))
    none_succeeded = not (report.imported or report.kept)
    if unchanged and path.exists() and (none_succeeded or record.get("skeleton") != settings.skeleton.name):
        report.failed[str(job.path)] = f"{reason}; its clip from an earlier import was left as it is"
        return
    report.failed[str(job.path)] = reason
    if path.exists():
        path.unlink()
        report.left.append(job.clip)
    records.add({"clip": job.clip, "removed": True})


def _convert_into(root: Path, settings: ImportSettings, job: Job) -> dict[str, Any] | str:
    """Write a clip and its record; what was wrong. One bad file, whatever is bad about it, never ends an import."""
    if job.sha256.startswith(_UNREADABLE):
        return job.sha256.removeprefix(_UNREADABLE)
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
        "clip": job.clip, "from": job.origin, "source": job.source, "prefix": job.prefix, "sha256": job.sha256,
        "skeleton": settings.skeleton.name, "key": settings.key(job.clip), **as_record(made),
        "motion_sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    append(root, record)
    return record


def _died(job: Job) -> str:
    return f"{job.path}: the process that read it died; is the file too large for memory?"


def _remove_stale(
    dataset: DatasetFolder, records: ImportRecords, names: dict[Path, str], source: Path, origin: str, prefix: str,
    settings: ImportSettings, report: ImportReport,
) -> None:  # fmt: skip
    """Clips of an earlier import leave if their file in this folder is gone or now has a clip of another name.

    Clips that were imported with another prefix stay; so do those of another skeleton whose file is there.
    """
    if not source.is_dir():
        return
    ours, skeleton, folder = set(names.values()), settings.skeleton.name, source.resolve()
    for name, record in list(records.clips.items()):
        if name in ours or record.get("prefix", prefix) != prefix:
            continue
        file = _recorded_file(dataset.root, record)
        if file.is_file():
            stale = record["from"] == origin and record.get("skeleton", skeleton) == skeleton
        else:
            stale = record["from"] == origin or file.is_relative_to(folder)
        if stale:
            dataset.motion_path(name).unlink(missing_ok=True)
            records.add({"clip": name, "removed": True})
            report.left.append(name)


def _remove_leftovers(dataset: DatasetFolder) -> None:
    """Temporary files of a killed import; nobody else writes motions while the folder is held."""
    if dataset.motions.is_dir():
        for path in dataset.motions.rglob(".*.part.npy"):
            path.unlink(missing_ok=True)
