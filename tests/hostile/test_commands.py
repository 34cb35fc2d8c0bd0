"""Files made to do harm, through the commands that read them: one sentence with the file's name and status 1.

`tests.faults.test_hostile_weights` and `tests.fuzz` try the readers; here it is what a user sees.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hftrainer import cli, patterns, readers
from hftrainer.data.folder import DatasetFolder
from hftrainer.readers import FileError, inside
from tests.motion.test_asf import amc, asf, frames

SECONDS = 100  # of processor time; what is refused takes milliseconds, what is not takes for ever
BYTES = 3 << 30  # of addresses beyond what is mapped


class TooLong(BaseException):
    """No `Exception`, so that nothing takes it for damage."""


@pytest.fixture(autouse=True)
def _budget() -> Iterator[None]:
    resource = pytest.importorskip("resource")

    def ring(*_: object) -> None:
        raise TooLong

    before, limit = signal.signal(signal.SIGVTALRM, ring), resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + BYTES, limit[1]))
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    resource.setrlimit(resource.RLIMIT_AS, limit)
    signal.signal(signal.SIGVTALRM, before)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that has to fail, and give what it said."""

    def run(*words: object, naming: str = "") -> str:
        assert cli.main([str(word) for word in words]) == 1
        captured = capsys.readouterr()
        said = captured.out + captured.err
        assert naming in said
        assert "Traceback" not in said
        assert "HFTRAINER_TRACEBACK" not in said, "an error of a library that nobody has put into words"
        assert "not enough memory" not in said
        assert not set("\x1b\x07") & set(said)
        assert captured.err.count("\n") <= 2
        return said

    return run


# --- the files of the review ------------------------------------------------------------------------------------------


@pytest.fixture
def case(shared: Path, tmp_path: Path) -> Callable[[str, str], Path]:
    """A copy of a hostile file under a name of one's own."""

    def copy(name: str, place: str) -> Path:
        target = tmp_path / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shared / "cases" / "hostile" / name, target)
        return target

    return copy


@pytest.mark.parametrize(
    "name",
    ["poison_ordereddict_defaults.pt", "poison_breaks_loader.pt", "tuple_repr_bomb.pt", "set_hash_bomb.pt", "self.pt",
     "unh.pt", "zero_2^63.pt", "stride0_1TB.pt", "deep.json", "huge_header.npy"],
)  # fmt: skip
def test_weights(case, refused, tmp_path, name):
    path = case(name, f"ar{Path(name).suffix if Path(name).suffix != '.json' else '.safetensors.index.json'}")
    np.save(tmp_path / "mean.npy", np.zeros(272, np.float32))
    line = ["convert", "checkpoint", "--ar", path, "--fsq", path, "--mean", tmp_path / "mean.npy", "--std",
            tmp_path / "mean.npy", "--no_text_encoder", "--out_dir", tmp_path / "out"]  # fmt: skip
    refused(*line, naming=path.name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["model_index.json", "mm_config.json", "config.json"])
def test_models(case, refused, tmp_path, tiny_model, place):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model/manifest.json").unlink()
    if place == "config.json":  # of an evaluator, whose index names none
        shutil.rmtree(tmp_path / "model")
    path = case("deep.json", f"model/{place}")
    refused("generate", "walks", "--model", tmp_path / "model", "--out", tmp_path / "out", naming=str(path.parent))
    refused("doctor", tmp_path / "model", "--no-verify", naming=str(path.parent))


DATA = [
    ("deep.json", "labels.json", ["data", "split"]),
    ("deep.json", "representation.json", ["data", "verify"]),
    ("deep.json", "tokens/made_from.json", ["data", "pack-tokens", "--out", "{out}"]),
    ("names_outside.txt", "split/train.txt", ["data", "verify"]),
    ("names_outside.txt", "split/train.txt", ["data", "stats"]),
    ("names_outside.txt", "split/train.txt", ["data", "pack-motions", "--out", "{out}"]),
    *((name, f"motion_data/{place}", line) for name in ("huge_header.npy", "npz_named.npy") for place, line in (
        ("a.npy", ["data", "verify"]), ("a.npy", ["data", "pack-motions", "--out", "{out}"]))),
    *((name, "mean_std/mean.npy", ["data", "pack-motions", "--out", "{out}"]) for name in (
        "huge_header.npy", "npz_named.npy")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "place", "line"), DATA, ids=lambda value: value if isinstance(value, str) else None)
def test_data_sets(case, refused, tmp_path, synthetic, name, place, line):
    data = shutil.copytree(synthetic, tmp_path / "data")
    path = case(name, f"data/{place}")
    if path.name == "a.npy":
        DatasetFolder(data).write_split("train", ["a"])
    words = [word.format(out=tmp_path / "out", data=data) for word in line]
    refused(*words[:2], data, *words[2:], naming=path.name)
    assert not (tmp_path / "out").exists()


def test_names_that_lead_out_are_never_written_over(case, refused, tmp_path, synthetic):
    data = shutil.copytree(synthetic, tmp_path / "data")
    victim = tmp_path / "my_motion.npy"
    victim.write_bytes(b"mine")
    for name in (str(victim.with_suffix("")), "../../my_motion", "../my_motion"):
        (data / "split/test.txt").write_text(f"{name}\n")
        for source in ("official_split", "evaluator"):
            refused("evaluate", "generate", "--model", "gotozero-nano", "--data", data, "--pair-source", source,
                    "--device", "cpu", "--out", tmp_path / "out", naming="test.txt")  # fmt: skip
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["huge_header.npy", "npz_named.npy", "frames_no_channels.bvh"])
def test_motions(case, refused, tmp_path, name):
    path = case(name, f"clips/{name}")
    refused("export", path, "--formats", "npz", "--out", tmp_path / "out", naming=name)
    if path.suffix == ".bvh":
        for verb, more in (("check-import", ()), ("import-motion", ("--out", tmp_path / "data"))):
            refused("data", verb, path, "--skeleton", "cmu", "--workers", "1", *more, naming=name)


@pytest.mark.parametrize(
    "line",
    ["train FILE", "train FILE --dry-run", "data captions DATA --templates FILE", "export DATA/motion_data/a.bvh --map "
     "FILE --out DATA/out --formats npz", "data check-import DATA/motion_data --skeleton FILE",
     "data text-features --prompts DATA/p.txt --config FILE --out DATA/f.safetensors",
     "evaluate run --data DATA --predictions DATA --evaluator motionstreamer272-nano --protocol FILE"],
)  # fmt: skip
def test_yaml(case, refused, tmp_path, line):
    path = case("yaml_typo.yaml", "typo.yaml")
    (tmp_path / "data/motion_data").mkdir(parents=True)
    (tmp_path / "data/p.txt").write_text("walks\n")
    write_bvh(tmp_path / "data/motion_data/a.bvh")
    refused(*line.replace("FILE", str(path)).replace("DATA", str(tmp_path / "data")).split(), naming="typo.yaml")


def write_bvh(path: Path, before: str = "", rows: str = "0 1 0 0 0 0\n") -> None:
    path.write_text(
        "HIERARCHY\nROOT Hips\n{\nOFFSET 0 0 0\n"
        "CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation\n"
        f"}}\nMOTION\nFrames:{before} 1\nFrame Time:{before} 0.03\n{rows}"
    )


# --- others of their kinds --------------------------------------------------------------------------------------------

TEMPLATES = """clip: {clip}
contents: {{walk: [{phrase}]}}
styles: {{}}
subjects: [a person]
"""


@pytest.mark.parametrize(
    ("clip", "phrase"),
    [("(a+)+$", "walk"), ("(a|a)*$", "walk"), ("(" * 200 + "a" + ")" * 200, "walk"), ("[", "walk"),
     ("'" + "a" * 2000 + "'", "walk"), ("a", "''"), ("a", "'two  blanks'"), ("a", '"a\\nline"'), ("a", "'a # b'"),
     ("a", "3"), ("a", "[x]"), ("a", "{x: y}"), ("7", "walk")],
)  # fmt: skip
def test_templates(refused, monkeypatch, tmp_path, clip, phrase):
    """A pattern that backtracks for ever; phrases that are none."""
    monkeypatch.setattr(patterns, "SECONDS", 1.0)
    data = DatasetFolder(tmp_path / "data", create=True)
    data.write_motion("a" * 40 + "!", np.zeros((40, 272)))
    (tmp_path / "mine.yaml").write_text(TEMPLATES.format(clip=clip, phrase=phrase))
    refused("data", "captions", data.root, "--templates", tmp_path / "mine.yaml")


def test_a_pattern_gives_its_groups():
    found = patterns.match_all(r"(?P<a>\w+)_(?P<b>\d)?", ["x_1", "ü_", "-"], where="mine.yaml")
    assert found == [{"a": "x", "b": "1"}, {"a": "ü", "b": None}, None]


@pytest.mark.parametrize(
    "label",
    [None, [], {"content": 1}, {"content": ["walk"]}, {"parts": 3}, {"parts": [1]}, {"parts": [{}]},
     {"content": "walk", "style": {}}],
)  # fmt: skip
def test_labels(refused, tmp_path, synthetic, label):
    data = shutil.copytree(synthetic, tmp_path / "data")
    labels = json.loads((data / "labels.json").read_text())
    labels[next(iter(labels))] = label
    (data / "labels.json").write_text(json.dumps(labels))
    for line in (["captions", data, "--templates", "bandai-namco"], ["mirror", data], ["split", data]):
        refused("data", *line, naming="labels.json")


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    out = tarfile.TarInfo(name)
    out.size, out.type, out.linkname = size, kind, link
    return out


def header(*members: tarfile.TarInfo) -> bytes:
    """Headers alone: what they say that follows is not there."""
    return b"".join(each.tobuf(tarfile.GNU_FORMAT) for each in members)


SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "motion_data/a.npy",
          "GNU.sparse.realsize": str(1 << 40)}  # fmt: skip
TARS = {
    "a terabyte": header(member("motion_data/a.npy", 1 << 40)),
    "a terabyte of something else": header(member("video.mp4", 1 << 40)),
    "a name of a gigabyte": header(member("x", 1 << 30, tarfile.GNUTYPE_LONGNAME)),
    "notes of a gigabyte": header(member("x", 1 << 30, tarfile.XHDTYPE)),
    "notes without end": header(member("x", 512, tarfile.XHDTYPE)) * 3000,
    "above": header(member("../a.npy", 0)), "absolute": header(member("/tmp/a.txt", 0)),
    "an escape": header(member("texts/\x1b[2J.txt", 0)), "a line": header(member("texts/a\nb.txt", 0)),
    "no archive": b"text", "nothing": b"",
    "links only": header(member("texts/a.txt", 0, tarfile.SYMTYPE, "/etc/passwd")),
}  # fmt: skip


@pytest.mark.parametrize("name", [*TARS, "sparse"])
def test_tars(refused, tmp_path, name):
    path = tmp_path / "shard.tar"
    if name == "sparse":  # 10 kB on the disk, a terabyte when read
        sparse = member("motion_data/a.npy", 512)
        sparse.pax_headers = SPARSE
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(sparse, io.BytesIO(b"1\n0\n1\n" + bytes(506)))
    else:
        path.write_bytes(TARS[name] + bytes(1024))
    refused("data", "import-tar", path, "--out", tmp_path / "data", naming="shard.tar")
    assert not [p for p in tmp_path.rglob("*.npy")]


def test_links_and_devices_in_tars_are_passed_over(tmp_path, capsys):
    (tmp_path / "secret.txt").write_text("secret")
    kinds = [(tarfile.SYMTYPE, "l"), (tarfile.LNKTYPE, "h"), (tarfile.CHRTYPE, "c"), (tarfile.FIFOTYPE, "f")]
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for kind, name in kinds:
            archive.addfile(member(f"texts/{name}.txt", 0, kind, str(tmp_path / "secret.txt")))
        archive.addfile(member("texts/good.txt", 6), io.BytesIO(b"walks\n"))
    assert cli.main(["data", "import-tar", str(tmp_path / "shard.tar"), "--out", str(tmp_path / "data")]) == 0
    files = sorted(p.name for p in (tmp_path / "data").rglob("*") if p.is_file())
    assert files == ["good.txt"]


def glb(document: object, binary: bytes = b"") -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks


def moving(times: list[float], tracks: int, nodes: list[dict[str, object]], count: int = 0) -> bytes:
    """A glTF whose tracks all share one clock and one array."""
    clock = np.array(times, "<f4").tobytes()
    values = np.tile(np.array([0, 0, 0, 1], "<f4"), len(times)).tobytes()
    views = [{"buffer": 0, "byteOffset": 0, "byteLength": len(clock)},
             {"buffer": 0, "byteOffset": len(clock), "byteLength": len(values)}]  # fmt: skip
    accessors = [
        {"bufferView": 0, "componentType": 5126, "count": count or len(times), "type": "SCALAR"},
        {"bufferView": 1, "componentType": 5126, "count": count or len(times), "type": "VEC4"},
    ]
    channels = [{"sampler": 0, "target": {"node": 0, "path": "rotation"}}] * tracks
    animation = {"channels": channels, "samplers": [{"input": 0, "output": 1}]}
    document = {"asset": {"version": "2.0"}, "nodes": nodes, "animations": [animation], "accessors": accessors,
                "bufferViews": views, "buffers": [{"byteLength": len(clock + values)}]}  # fmt: skip
    return glb(document, clock + values)


NODES = [{"name": name} for name in ("pelvis", "left_hip")]
GLBS = {
    "a year in two keys": moving([0.0, 0.01, 9e5], 1, NODES),
    "10^15 keys": moving([0.0, 1.0], 1, NODES, 10**15),
    "200,000 tracks": moving([0.0, 1.0], 200_000, NODES),
    "nodes in a circle": moving([0.0, 1.0], 1, [{"name": "pelvis", "children": [1]}, {"name": "x", "children": [0]}]),
    "a deep document": glb(0)[:12] + struct.pack("<II", 100_000, 0x4E4F534A) + b"[" * 100_000,
    "no nodes": glb({"animations": [1]}), "nodes of numbers": glb({"nodes": [1], "animations": [{}]}),
    "a buffer outside": glb({"nodes": NODES, "animations": [{"channels": [{"sampler": 0, "target": {"node": 0,
        "path": "rotation"}}], "samplers": [{"input": 0, "output": 0}]}], "buffers": [{"uri": "../../etc/passwd"}],
        "bufferViews": [{"buffer": 0}], "accessors": [{"bufferView": 0, "componentType": 5126, "count": 1,
        "type": "SCALAR"}]}),
}  # fmt: skip


@pytest.mark.parametrize("name", GLBS)
def test_glbs(refused, tmp_path, name):
    path = tmp_path / "a.glb"
    path.write_bytes(GLBS[name])
    refused("export", path, "--formats", "npz", "--out", tmp_path / "out", naming="a.glb")
    refused("data", "check-import", path, "--skeleton", "smpl22", "--workers", "1", naming="a.glb")


def test_bones_that_carry_each_other(refused, tmp_path):
    """The way up from the pelvis once had no end."""
    from hftrainer.motion.skeleton import JOINTS

    nodes: list[dict[str, object]] = [{"name": name} for name in JOINTS]
    nodes[0]["children"], nodes[1]["children"] = [1], [0]
    (tmp_path / "a.glb").write_bytes(moving([0.0, 1.0], 1, nodes))
    refused("export", tmp_path / "a.glb", "--formats", "npz", "--out", tmp_path / "out", naming="not a tree")


def test_blanks_take_no_quadratic_time(tmp_path, capsys):
    write_bvh(tmp_path / "a.bvh", before=" " * 300_000, rows="x\n")
    assert cli.main(["data", "check-import", str(tmp_path / "a.bvh"), "--skeleton", "cmu", "--workers", "1"]) == 1


@pytest.mark.parametrize("old", ["    dof rx ry rz\n", "   order TX TY TZ RX RY RZ\n"])
def test_channels_beyond_counting(refused, tmp_path, old):
    (tmp_path / "01.asf").write_text(asf().replace(old, old.rstrip("\n") + " rx" * 500_000 + "\n", 1))
    (tmp_path / "01_01.amc").write_text(amc(frames()))
    refused("data", "check-import", tmp_path, "--skeleton", "cmu-asf", "--workers", "1", naming="01_01.amc")


@pytest.mark.parametrize("stem", ["../my_motion", "/tmp/x", "a/../../b", "", "a\x1b[2J", 3, None])
def test_manifests_of_generated_folders(refused, tmp_path, stem):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        item = {"key": "k", "stem": stem, "prompt": "x", "seed": 0, "files": ["x.npz"], "sha256": {}}
        (tmp_path / name / "manifest.json").write_text(json.dumps({"items": [item]}))
    refused("export", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out", naming="manifest.json")


def test_captions_of_an_annotation_are_read_below_its_folder(refused, tmp_path):
    (tmp_path / "secret.json").write_text('{"caption": "secret"}')
    for place in ("../secret.json", str(tmp_path / "secret.json"), 3):
        entry = {"hierarchical_caption_path": place, "num_frames": 40}
        (tmp_path / "anno.json").write_text(json.dumps({"a": entry}))
        said = refused("evaluate", "generate", "--model", "gotozero-nano", "--anno", tmp_path / "anno.json",
                       "--anno-data-dir", tmp_path / "below", "--device", "cpu", "--out", tmp_path / "out")  # fmt: skip
        assert "'secret'" not in said


def test_arrays_that_grow_a_thousandfold(refused, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", poses=np.zeros((300_000, 66), np.float32), trans=np.zeros((300_000, 3)))
    assert (tmp_path / "a.npz").stat().st_size < 1 << 20
    refused("export", tmp_path / "a.npz", "--formats", "npz", "--out", tmp_path / "out", naming="a.npz")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nul", "CON", "com1.tar", "a/LPT9", "a:b", "C:x", "x.", "x ", "a?b", "a|b"])
def test_names_that_windows_takes_for_something_else(monkeypatch, name):
    assert inside("data", name).name
    monkeypatch.setattr(readers, "_WINDOWS", True)
    with pytest.raises(FileError):
        inside("data", name)


def test_markdown_shows_names_as_they_are():
    from hftrainer.evaluation.report import pipe_table

    table = pipe_table([["", "<script>x</script>"], ["a|b\n# c", "![](http://x) `&amp;`"]])
    lines = table.splitlines()
    assert len(lines) == 3
    assert "<" not in table
    assert lines[0] == "|  | &lt;script&gt;x&lt;/script&gt; |"
    assert lines[2] == r"| a\|b # c | \!\[\](http://x) \`&amp;amp;\` |"


BOMBS = {
    "letters": "a0: xxxxxxxxxx\n" + "".join(f"a{n}: ${{a{n - 1}}}${{a{n - 1}}}\n" for n in range(1, 60)),
    "sections": "a0: {x: 1}\n" + "".join(f"a{n}: {{x: '${{a{n - 1}}}', y: '${{a{n - 1}}}'}}\n" for n in range(1, 60)),
    "lists": "a0: [1]\n" + "".join(f"a{n}: ['${{a{n - 1}}}', '${{a{n - 1}}}']\n" for n in range(1, 60)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_interpolations_that_double(refused, tmp_path, name):
    (tmp_path / "bomb.yaml").write_text(BOMBS[name])
    refused("train", tmp_path / "bomb.yaml", naming="what its interpolations stand for")
