"""Names of files, runs into the same folder, and what a generated motion offers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Event
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import pytest

from hftrainer.apps.generate import loading_record
from hftrainer.cli import main
from hftrainer.commands.common import one_sentence
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.files import only_writer
from hftrainer.motion.io.read_body import read_motions
from hftrainer.pipelines.base import GeneratedMotion
from hftrainer.pipelines.folder import slug, wanted
from hftrainer.pipelines.prompts import check_captions

MADE = GeneratedMotion(
    motion=make_motion("walk", 40, 0).astype(np.float32), prompt="a <walk>", seed=0, tokens=np.zeros(20, np.int64),
    ended=True, text_tokens=4, representation="motion272",
)  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A person walks, forward!", "a-person-walks-forward"),
        ("eine Person grüßt", "eine-person-grüßt"),
        ("人がお辞儀をする", "人がお辞儀をする"),
        ("человек бежит", "человек-бежит"),
        ("🕺💃", "man-dancing-dancer"),
        ("../../etc/passwd", "etc-passwd"),
        ("!!!", "motion"),
    ],
)
def test_prompts_of_any_script_name_their_files(prompt, name):
    assert slug(prompt) == name


def test_long_names_fit_into_file_systems():
    assert len(slug("歩" * 200).encode()) <= 120
    assert slug("歩" * 200)


def test_numbers_continue_and_stems_are_never_shared():
    first = wanted(["a", "b"], 1, 0, {"x": 1}, [])
    before = [{"key": i.key, "stem": i.stem, "prompt": i.prompt} for i in first]
    again = wanted(["b", "c"], 1, 0, {"x": 2}, before)
    assert [i.stem for i in first] == ["000_a_s0", "001_b_s0"]
    assert [i.stem for i in again] == ["001_b_s0_2", "002_c_s0"]  # the same prompt and seed with other settings
    assert [i.stem for i in wanted(["a"], 1, 0, {"x": 1}, before)] == ["000_a_s0"]


def test_the_page_shows_what_the_files_hold(tiny_model, tmp_path, monkeypatch):
    pages = []
    monkeypatch.setattr("hftrainer.pipelines.outputs.clip_of", lambda shown, *_, **__: pages.append(shown))
    monkeypatch.setattr("hftrainer.pipelines.outputs.write_viewer", lambda *_, **__: None)
    options = ["--in-place", "--skeleton", "mixamo", "--fps", "60", "--raw", "--seconds", "0.6"]
    assert main(["generate", "walk", "--model", str(tiny_model), "--out", str(tmp_path), "--formats", "glb,html",
                 *options]) == 0  # fmt: skip
    ((_, written),) = read_motions(next(tmp_path.glob("*.glb")))
    assert pages[0].fps == written.fps == 60
    assert np.abs(pages[0].joints - written.joints).max() < 1e-4  # float32 quaternions


def test_videos_side_by_side_are_kept_and_completed(tiny_model, tmp_path, monkeypatch):
    videos = {}
    monkeypatch.setattr(
        "hftrainer.pipelines.outputs.write",
        lambda path, motions, *_, **__: (
            path.write_bytes(b"video"),
            videos.setdefault(path.name, []).append(len(motions)),
        ),
    )

    def run(*arguments):
        return main(["generate", "walk", "--model", str(tiny_model), "--out", str(tmp_path), "--seconds", "0.6",
                     "--formats", "mp4", "--temperature", "1", *arguments])  # fmt: skip

    assert run("-n", "2") == 0
    assert run("-n", "2", "--raw") == 0
    assert run("-n", "3") == 0
    together = {name: counts for name, counts in videos.items() if name.endswith("_all.mp4")}
    assert sorted(together.values()) == [[2], [2, 3]]
    for disturb in (lambda path: None, Path.unlink, lambda path: path.write_bytes(b"")):
        disturb(tmp_path / max(together))  # a run that was killed before it, or another one of this name
        assert run("-n", "2") == 0
    assert run("-n", "2") == 0
    assert together[max(together)] == [2, 3, 2, 2, 2]


def test_other_ways_of_loading_are_other_motions(tiny_model, tmp_path):
    """`--dtype` and `--quantize` once gave the motions of the run before."""

    def run(*arguments):
        assert main(["generate", "walk", "--model", str(tiny_model), "--out", str(tmp_path), "--seconds", "0.6",
                     "--formats", "npy", *arguments]) == 0  # fmt: skip
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        return [item["stem"] for item in manifest["items"]], len(manifest["runs"])

    assert run() == (["000_walk_s0"], 1)
    assert run("--dtype", "bf16") == (["000_walk_s0", "000_walk_s0_2"], 2)
    assert run("--text-encoder", str(tiny_model / "text_encoder"))[1] == 3
    assert run("--dtype", "bf16", "--device", "cpu")[1] == run()[1] == 3


def test_options_of_loading_are_recorded_by_content(tmp_path):
    (tmp_path / "features").write_text("1")
    first = loading_record({"text_features": tmp_path / "features", "device": "cpu", "quantize": None})
    (tmp_path / "features").write_text("2")
    assert first.keys() == {"text_features"}
    assert loading_record({"text_features": tmp_path / "features"}) != first


def test_the_record_of_a_timeline_does_not_grow(tiny_model, tmp_path):
    """Each further run of the same command once noted itself again."""
    for _ in range(2):
        assert main(["generate", "walk", "--model", str(tiny_model), "--out", str(tmp_path), "--seconds", "0.6",
                     "--then", "run", "0.6", "--formats", "npy"]) == 0  # fmt: skip
    assert len(json.loads((tmp_path / "manifest.json").read_text())["runs"]) == 1


def test_two_commands_do_not_write_one_manifest(tiny_model, tmp_path, capsys):
    """The motions of one of them were once missing in it."""
    line = ["generate", "walk", "--model", str(tiny_model), "--out", str(tmp_path), "--seconds", "0.6", "--formats",
            "npy"]  # fmt: skip
    with only_writer(tmp_path):
        assert main(line) == 1
    assert "another command is writing" in capsys.readouterr().err
    assert main(line) == 0


def test_a_motion_is_written_while_others_are_made(tiny_model, tmp_path, monkeypatch):
    from hftrainer.pipelines.motionmillion import MotionMillionPipeline
    from hftrainer.pipelines.outputs import write_features

    first_file, make = Event(), MotionMillionPipeline.run

    def run(self, *arguments, **keywords):
        made = make(self, *arguments, **keywords)
        yield next(made)
        assert first_file.wait(60), "the first motion waits for the second"
        yield from made

    monkeypatch.setattr(MotionMillionPipeline, "run", run)
    monkeypatch.setattr(
        "hftrainer.pipelines.outputs.write_features", lambda *given: (write_features(*given), first_file.set())
    )
    assert main(["generate", "walk", "run", "--model", str(tiny_model), "--out", str(tmp_path), "--seconds", "0.6",
                 "--formats", "npy"]) == 0  # fmt: skip
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_export_does_not_overwrite_its_source_or_generated_files(tiny_model, tmp_path, capsys):
    assert main(["generate", "walk", "--model", str(tiny_model), "--out", str(tmp_path), "--seconds", "0.6",
                 "--formats", "npz,bvh,html"]) == 0  # fmt: skip
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    source = str(next(tmp_path.glob("*.npz")))
    assert main(["export", source, "--formats", "npz,html", "--out", str(tmp_path)]) == 1
    assert "index.html was written by `hftrainer generate`" in capsys.readouterr().err
    assert main(["export", source, "--formats", "npz,bvh", "--out", str(tmp_path)]) == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    added = {path.name for path in tmp_path.iterdir()} - {path.name for path in before}
    assert added == {f"{Path(source).stem}_2.npz", f"{Path(source).stem}_2.bvh"}


def test_a_file_whose_name_is_no_text_can_be_exported(tmp_path):
    """Its name in a page or a GLB once was an error of the encoder."""
    source = os.fsencode(tmp_path) + b"/walk\xff.npy"
    with open(source, "wb") as stream:
        np.save(stream, make_motion("walk", 40, 0).astype(np.float32))
    assert main(["export", os.fsdecode(source), "--formats", "glb,bvh,html", "--out", str(tmp_path / "out")]) == 0
    assert "walk\\\\udcff" in (tmp_path / "out" / "index.html").read_text()


def test_a_second_run_adds_to_the_folder(tiny_model, tmp_path, capsys):
    def run(*arguments):
        return main(["generate", *arguments, "--model", str(tiny_model), "--out", str(tmp_path), "--seconds", "0.6",
                     "--formats", "npz,html"])  # fmt: skip

    assert run("a person walks") == 0
    assert run("someone sits down") == 0
    assert "as asked" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [item["prompt"] for item in manifest["items"]] == ["a person walks", "someone sits down"]
    page = (tmp_path / "index.html").read_text()
    assert "a person walks" in page
    assert "someone sits down" in page


def test_the_page_the_npz_and_python_show_one_motion(tmp_path):
    MADE.save(tmp_path / "a.npz")
    np.testing.assert_allclose(read_motions(tmp_path / "a.npz")[0][1].joints, MADE.joints, atol=1e-5)
    MADE.save(tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), MADE.motion)
    assert MADE.rotations.shape == (40, 22, 3, 3)
    MADE.save(tmp_path / "a.glb", skeleton="vrm", fps=60)
    assert (tmp_path / "a.glb").read_bytes()[:4] == b"glTF"
    assert "&lt;iframe" not in MADE._repr_html_()
    assert 'title="a &lt;walk&gt;"' in MADE._repr_html_()


def test_outside_a_notebook_show_opens_the_browser(monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert MADE.show() is None
    (address,) = opened
    page = Path(url2pathname(urlparse(address).path))
    assert page.read_text(encoding="utf-8") == MADE.page()
    page.unlink()


def test_raw_is_nearer_to_the_model_and_off_by_default():
    positions = MADE.motion.shape[0]
    assert len(MADE.posed(raw=True)) == positions
    assert np.abs(MADE.posed(raw=True).joints - MADE.posed().joints).max() > 1e-4
    with pytest.raises(ValueError, match="options cannot change"):
        MADE.save("x.npy", raw=True)


def test_a_motion_without_frames_says_so():
    empty = GeneratedMotion(MADE.motion[:0], "x", 0, MADE.tokens[:0], True, 1, "motion272")
    with pytest.raises(ValueError, match="the motion of 'x' has no frames"):
        empty.save("x.glb")


@pytest.mark.parametrize(
    ("prompts", "error", "words"),
    [
        ([], ValueError, "the list of prompts is empty"),
        (7, TypeError, "must be a list of strings, got int 7"),
        (["walk", None], TypeError, "prompt 2 of 2 must be a string, got None"),
        (["walk", "  "], ValueError, "prompt 2 of 2 is empty"),
    ],
)
def test_prompts_that_are_none_say_so(prompts, error, words):
    with pytest.raises(error, match=words):
        check_captions(prompts)


def test_unquoted_sentences_become_one_prompt(capsys):
    assert one_sentence(["a", "person", "walks"]) == ["a person walks"]
    assert 'one prompt: "a person walks"' in capsys.readouterr().err
    assert one_sentence(["walk", "run", "wave"]) == ["walk", "run", "wave"]
    assert one_sentence(["a person walks", "someone", "a"]) == ["a person walks", "someone", "a"]


def test_two_folders_are_compared_prompt_by_prompt(tiny_model, tmp_path, capsys):
    for name, prompts in (("a", ["a person walks", "someone bows"]), ("b", ["someone bows", "a person runs"])):
        arguments = ["--model", str(tiny_model), "--out", str(tmp_path / name), "--seconds", "0.6", "--formats", "npz"]
        assert main(["generate", *prompts, *arguments]) == 0
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["export", *folders, "--out", str(tmp_path / "c"), "--together", "compare.html"]) == 0
    page = (tmp_path / "c" / "compare.html").read_text()
    assert page.count('"group":"someone bows / 0"') == 2
    assert "a person runs" not in page
    assert main(["export", folders[0], "--out", str(tmp_path / "c")]) == 1
    assert "two to 4 folders" in capsys.readouterr().err


def test_what_grows_with_its_items_is_not_written_for_each(monkeypatch):
    """The manifest of n batches once was written n times, which took quadratic time."""
    from hftrainer import files

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock, written = Clock(), []
    monkeypatch.setattr(files, "time", clock)
    sparingly = files.Sparingly()

    def write() -> None:
        clock.now += 1.0
        written.append(clock.now)

    for _ in range(100):
        clock.now += 0.5
        sparingly.call(write)
    assert written[0] == 1.5  # the first one at once
    assert len(written) == 3
    assert sparingly.left_out
