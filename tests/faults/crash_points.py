"""Run by tests: a job in a child that is ended at its k-th operation on the file system, for every k.

The shim is an audit hook of the interpreter: opening, renaming, removing, making and changing files all pass through
it, in our code and in the standard library. The child ends by `os._exit` there, as SIGKILL would end it: nothing of its
cleaning up runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.link", "tempfile")
KILLED = 9


def count_and_end(root: Path, point: int) -> None:
    """End this process before its operation number `point` (from 0) below `root`."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event.startswith(EVENTS) and any(
            str(root) in str(a) for a in arguments if isinstance(a, (str, bytes, os.PathLike))
        ):
            if seen == point:
                os._exit(KILLED)
            seen += 1

    sys.addaudithook(hook)


def end_at(root: Path, point: int, job: Callable[[], None]) -> bool:
    """Run `job` in a child that is ended at an operation; whether it came that far. The job must not fail."""
    pid = os.fork()
    if pid == 0:
        try:
            count_and_end(root, point)
            job()
        except BaseException as error:  # noqa: BLE001 -- a child of fork must not return
            print(f"point {point}: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, KILLED), f"the job failed at point {point} with {status}"
    return status == KILLED


def read(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


OLD, NEW = {"a": "old", "sub/b": "old"}, {"a": "new", "sub/b": "new", "c": "new"}


def put(folder: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def folders(root: Path, *, exchange: bool) -> int:
    """Every crash of `atomic_folder`, and every crash of the run after it; how many there were."""
    from hftrainer import files

    if not exchange:
        files._renameat2 = lambda: None  # type: ignore[assignment]
    target = root / "artifact"

    def write() -> None:
        with files.atomic_folder(target) as staging:
            put(staging, NEW)

    crashes, first = 0, 0
    while True:
        second, more = 0, True
        while True:
            for path in list(root.iterdir()):
                os.rename(path, root.parent / f"gone-{crashes}-{path.name}")
            put(target, OLD)
            more = end_at(root, first, write)
            check(target, exchange)
            if not more or not end_at(root, second, write):
                break
            check(target, exchange)
            crashes += 1
            write_and_look(root, target, write)
            second += 1
        files._swept.clear()
        write_and_look(root, target, write)
        crashes += 1
        if not more:
            return crashes
        first += 1


def check(target: Path, exchange: bool) -> None:
    """After a crash: the old folder or the new one, complete; without exchange it may be put aside, complete."""
    if not exchange and not target.exists():
        target = target.with_name(f".{target.name}-old")
    assert read(target) in (OLD, NEW), read(target)


def write_and_look(root: Path, target: Path, write: Callable[[], None]) -> None:
    from hftrainer import files

    files._swept.clear()
    write()
    assert read(target) == NEW
    assert [path.name for path in root.iterdir()] == [target.name], list(root.iterdir())


def paths(root: Path) -> int:
    """Every crash of `atomic_path`."""
    from hftrainer import files

    target, crashes = root / "a.txt", 0
    for old in (None, "old"):
        point = 0
        while True:
            target.unlink(missing_ok=True)
            if old is not None:
                target.write_text(old)
            more = end_at(root, point, lambda: files.write_text(target, "new" * 10_000))
            found = target.read_text() if target.exists() else None
            assert found in (old, "new" * 10_000)
            files._swept.clear()
            files.write_text(target, "new")
            assert [path.name for path in root.iterdir()] == ["a.txt"], list(root.iterdir())
            crashes += 1
            if not more:
                break
            point += 1
    return crashes


def probes(root: Path) -> int:
    """Every crash of `check_writable`, whose file must not stay in the results."""
    from hftrainer import files

    crashes = 0
    while end_at(root, crashes, lambda: files.check_writable(root)):
        files._swept.clear()
        files.check_writable(root)
        assert not list(root.iterdir()), list(root.iterdir())
        crashes += 1
    return crashes


if __name__ == "__main__":
    jobs: dict[str, Callable[[Path], int]] = {
        "paths": paths,
        "probes": probes,
        "folders": lambda root: folders(root, exchange=True),
        "folders-by-two-renames": lambda root: folders(root, exchange=False),
    }
    place = Path(sys.argv[2]) / "root"
    place.mkdir()
    print(jobs[sys.argv[1]](place))
