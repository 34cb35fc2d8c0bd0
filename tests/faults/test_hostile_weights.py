"""Weight files that are made to hang, to fill memory, or to change what is loaded after them."""

from __future__ import annotations

import json
import pickle
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch

from hftrainer.models.checkpoint import CheckpointError, open_checkpoint
from hftrainer.models.checkpoint.pickle_machine import Budget, run
from tests.models.test_checkpoint import legacy, torch_zip

SECONDS = 120  # the budget is 6; without it these never return, and machines may be busy


def refused(path: Path) -> str:
    """The message of the refusal, which has to come soon and name the file on one line."""
    start = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        {name: tensor for name, tensor in open_checkpoint(path).items()}
    assert time.monotonic() - start < SECONDS
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2500
    return str(caught.value)


def shared_tuples(levels: int = 60) -> bytes:
    """Operations that leave ((((a, a), (a, a)), ...) with 2^levels leaves on the stack."""
    return b"X\x01\0\0\0aq\0" + b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1])
                                         for n in range(levels))  # fmt: skip


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


STORAGE = b"(X\x07\0\0\0storage" + global_("torch", "FloatStorage") + b"X\x01\0\0\0" + b"0X\x03\0\0\0cpuK\x10tQ"
REBUILD = global_("torch._utils", "_rebuild_tensor_v2") + b"("


def tensor(shape: bytes, stride: bytes) -> bytes:
    return REBUILD + STORAGE + b"K\0" + shape + stride + b"\x89" + global_("collections", "OrderedDict") + b")RtR"


BIG = b"\x8a\x09" + (1 << 63).to_bytes(9, "little")
STRUCTURES = {
    "shared tuples beside": b"\x80\x02}X\x01\0\0\0a" + shared_tuples() + b"s.",
    "shared tuples as a key": b"\x80\x02}" + shared_tuples() + b"K\x01s.",
    "shared tuples in a set": b"\x80\x02" + global_("builtins", "set") + b"]" + shared_tuples() + b"a\x85R.",
    "shared tuples as a storage": b"\x80\x02}X\x01\0\0\0a" + shared_tuples() + b"Qs.",
    "shared tuples as a type": b"\x80\x02}X\x01\0\0\0a" + global_("numpy", "dtype") + shared_tuples() + b"\x85Rs.",
    "shared tuples as pairs": b"\x80\x02" + global_("collections", "OrderedDict") + b"]" + shared_tuples() + b"a\x85R.",
    "shared tuples as a size": b"\x80\x02}X\x01\0\0\0a" + global_("torch", "Size") + shared_tuples() + b"\x85Rs.",
    "many lists": b"\x80\x02" + b"]" * 5_000_000 + b".",
    "deep lists": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "a list in itself": b"\x80\x02}X\x01\0\0\0a]q\0h\0as.",
    "a dictionary in itself": b"\x80\x02}q\0X\x01\0\0\0ah\0s.",
    "a list as a key": b"\x80\x02}]K\x01s.",
    "text of 2^62 bytes": b"\x80\x04\x8d" + (1 << 62).to_bytes(8, "little") + b"a.",
    "bytes of 2^62": b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b"a.",
    "a number of 10,000 digits": b"\x80\x02}X\x01\0\0\0aI" + b"9" * 10_000 + b"\ns.",
    "a number of 2^20 bits": b"\x80\x02}X\x01\0\0\0a\x8b" + (1 << 17).to_bytes(4, "little")
    + b"\x7f" * (1 << 17) + b"s.",
    "a line without an end": b"\x80\x02I" + b"1" * 100_000,
    "an empty tensor of 2^63": b"\x80\x02}X\x01\0\0\0a" + tensor(b"K\0" + BIG + b"\x86", b"K\x01K\x01\x86") + b"s.",
    "70 dimensions": b"\x80\x02}X\x01\0\0\0a"
    + tensor(b"(" + b"K\x01" * 70 + b"t", b"(" + b"K\x01" * 70 + b"t") + b"s.",
    "a terabyte by stride 0": b"\x80\x02}X\x01\0\0\0a"
    + tensor(b"J\0\0\x10\0J\0\0\x10\0\x86", b"K\0K\0\x86") + b"s.",
    "state for a function": b"\x80\x02" + global_("collections", "OrderedDict") + b"(N}X\x0c\0\0\0__defaults__Nstb.",
    "state for a tensor": b"\x80\x02}X\x01\0\0\0a" + tensor(b"K\x02\x85", b"K\x01\x85")
    + b"}X\x06\0\0\0offsetK\x63sbs.",
    "state for a storage type": b"\x80\x02}X\x01\0\0\0a" + global_("torch", "FloatStorage")
    + b"}X\x04\0\0\0nameK\x63sbs.",
    "items of a function": b"\x80\x02" + global_("collections", "OrderedDict") + b"K\x01K\x01s.",
    "a call of a list": b"\x80\x02]\x85]R.",
    "keyword arguments": b"\x80\x04" + global_("collections", "OrderedDict") + b")}\x92.",
    "an extension": b"\x80\x02\x82\x01.",
    "a buffer from outside": b"\x80\x05\x97.",
    "nothing to take": b"\x80\x02s.",
    "a mark that is not there": b"\x80\x02t.",
    "no end": b"\x80\x02}",
    "numbers of one hash": b"\x80\x02}(" + b"".join(b"\x8a\x10" + (n * ((1 << 61) - 1)).to_bytes(16, "little") + b"N"
                                                for n in range(1, 50_000)) + b"u.",
    "numbers of one hash in a set": b"\x80\x04\x8f(" + b"".join(
        b"\x8a\x10" + (n * ((1 << 61) - 1)).to_bytes(16, "little") for n in range(1, 50_000)) + b"\x90.",
    "tuples of -1 and -2": b"\x80\x02}(" + b"".join(
        b"(" + b"".join(b"J" + struct.pack("<i", -1 - ((m >> bit) & 1)) for bit in range(4)) + b"tN" for m in range(16))
    + b"u.",
    "tuples of five": b"\x80\x02}(" + b"K\x01" * 5 + b"tNs.",
    "a name of 10 MB": b"\x80\x02}X" + struct.pack("<I", 10_000_000) + b"\xc3\xa9" * 5_000_000 + b"Ns.",
    "a storage of 1 MB name": b"\x80\x02}X\x01\0\0\0a"
    + tensor(b"K\x02\x85", b"K\x01\x85").replace(b"X\x01\0\0\x000", b"X\0\0\x10\0" + b"k" * (1 << 20))
    + b"s.",
    "a name with line ends": b"\x80\x02}X\x0a\0\0\0a\nall fine\nNs.",
    "tuples of large numbers": b"\x80\x02}\x8a\x05\0\0\0\0\x01K\x01\x86Ns.",
    "tuples of fractions": b"\x80\x02}G?\xb9\x99\x99\x99\x99\x99\x9aK\x01\x86Ns.",
    "20,000 classes": b"\x80\x02" + b"".join(global_("x", f"c{n}") for n in range(20_000)) + b".",
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_structures_that_are_refused(tmp_path, name, old):
    path = tmp_path / "x.pt"
    if old:
        legacy(path, STRUCTURES[name])
    else:
        torch_zip(path, STRUCTURES[name], {"x/data/0": bytes(64)})
    refused(path)


def test_a_refused_file_changes_nothing_of_the_next(tmp_path):
    """A hostile file once changed the functions that the reader hands out, and so every file read after it."""
    state = {"a": torch.arange(3.0)}
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "ordered.pt")
    torch.save(state, tmp_path / "plain.pt")
    for name in STRUCTURES:
        if name.startswith(("state", "items")):
            refused(torch_zip(tmp_path / "hostile.pt", STRUCTURES[name], {"x/data/0": bytes(64)}))
    assert list(open_checkpoint(tmp_path / "plain.pt")) == ["a"]
    assert list(open_checkpoint(tmp_path / "ordered.pt")) == ["weight", "bias"]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def test_reading_has_an_end_in_time(monkeypatch):
    import io

    from hftrainer.models.checkpoint import pickle_machine

    monkeypatch.setattr(pickle_machine, "time", Clock())
    with pytest.raises(CheckpointError, match="longer than 3 s"):
        run(io.BytesIO(b"\x80\x02" + b"N0" * 100_000 + b"."), None, Budget(seconds=3))  # type: ignore[arg-type]


# --- DeepSpeed --------------------------------------------------------------------------------------------------------


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def fields(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in values.items()) + b"u"


def one(levels: int = 60) -> bytes:
    """`shared_tuples` with nothing else on the stack."""
    return b"K\x01q\0" + b"".join(b"0h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1])
                                  for n in range(levels))  # fmt: skip


TENSOR = tensor(b"K\x02\x85", b"K\x01\x85")
MANY_SIZES = b"(" + b"\x8a\x0d" + (1 << 100).to_bytes(13, "little") + b"q\x99" + b"h\x99" * 300_000 + b"t"
RANK = {"zero_stage": b"K\x02", "partition_count": b"K\x01", "single_partition_of_fp32_groups": b"]" + TENSOR + b"a"}
MODEL = {"module": fields(a=TENSOR), "param_shapes": b"]" + fields(a=b"K\x02\x85") + b"a"}
DEEPSPEED = {  # what the model's file says, what the optimizer's says
    "a stage of shared tuples": ({}, {"zero_stage": one()}),
    "ranks of shared tuples": ({}, {"partition_count": b"]" + one() + b"a"}),
    "no ranks": ({}, {"partition_count": b"]"}),
    "a padding of shared tuples": ({}, {"param_alignment_paddings": b"]]" + one() + b"aa"}),
    "a shape of shared tuples": ({"param_shapes": b"]" + fields(a=one()) + b"a"}, {}),
    "a shape of 300,000 large sizes": ({"param_shapes": b"]" + fields(a=MANY_SIZES) + b"a"}, {}),
    "buffers in text": ({"buffer_names": text("abc")}, {}),
    "a frozen parameter called by a tuple": (
        {"frozen_param_shapes": b"}" + text("a") + b"\x85" + b"K\x02\x85s",
         "frozen_param_fragments": b"}" + text("a") + b"\x85" + TENSOR + b"s"}, {}),
}  # fmt: skip


def deepspeed(folder: Path, model: dict[str, bytes], rank: dict[str, bytes]) -> Path:
    folder.mkdir()
    state = {"optimizer_state_dict": fields(**{**RANK, **rank})}
    for name, content in (("mp_rank_00_model", {**MODEL, **model}), ("zero_pp_rank_0_mp_rank_00_optim", state)):
        torch_zip(folder / f"{name}_states.pt", b"\x80\x02" + fields(**content) + b".", {"x/data/0": bytes(64)})
    return folder


@pytest.mark.parametrize("name", DEEPSPEED)
def test_deepspeed_folders_that_are_refused(tmp_path, name):
    refused(deepspeed(tmp_path / "x", *DEEPSPEED[name]))


def test_deepspeed_names_of_shared_tuples_are_not_looked_up(tmp_path):
    more = {"shared_params": fields(c=one()), "buffer_names": b"]" + one() + b"a"}
    assert list(open_checkpoint(deepspeed(tmp_path / "x", more, {}))) == ["a"]


def test_a_deepspeed_file_that_is_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "a_model_states.pt")
    with pytest.raises(CheckpointError, match="device, pipe or socket"):
        open_checkpoint(tmp_path)


# --- safetensors ------------------------------------------------------------------------------------------------------


def safetensors(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


HEADERS = {
    "deep": (b'{"a":' * 50_000, b""),
    "a key twice": (b'{"a": %s, "a": %s}' % ((json.dumps(entry([1], 0, 4)).encode(),) * 2), bytes(4)),
    "an empty map": ({}, b""),
    "words only": ({"__metadata__": {"format": "pt"}}, b""),
    "a gap": ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
    "bytes behind": ({"a": entry([1], 0, 4)}, bytes(8)),
    "an overlap": ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),
    "2^63": ({"a": entry([0, 1 << 63], 0, 0)}, b""),
    "2^40 by 2^40 of nothing": ({"a": entry([0, 1 << 40, 1 << 40], 0, 0)}, b""),
    "100,000 dimensions": ({"a": entry([2] * 100_000, 0, 4)}, bytes(4)),
    "NaN": (b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', bytes(4)),
    "null": (b"null", b""),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_are_refused(tmp_path, name):
    refused(safetensors(tmp_path / "x.safetensors", *HEADERS[name]))


INDEXES = {
    "deep": b"[" * 100_000, "null": b"null", "list": b"[]", "no map": b"{}", "empty map": b'{"weight_map": {}}',
    "map of numbers": b'{"weight_map": {"a": 1}}', "map of lists": b'{"weight_map": {"a": []}}',
    "outside": b'{"weight_map": {"a": "../x.safetensors"}}', "absolute": b'{"weight_map": {"a": "/etc/passwd"}}',
    "a folder": b'{"weight_map": {"a": "."}}', "escape": b'{"weight_map": {"a": "\\u001b[2Jx"}}',
    "infinite": b'{"metadata": {"total_size": 1e999}, "weight_map": {"a": "x"}}',
}  # fmt: skip


@pytest.mark.parametrize("name", INDEXES)
def test_indexes_that_are_refused(tmp_path, name):
    path = tmp_path / "x.safetensors.index.json"
    path.write_bytes(INDEXES[name])
    assert "\x1b" not in refused(path)


# --- archives ---------------------------------------------------------------------------------------------------------


def test_archives_in_archives(tmp_path):
    path = tmp_path / "0.pt"
    torch.save({"a": torch.zeros(1)}, path)
    for level in range(1, 6):
        outer = tmp_path / f"{level}.zip"
        with zipfile.ZipFile(outer, "w") as archive:
            archive.write(path, path.name)
        path = outer
    assert list(open_checkpoint(tmp_path / "2.zip")) == ["a"]
    with pytest.raises(CheckpointError, match="an archive in 3 others"):
        open_checkpoint(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_unpack_to_any_size_at_once_are_refused(tmp_path, method):
    """zipfile gives these no limit: a megabyte became as many gigabytes as it liked, whatever the entry's size said."""
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x/data.pkl", STRUCTURES["no end"])
    assert "is packed by method" in refused(path)


def test_a_byte_order_of_gigabytes_is_not_unpacked(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("x/byteorder", b"little" + b" " * 1000)
    assert "big-endian" in refused(path)


@pytest.mark.parametrize("names", [["a", "a/b.pt"], ["x.pt"], ["C:/x.pt"]])
def test_what_is_wrong_in_an_archive_names_the_archive(tmp_path, names):
    """The folder that it was unpacked to is gone, and says nothing."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    assert "hftrainer-unpacked" not in refused(path)


def test_checksums_of_gigabytes_of_zeros_are_not_made(tmp_path, monkeypatch):
    from hftrainer.models.checkpoint import torch_zip as module

    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/more", bytes(1 << 20))
    monkeypatch.setattr(module, "_SMALL", 1 << 19)
    with pytest.raises(CheckpointError, match=r"x\.pt would grow from"):
        open_checkpoint(path, verify=True)


def test_archives_of_many_entries(tmp_path):
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(11_000):
            archive.writestr(f"{number}", b"")
        archive.writestr("x.pt", pickle.dumps(1))
    assert "no checkpoint has more than" in refused(path)


def test_unpacked_archives_of_dead_processes_are_removed(tmp_path, monkeypatch):
    """78 GB of a 7B checkpoint would stay in the temporary folder."""
    import subprocess
    import sys
    import tempfile

    from hftrainer import files

    torch.save({"a": torch.zeros(1)}, tmp_path / "0.pt")
    with zipfile.ZipFile(tmp_path / "0.zip", "w") as archive:
        archive.write(tmp_path / "0.pt", "0.pt")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(files, "_swept", set())
    code = f"""if True:
        import os, signal
        from hftrainer.models.checkpoint import open_checkpoint
        held = open_checkpoint({str(tmp_path / "0.zip")!r})
        os.kill(os.getpid(), signal.SIGKILL)"""
    subprocess.run([sys.executable, "-c", code], check=False)
    left = list((tmp_path / "tmp").glob(".hftrainer-unpacked-*"))
    assert len(left) == 1
    checkpoint = open_checkpoint(tmp_path / "0.zip")
    assert not left[0].exists()
    assert len(list((tmp_path / "tmp").glob(".hftrainer-unpacked-*"))) == 1  # its own
    assert checkpoint["a"].tolist() == [0]
