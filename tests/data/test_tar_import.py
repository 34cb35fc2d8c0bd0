"""Archives as they are published, and webdataset shards, become dataset folders."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile

import numpy as np
import pytest

from hftrainer.cli import main
from hftrainer.data.folder import Caption, DatasetFolder
from hftrainer.data.prepare.tar_import import import_tar
from hftrainer.data.prepare.verify import verify
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.representation.base import get_representation
from hftrainer.motion.statistics import compute_statistics

MOTION = make_motion("walk", 70, 0)


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def tar(path, members: dict[str, bytes], mode: str = "w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_motionmillions_archives(tmp_path):
    """Top folders that are there twice, parts that do not say their name, capital statistics, nested splits."""
    mean, std = compute_statistics([MOTION], get_representation("motion272"))
    shards = [
        tar(
            tmp_path / "split.tar.gz",
            {"split/version1/t2m_60_300/train.txt": b"MotionGV/folder0/a\nMotionGV/folder0/b\n"},
        ),
        tar(tmp_path / "texts.tar.gz", {f"texts/MotionGV/folder0/{n}.txt": b"a man walks\nhe goes\n" for n in "ab"}),
        tar(tmp_path / "mean.tar", {"mean_std/Mean.npy": npy(mean), "mean_std/Std.npy": npy(std)}, "w"),
        tar(tmp_path / "one.tar.gz", {"MotionGV/MotionGV/folder0/a.npy": npy(MOTION), "MotionGV/._a": b"x"}),
    ]
    report = import_tar(shards, tmp_path / "data")
    assert report.counts == {"splits": 1, "captions": 2, "statistics": 2, "motions": 1}
    assert (report.renamed, report.skipped) == (1, ["MotionGV/._a"])
    part = tar(tmp_path / "two.tar.gz", {"folder0/b.npy": npy(MOTION[:64])})
    assert import_tar([part], tmp_path / "data", prefix="MotionGV").counts == {"motions": 1}
    dataset = DatasetFolder(tmp_path / "data")
    assert dataset.names() == dataset.names("version1/t2m_60_300/train") == ["MotionGV/folder0/a", "MotionGV/folder0/b"]
    assert dataset.captions("MotionGV/folder0/b") == [Caption("a man walks"), Caption("he goes")]
    np.testing.assert_allclose(dataset.motion("MotionGV/folder0/a"), MOTION, rtol=1e-6)
    assert dataset.frames("MotionGV/folder0/b") == 64
    assert verify(dataset).good


def test_webdataset_shards_with_motions_codes_and_a_split(tmp_path, capsys):
    shard = tar(
        tmp_path / "000.tar",
        {"clip1.npy": npy(MOTION.astype(np.float32)), "clip1.txt": b"a man walks.#a/DET man/NOUN#0.5#1.5\n",
         "clip2.npy": npy(MOTION[:61]), "clip2.txt": "läuft\n".encode(), "clip2.json": b"{}"},
        "w",
    )  # fmt: skip
    assert main(["data", "import-tar", str(shard), "--out", str(tmp_path / "data"), "--split", "train"]) == 0
    assert "2 motions, 2 captions" in capsys.readouterr().out
    dataset = DatasetFolder(tmp_path / "data")
    assert dataset.names("train") == ["clip1", "clip2"]
    assert dataset.captions("clip1") == [Caption("a man walks.", 0.5, 1.5)]
    codes = tar(tmp_path / "codes.tar", {"clip1.npy": npy(np.array([[3, 5]], np.int32))}, "w")
    assert import_tar([codes], tmp_path / "data").counts == {"codes": 1}
    assert np.load(tmp_path / "data/VQVAE_codebook_imported/clip1.npy").tolist() == [[3, 5]]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../a.npy": npy(MOTION)}, "is not a valid file name"),
        ({"/etc/a.txt": b"x"}, "is not a valid file name"),
        ({"a.npy": b"no numpy"}, r"a.npy cannot be read as a numpy array"),
        ({"a.npy": npy(MOTION[:, :263])}, r"expected \(frames, 272\) of motion272 or codes, got float64 \(70, 263\)"),
        ({"a.txt": b"\xff\xfe\x00"}, "is not UTF-8"),
        ({"a.bin": b"x"}, "no motion, caption, code, split or statistics"),
    ],
)
def test_what_cannot_be_imported_is_named(tmp_path, members, message):
    with pytest.raises(ValueError, match=message):
        import_tar([tar(tmp_path / "a.tar", members, "w")], tmp_path / "data")
    assert not (tmp_path / "a.npy").exists()


def test_two_members_of_one_name_and_names_in_spaces(tmp_path):
    """The second once replaced the first without a word, and splits did not find clips with spaces around."""
    twice = tar(tmp_path / "twice.tar", {"a/x.npy": npy(MOTION), "motion_data/a/x.npy": npy(MOTION[:30])})
    with pytest.raises(ValueError, match=r"would replace motion_data/a/x\.npy, which .*twice\.tar: a/x\.npy became"):
        import_tar([twice], tmp_path / "out")
    same = tar(tmp_path / "same.tar", {"a/ x .npy": npy(MOTION), "motion_data/a/x.npy": npy(MOTION)})
    import_tar([same], tmp_path / "same", split="all")
    dataset = DatasetFolder(tmp_path / "same")
    assert dataset.names() == ["a/x"]
    assert len(dataset.motion(dataset.names("all")[0])) == len(MOTION)


def test_a_file_that_is_no_archive_and_objects_in_arrays_are_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"not a tar file at all")
    with pytest.raises(ValueError, match="cannot be read as a tar archive"):
        import_tar([tmp_path / "a.tar"], tmp_path / "data")
    objects = tar(tmp_path / "b.tar", {"a.npy": npy(np.array([{}], dtype=object))}, "w")
    with pytest.raises(ValueError, match="cannot be read as a numpy array"):
        import_tar([objects], tmp_path / "data")


@pytest.mark.parametrize("format_", [bz2, lzma], ids=["bz2", "xz"])
def test_an_archive_is_not_unpacked_further_than_the_limit(tmp_path, monkeypatch, format_):
    """tarfile unpacks ten kilobytes of a packed archive at once, which may be fourteen gigabytes of zeros."""
    from hftrainer.data.prepare import tar_import

    member = tarfile.TarInfo("notes.bin")
    member.size = 64 << 20
    path = tmp_path / "x.tar"
    path.write_bytes(format_.compress(member.tobuf() + bytes(member.size)))
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(tar_import, "_MAX_UNPACKED", 1 << 20)
    asked = []
    read = tar_import._Unpacked.read
    monkeypatch.setattr(tar_import._Unpacked, "read", lambda self, size: asked.append(size) or read(self, size))
    with pytest.raises(ValueError, match=r"x\.tar.*would be unpacked to more than"):
        import_tar([path], tmp_path / "set")
    assert max(asked) < 1 << 20


def test_a_member_that_is_a_file_and_a_folder_is_named(tmp_path):
    path = tar(tmp_path / "x.tar.gz", {"texts/a.txt": b"walks", "texts/a.txt/b.txt": b"runs"})
    with pytest.raises(ValueError, match=r"x\.tar\.gz: texts/a\.txt/b\.txt is a file and a folder"):
        import_tar([path], tmp_path / "set")


@pytest.mark.parametrize("start", [b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0"])
def test_a_packed_archive_that_is_damaged_is_named(tmp_path, start):
    (tmp_path / "x.tar").write_bytes(start + b"\xff" * 100)
    with pytest.raises(ValueError, match=r"x\.tar cannot be read as a tar archive"):
        import_tar([tmp_path / "x.tar"], tmp_path / "set")


def test_verify_compares_splits_of_one_folder_and_reads_a_sample(tmp_path, synthetic):
    import shutil

    dataset = DatasetFolder(shutil.copytree(synthetic, tmp_path / "data"))
    names = dataset.names("train")
    dataset.write_split("version1/t2m/train", names[:10])
    dataset.write_split("version1/t2m/val", names[10:12])
    dataset.write_split("version1/t2m/all", names[:12])
    dataset.write_split("version1/tokenizer/train", names)
    assert verify(dataset).good
    report = verify(dataset, sample=5)
    assert report.good
    assert report.facts["sample"] == "5 of 40 motions were read"
    dataset.write_split("version1/t2m/val", names[9:12])
    assert list(verify(dataset, sample=2).problems) == ["in both version1/t2m/val and version1/t2m/train"]
