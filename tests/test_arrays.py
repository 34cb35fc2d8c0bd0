"""A .npy header is compared with what was asked for, with its file and with a budget before anything is allocated."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from hftrainer.arrays import Wanted, npy_header, parse_npy, read_npy, read_npz
from hftrainer.readers import FileError


def npy(array: np.ndarray, **kwargs: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **kwargs)  # type: ignore[arg-type]
    return stream.getvalue()


def header(text: str, version: int = 1) -> bytes:
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + len(text.encode()).to_bytes(2 if version == 1 else 4, "little")
        + text.encode()
    )


def described(descr: str, shape: str) -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n")


HOSTILE = {
    "empty": (b"", "it is empty"),
    "text": (b"hello, this is text", "cannot be read as a numpy array: it starts"),
    "npz by name": (b"PK\x03\x04" + b"\0" * 40, "is a .npz archive"),
    "version": (b"\x93NUMPY\x09\0" + b"\0" * 40, "version 9.0"),
    "short": (b"\x93NUMPY\x01\0\x76", "header is|ends inside"),
    "header of 4 GB": (b"\x93NUMPY\x02\0\xff\xff\xff\xff", "4294967295 bytes long"),
    "10^10 rows": (described("'<f4'", "(10000000000, 272)") + b"\0" * 64, "was it cut short"),
    "2^63": (described("'<f4'", "(0, 9223372036854775808)"), "header is damaged"),
    "nothing by 2^61": (described("'<f4'", "(0, 2305843009213693952, 272)"), "no array can have the shape"),
    "2^61 by nothing": (described("'<f4'", "(2305843009213693952, 0)"), "no array can have the shape"),
    "what Python warns of": (described("'<f4'", "(1if 1else 2, 272)"), "header is damaged"),
    "an unknown escape": (described("'<f4\\\\d'", "(1, 272)"), "header is damaged"),
    "negative": (described("'<f4'", "(-1, 272)"), "header is damaged"),
    "boolean size": (described("'<f4'", "(True, 272)"), "header is damaged"),
    "10^4 dimensions": (described("'<f4'", "(" + "1," * 3000 + ")"), "header is damaged"),
    "deep": (header("(" * 9000), "header is damaged"),
    "calls": (header("__import__('os').system('true')\n"), "header is damaged"),
    "objects": (npy(np.array([{}], dtype=object), allow_pickle=True), "its type '|O'"),
    "texts": (npy(np.array(["a"])), "its type '<U1'"),
    "structures": (npy(np.zeros(2, [("a", "f4")])), "its type 'a structure'"),
    "complex": (npy(np.zeros(2, "c8")), "its type '<c8'"),
    "dates": (npy(np.zeros(2, "M8[s]")), "its type"),
    "voids": (described("'|V4'", "(4,)") + b"\0" * 16, "its type"),
    "float128": (described("'<f16'", "(1,)") + b"\0" * 16, "its type"),
    "whole numbers": (npy(np.zeros((3, 272), "i4")), r"expected floats \(frames, 272\), got \(3, 272\) of type '<i4'"),
    "width": (npy(np.zeros((3, 263), "f4")), r"expected floats \(frames, 272\), got \(3, 263\) of type"),
    "dimensions": (npy(np.zeros(272, "f4")), r"floats \(frames, 272\), got \(272,\)"),
    "cut": (npy(np.zeros((3, 272), "f4"))[:-1], "3263 are there; was it cut short"),
    "longer": (npy(np.zeros((3, 272), "f4")) + b"x", "it is damaged"),
    "NaN": (npy(np.full((3, 272), np.nan, "f4")), "frame 0 holds a NaN or infinite value"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_arrays_that_are_refused(name, tmp_path):
    data, why = HOSTILE[name]
    path = tmp_path / "motion.npy"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=why) as caught:
            read_npy(path, shape=(None, 272), finite=True)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    with pytest.raises(FileError, match=why):
        parse_npy(data, "member", shape=(None, 272), finite=True)
    if name != "NaN":
        with pytest.raises(FileError, match=why):
            npy_header(path, kind="float", shape=(None, 272))


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f2", "<f8", "<i8", "|u1", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (0, 272), (3, 4), (2, 3, 4)])
def test_arrays_that_are_read(tmp_path, mapped, kind, order, shape):
    array = np.asarray(np.arange(int(np.prod(shape))).reshape(shape), dtype=kind, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", array)
    read = read_npy(tmp_path / "a.npy", kind="any", mapped=mapped)
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype.newbyteorder("=")
    assert type(read) is np.ndarray


def test_an_array_is_within_its_budget(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((100, 272), np.float32))
    with pytest.raises(FileError, match="limit is 1000"):
        read_npy(tmp_path / "a.npy", max_bytes=1000)
    assert read_npy(tmp_path / "a.npy", max_bytes=1000, mapped=True).shape == (100, 272)


def test_devices_are_not_arrays(tmp_path):
    (tmp_path / "a.npy").symlink_to("/dev/zero")
    with pytest.raises(FileError, match="a device"):
        read_npy(tmp_path / "a.npy")


def test_archives_of_arrays(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros((2, 3), np.float32), b=np.arange(4), t=np.array(["one", "zwölf"]))
    assert read_npz(path, {"t": Wanted("text")})["t"].tolist() == ["one", "zwölf"]
    read = read_npz(path, {"a": Wanted(shape=(None, 3)), "b": Wanted("int"), "c": Wanted()}, optional=["c"])
    assert set(read) == {"a", "b"}
    assert read["a"].shape == (2, 3)
    with pytest.raises(FileError, match=r"has no array 'c'; it holds \['a.npy', 'b.npy', 't.npy'\]"):
        read_npz(path, {"c": Wanted()})
    with pytest.raises(FileError, match="'b': expected floats, got"):
        read_npz(path, {"b": Wanted()})
    with pytest.raises(FileError, match="but the limit leaves 10"):
        read_npz(path, {"a": Wanted()}, max_bytes=10)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FileError, match="was it cut short"):
        read_npz(path, {"a": Wanted()})


def test_an_archive_that_grows_is_refused_before_it_does(tmp_path):
    path = tmp_path / "bomb.npz"
    rows = 2_000_000
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as out,
    ):
        out.write(described("'<f4'", f"({rows}, 272)"))
        for _ in range(rows // 10_000):
            out.write(bytes(10_000 * 272 * 4))
    assert path.stat().st_size < 4 << 20
    with pytest.raises(FileError, match="but the limit leaves 1073741824"):
        read_npz(path, {"a": Wanted()}, max_bytes=1 << 30)


def test_damage_of_an_archive_is_said(tmp_path):
    whole = tmp_path / "whole.npz"
    np.savez(whole, a=np.arange(100, dtype=np.float32))
    data = bytearray(whole.read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(data)
    with pytest.raises(FileError, match=r"flipped\.npz"):
        read_npz(tmp_path / "flipped.npz", {"a": Wanted()})


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_unpack_to_any_size_at_once_are_refused(tmp_path, method):
    """zipfile gives these no limit, whatever the entry's size says."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", npy(np.zeros(3)))
    with pytest.raises(FileError, match=r"x\.npz: 'a' is packed by method"):
        read_npz(path, {"a": Wanted()})


@pytest.mark.parametrize("descr", ["<U0", "<U٣", "<U1٣"])
def test_texts_of_no_length_and_of_other_digits_are_refused(tmp_path, descr):
    path = tmp_path / "x.npy"
    path.write_bytes(header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}\n", 3))
    with pytest.raises(FileError, match=r"x\.npy.*is not a supported number type"):
        read_npy(path, kind="text")


@pytest.mark.parametrize(("order", "number"), [("<", 0x110000), (">", 0x7FFFFFFF), ("<", 0xD800), (">", 0xDFFF)])
def test_texts_of_numbers_that_are_no_letters_are_refused(tmp_path, order, number):
    """Python makes text of them, and fails with a SystemError where it is looked at."""
    path = tmp_path / "x.npy"
    data = np.array([97, number], dtype=f"{order}u4").tobytes()
    path.write_bytes(header(f"{{'descr': '{order}U2', 'fortran_order': False, 'shape': (), }}\n", 3) + data)
    with pytest.raises(FileError, match=r"x\.npy holds numbers that are no letters"):
        read_npy(path, kind="text")
