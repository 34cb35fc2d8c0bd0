"""Imports follow their inputs: what changed is made again, what is gone leaves, kills and bad files cost one clip."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare import convert_motion
from hftrainer.data.prepare.convert_motion import ImportSettings
from hftrainer.data.prepare.import_records import ImportRecords
from hftrainer.data.prepare.motion_import import import_motions
from hftrainer.data.prepare.verify import verify
from hftrainer.data.prepare.workers import run_all
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.files import only_writer
from hftrainer.motion.skeleton_map import SHIPPED, load_map
from tests.clips import write_clip

SMPL = ImportSettings(load_map("smpl22"))


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "source"
    for name, action in (("a/walk", "walk"), ("b/walk", "wave"), ("stand", "turn-left")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_clip(folder / f"{name}.bvh", make_motion(action, 60, 0))
    return folder


def content(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def test_unchanged_clips_are_kept_and_changed_ones_made_again(source, tmp_path):
    out = tmp_path / "out"
    assert import_motions(source, out, SMPL).imported == {"a/walk": 60, "b/walk": 60, "stand": 60}
    assert sorted(import_motions(source, out, SMPL).kept) == ["a/walk", "b/walk", "stand"]
    write_clip(source / "b" / "walk.bvh", make_motion("wave", 50, 0))
    assert import_motions(source, out, SMPL).imported == {"b/walk": 50}
    # an emptied motion file
    DatasetFolder(out).motion_path("stand").write_bytes(b"")
    assert list(import_motions(source, out, SMPL).imported) == ["stand"]


def test_an_edited_map_and_other_options_make_all_clips_again(source, tmp_path):
    out, path = tmp_path / "out", tmp_path / "map.yaml"
    path.write_text((SHIPPED / "smpl22.yaml").read_text())
    import_motions(source, out, ImportSettings(load_map(path)))
    before = DatasetFolder(out).motion("stand")
    path.write_text(path.read_text().replace("0.01", "0.012"))
    assert len(import_motions(source, out, ImportSettings(load_map(path))).imported) == 3
    assert not np.allclose(DatasetFolder(out).motion("stand"), before)
    faster = ImportSettings(load_map(path), recorded_fps={"stand": 60.0})
    assert import_motions(source, out, faster).imported == {"stand": 30}


def test_other_code_makes_all_clips_again(source, tmp_path, monkeypatch):
    import_motions(source, tmp_path / "out", SMPL)
    monkeypatch.setattr(convert_motion, "_code", lambda: "another version")
    assert len(import_motions(source, tmp_path / "out", SMPL).imported) == 3


def test_clips_leave_with_their_files(source, tmp_path):
    out = tmp_path / "out"
    import_motions(source, out, SMPL)
    (source / "stand.bvh").rename(source / "renamed.bvh")
    (source / "a" / "walk.bvh").unlink()
    (source / "b" / "walk.bvh").write_text("no motion")
    report = import_motions(source, out, SMPL)
    assert DatasetFolder(out).names() == ["renamed"]
    assert sorted(report.left) == ["a/walk", "b/walk", "stand"] or sorted(report.left) == ["a/walk", "stand", "walk"]
    assert len(report.failed) == 1


def test_several_folders_into_one_and_names_that_collide(source, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    write_clip(other / "stand.bvh", make_motion("wave", 40, 1))
    import_motions(source, out, SMPL)
    report = import_motions(other, out, SMPL)
    assert "use --prefix to distinguish the two" in next(iter(report.failed.values()))
    assert import_motions(other, out, SMPL, prefix="other/").imported == {"other/stand": 40}
    assert len(DatasetFolder(out).names()) == 4
    assert sorted(import_motions(source, out, SMPL).kept) == ["a/walk", "b/walk", "stand"]
    # one file of a folder does not send the others away
    assert import_motions(source / "stand.bvh", out, SMPL).left == []
    assert len(DatasetFolder(out).names()) == 4


def test_a_folder_that_was_moved_keeps_its_clips(source, tmp_path):
    import_motions(source, tmp_path / "out", SMPL)
    moved = source.rename(tmp_path / "moved")
    assert len(import_motions(moved, tmp_path / "out", SMPL).kept) == 3


def test_another_folder_does_not_overwrite_clips_of_one_that_is_gone_or_was_moved(source, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    write_clip(other / "stand.bvh", make_motion("wave", 40, 1))
    import_motions(source, out, SMPL)
    moved = source.rename(tmp_path / "moved")
    assert "use --prefix" in next(iter(import_motions(other, out, SMPL).failed.values()))
    # adopted from a folder below, where its place in the records is another
    (moved / "below").mkdir()
    (moved / "stand.bvh").rename(moved / "below" / "stand.bvh")
    assert list(import_motions(moved / "below", out, SMPL).kept) == ["stand"]
    assert "use --prefix" in next(iter(import_motions(other, out, SMPL).failed.values()))
    assert len(DatasetFolder(out).motion("stand")) == 60


def test_a_clip_leaves_with_its_file_when_imported_folders_overlap(source, tmp_path):
    out = tmp_path / "out"
    write_clip(source / "a" / "only.bvh", make_motion("walk", 40, 2))
    import_motions(source, out, SMPL)
    import_motions(source / "a", out, SMPL)
    (source / "a" / "only.bvh").unlink()
    assert import_motions(source, out, SMPL).left == ["only"]
    assert "only" not in DatasetFolder(out).names()


def test_clips_leave_with_the_last_file(source, tmp_path):
    out = tmp_path / "out"
    import_motions(source, out, SMPL)
    for path in source.rglob("*.bvh"):
        path.unlink()
    assert len(import_motions(source, out, SMPL).left) == 3
    assert DatasetFolder(out).names() == []
    with pytest.raises(ValueError, match="no motion files"):
        import_motions(source, out, SMPL)


@pytest.mark.parametrize("wrong", [
    replace(SMPL, options=replace(SMPL.options, rest_frame=999)), ImportSettings(load_map("mixamo")),
])  # fmt: skip
def test_settings_with_which_every_file_fails_delete_nothing(source, tmp_path, wrong):
    out = tmp_path / "out"
    import_motions(source, out, SMPL)
    before = content(out)
    report = import_motions(source, out, wrong)
    assert len(report.failed) == 3
    assert report.left == []
    assert all("was left as it is" in reason for reason in report.failed.values())
    assert content(out) == before


def test_another_skeleton_or_prefix_leaves_clips_alone(source, tmp_path, monkeypatch):
    from hftrainer.data.prepare import motion_import

    out, real = tmp_path / "out", motion_import.convert_motion

    def convert(path, settings, clip):
        # stand.bvh is of the other skeleton
        if (path.stem == "stand") != (settings.skeleton.name == "other"):
            raise ValueError(f"{path}: another skeleton")
        return real(path, settings, clip)

    monkeypatch.setattr(motion_import, "convert_motion", convert)
    other = replace(SMPL, skeleton=replace(SMPL.skeleton, name="other"))
    for settings in (SMPL, other, SMPL):
        import_motions(source, out, settings)
    assert DatasetFolder(out).names() == ["a/walk", "b/walk", "stand"]
    assert import_motions(source, out, SMPL, prefix="p/").left == []
    assert DatasetFolder(out).names() == ["a/walk", "b/walk", "p/a/walk", "p/b/walk", "stand"]


def test_verify_misses_the_motion_file_of_an_imported_clip(source, tmp_path):
    import_motions(source, tmp_path / "out", SMPL)
    dataset = DatasetFolder(tmp_path / "out")
    dataset.motion_path("stand").unlink()
    report = verify(dataset)
    assert report.facts["imported"] == "3 clips; their sources are in import.jsonl"
    assert report.problems["imported, but without a motion file; import again"] == ["stand"]


def test_motions_of_other_origin_are_not_overwritten(source, tmp_path):
    dataset = DatasetFolder(tmp_path / "out", create=True)
    dataset.write_motion("stand", make_motion("walk", 44, 0))
    report = import_motions(source, tmp_path / "out", SMPL)
    assert "was not imported" in next(iter(report.failed.values()))
    assert len(dataset.motion("stand")) == 44


def test_names_in_any_case_and_two_files_of_one_name(source, tmp_path):
    write_clip(source / "UPPER.BVH", make_motion("walk", 40, 0))
    write_clip(source / "upper.bvh", make_motion("walk", 40, 1))
    report = import_motions(source, tmp_path / "out", SMPL)
    assert len(report.imported) == 4
    assert "the same clip name" in next(iter(report.failed.values()))


def test_space_around_a_name_is_left_out(source, tmp_path):
    """Split files are read without it: every command that followed once missed the clip."""
    (source / "stand.bvh").rename(source / " stand .bvh")
    import_motions(source, tmp_path / "out", SMPL)
    dataset = DatasetFolder(tmp_path / "out")
    dataset.write_split("all", dataset.names())
    assert "stand" in dataset.names("all")
    assert all(len(dataset.motion(name)) for name in dataset.names("all"))


def test_one_import_at_a_time(source, tmp_path):
    (tmp_path / "out").mkdir()
    with only_writer(tmp_path / "out"), pytest.raises(ValueError, match="another command is writing"):
        import_motions(source, tmp_path / "out", SMPL)


def test_a_cut_record_costs_one_clip(source, tmp_path):
    out = tmp_path / "out"
    import_motions(source, out, SMPL)
    path = out / "import.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    report = import_motions(source, out, SMPL)
    assert len(report.kept) == 2
    assert len(report.imported) + len(report.failed) == 1


@pytest.mark.parametrize("clip", ["../../outside", "/tmp/outside", 3])
def test_records_cannot_lead_out_of_the_folder(tmp_path, clip):
    (tmp_path / "import.jsonl").write_text(json.dumps({"clip": clip, "from": "x"}) + "\n")
    with pytest.raises(ValueError, match="clip"):
        ImportRecords(tmp_path)


@pytest.mark.parametrize("fault", [RuntimeError("a fault"), MemoryError(), RecursionError("deep"), ZeroDivisionError()])
def test_one_bad_file_never_ends_an_import(source, tmp_path, monkeypatch, fault):
    from hftrainer.data.prepare import motion_import

    real = motion_import.convert_motion

    def convert(path, *rest):
        if "stand" in str(path):
            raise fault
        return real(path, *rest)

    monkeypatch.setattr(motion_import, "convert_motion", convert)
    report = import_motions(source, tmp_path / "out", SMPL)
    assert sorted(report.imported) == ["a/walk", "b/walk"]
    assert "stand.bvh" in next(iter(report.failed.values()))


def test_a_pool_whose_own_thread_ends_is_no_wait_for_ever(monkeypatch, capsys):
    """As with little memory, where the library cannot start a thread and tells nobody."""
    from concurrent.futures import process

    def fail(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(process._ExecutorManagerThread, "add_call_item_to_queue", fail)
    with pytest.raises(MemoryError, match="has ended"):
        list(run_all(abs, range(8), 2, abs))
    assert "Traceback" not in capsys.readouterr().err


def test_a_pool_that_cannot_start_its_thread_says_that(monkeypatch):
    """The library then fails to join what never started, and would say only that."""
    from concurrent.futures import process

    def fail(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(process._ExecutorManagerThread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(run_all(abs, range(8), 2, abs))


def _die_of_three(item):
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


def _say_died(item):
    return -item


def is_blocked(number: int) -> bool:
    return number in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_workers_leave_an_interrupt_to_their_parent():
    """Each of them once printed a traceback, if it was still starting."""
    found = [result for _, result in run_all(is_blocked, [signal.SIGINT] * 3, 2, lambda _: False)]
    assert found == [True] * 3
    assert not is_blocked(signal.SIGINT)


def test_a_worker_that_dies_costs_its_own_item():
    found = dict(run_all(_die_of_three, range(8), 2, _say_died))
    assert found == {0: 0, 1: 1, 2: 4, 3: -3, 4: 16, 5: 25, 6: 36, 7: 49}


def command(source, out, workers=2):
    code = "import sys; from hftrainer.cli import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, "data", "import-motion", str(source), "--skeleton", "smpl22",
            "--out", str(out), "--workers", str(workers)]  # fmt: skip


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_import_leaves_no_workers_and_a_rerun_gives_the_same_bytes(source, tmp_path, how):
    for number in range(30):
        write_clip(source / f"more{number}.bvh", make_motion("walk", 150, number))
    want = tmp_path / "want"
    assert subprocess.run(command(source, want, 1), check=False).returncode == 0
    out = tmp_path / "out"
    process = subprocess.Popen(command(source, out))
    while process.poll() is None and len(list(out.rglob("*.npy"))) < 5:
        time.sleep(0.01)
    workers = children_of(process.pid)
    process.send_signal(how)
    process.wait()
    deadline = time.monotonic() + 20
    while not all(map(gone, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(gone, workers))
    done = subprocess.run(command(source, out), check=True, capture_output=True, text=True).stdout
    assert " 0 kept" not in done
    assert content(out) == content(want)
