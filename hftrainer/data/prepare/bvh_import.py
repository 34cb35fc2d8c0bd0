"""BVH files to a dataset folder: read, retarget to SMPL-22, encode; a file that fails is reported and skipped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.files import sha256, write_json
from hftrainer.motion.io.bvh import read_bvh
from hftrainer.motion.io.source import MotionFileError
from hftrainer.motion.representation import motion272
from hftrainer.motion.retarget import retarget
from hftrainer.motion.skeleton_map import SkeletonMap


@dataclass
class ImportReport:
    """What became of each file: `imported` and `kept` (unchanged since an earlier run) by name, `failed` by path."""

    imported: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def import_bvh(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    skeleton: SkeletonMap,
    *,
    workers: int = 1,
    progress: Callable[[Iterator[tuple[str, int | str]], int], Iterator[tuple[str, int | str]]] | None = None,
) -> ImportReport:
    """Convert every ``*.bvh`` below `source` into `out`/motion_data.

    A clip is named by its file's stem, or by its path below `source` where stems repeat. import.json in `out` records
    the source, its hash and the skeleton map of each clip; a clip whose record still fits is not made again.
    """
    source = Path(source)
    files = sorted(source.rglob("*.bvh")) if source.is_dir() else [source] if source.is_file() else []
    if not files:
        raise ValueError(f"there are no .bvh files below {str(source)!r}")
    dataset = DatasetFolder(out, create=True)
    names = _clip_names(files, source)
    manifest_path = dataset.root / "import.json"
    manifest = json.loads(manifest_path.read_text()) if manifest_path.is_file() else {"clips": {}}

    report = ImportReport()
    todo: dict[Path, str] = {}
    for path in files:
        record, name = manifest["clips"].get(names[path]), names[path]
        fits = record and record["skeleton"] == skeleton.name and dataset.motion_path(name).is_file()
        if fits and record["sha256"] == sha256(path):
            report.kept[name] = record["frames"]
        else:
            todo[path] = name

    convert = partial(_convert_into, dataset.root, skeleton)
    with ProcessPoolExecutor(workers) if workers > 1 else _InThisProcess() as pool:
        results = zip(todo, pool.map(convert, todo.items()), strict=True)
        steps: Iterator[tuple[str, int | str]] = ((str(path), result) for path, result in results)
        for file, result in progress(steps, len(todo)) if progress else steps:
            path, name = Path(file), todo[Path(file)]
            if isinstance(result, str):
                report.failed[file] = result
                manifest["clips"].pop(name, None)
            else:
                report.imported[name] = result
                manifest["clips"][name] = {
                    "source": os.path.relpath(path, source if source.is_dir() else source.parent),
                    "sha256": sha256(path),
                    "skeleton": skeleton.name,
                    "frames": result,
                }
    manifest["failed"] = report.failed
    write_json(manifest_path, manifest)
    return report


def convert_bvh(path: str | os.PathLike[str], skeleton: SkeletonMap) -> np.ndarray:
    """One file as motion272 (frames, 272) float32 at 30 fps."""
    clip = retarget(read_bvh(path), skeleton, source=str(path))
    return motion272.from_joints_and_rotations(clip.joints, clip.rotations).astype(np.float32)  # type: ignore[no-any-return]


def _convert_into(root: Path, skeleton: SkeletonMap, item: tuple[Path, str]) -> int | str:
    """Frames written, or what was wrong; a string because it has to travel between processes."""
    path, name = item
    try:
        motion = convert_bvh(path, skeleton)
    except (MotionFileError, OSError) as error:
        return str(error)
    DatasetFolder(root, create=True).write_motion(name, motion)
    return len(motion)


def _clip_names(files: list[Path], source: Path) -> dict[Path, str]:
    stems: dict[str, int] = {}
    for path in files:
        stems[path.stem] = stems.get(path.stem, 0) + 1
    base = source if source.is_dir() else source.parent
    return {p: p.stem if stems[p.stem] == 1 else str(p.relative_to(base).with_suffix("")) for p in files}


class _InThisProcess:
    """Stands in for a pool when one process does the work."""

    map = staticmethod(map)

    def __enter__(self) -> _InThisProcess:
        return self

    def __exit__(self, *error: object) -> None:
        return None
