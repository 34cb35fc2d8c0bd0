"""Weight files of every form are read back equal, and files that are damaged or hostile run nothing and say so."""

from __future__ import annotations

import collections
import gc
import io
import json
import math
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hftrainer.models.checkpoint import CheckpointError, UnsafeCheckpoint, open_checkpoint, write_module, write_state
from hftrainer.models.checkpoint.safe_pickle import load_pickle
from hftrainer.models.checkpoint.safetensors import ALIGNMENT, read_safetensors, shards, write_safetensors

torch.manual_seed(0)
BASE = torch.randn(6, 8)
STATE = {
    "a.weight": torch.randn(3, 5),
    "a.bias": torch.randn(5).bfloat16(),
    "b.transposed": BASE.T,
    "b.part": BASE[2:4, 1:],
    "b.same": BASE,
    "c.half": torch.randn(2, 2, 2).half(),
    "c.codes": torch.arange(7),
    "c.flag": torch.tensor(True),
    "c.scalar": torch.tensor(3.5),
    "c.empty": torch.zeros(0, 4),
}


def check(checkpoint, want=STATE):
    assert set(checkpoint) == set(want)
    for name, tensor in want.items():
        assert checkpoint.shape_of(name) == tuple(tensor.shape)
        assert checkpoint.dtype_of(name) == tensor.dtype
        assert torch.equal(checkpoint[name], tensor), name


# --- forms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pth", "pt", "ckpt", "zip", "bin", "weights"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("key", [None, "net", "trans", "state_dict"])
def test_torch_files_under_any_name(tmp_path, suffix, legacy, key):
    state = {f"module.{name}": tensor for name, tensor in STATE.items()} if key == "trans" else STATE
    content = state if key is None else {"nb_iter": 5, key: state, "note": "x", "lr": [1e-3, None]}
    path = tmp_path / f"file.{suffix}"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    checkpoint = open_checkpoint(path)
    check(checkpoint)
    assert checkpoint.form == ("torch legacy" if legacy else "torch zip")


def test_state_dicts_of_modules_parameters_and_buffers(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save(module.state_dict(), tmp_path / "m.pth")  # an OrderedDict with _metadata
    check(open_checkpoint(tmp_path / "m.pth"), module.state_dict())
    torch.save(dict(module.named_parameters()), tmp_path / "p.pth")  # Parameters, not plain tensors
    check(open_checkpoint(tmp_path / "p.pth"), dict(module.named_parameters()))


def test_safetensors_and_shards(tmp_path):
    plain = {name: tensor.contiguous() for name, tensor in STATE.items()}
    save_file(plain, tmp_path / "x.safetensors", metadata={"format": "pt"})
    check(open_checkpoint(tmp_path / "x.safetensors"))
    types = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in plain.items()}
    write_state(tmp_path / "s", "ar", types, plain.__getitem__, shard_bytes=150)
    files = sorted(p.name for p in (tmp_path / "s").iterdir())
    assert len(files) > 3
    check(open_checkpoint(tmp_path / "s" / "ar.safetensors.index.json"))
    check(open_checkpoint(tmp_path / "s"))
    for file in files[:-1]:  # the library reads what we write
        for name, tensor in load_file(tmp_path / "s" / file).items():
            assert torch.equal(tensor, plain[name])


def test_written_modules_are_read_by_the_library(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.Embedding(3, 2))
    write_module(module, tmp_path, "m", dtype=torch.bfloat16)
    for name, tensor in load_file(tmp_path / "m.safetensors").items():
        assert torch.equal(tensor, module.state_dict()[name].bfloat16())


def test_written_tensors_start_where_torch_would_put_them(tmp_path):
    sizes = {"odd": (3,), "large": (8, 16), "one": (1,), "pairs": (2, 3), "larger": (5, 64), "none": (0,), "half": (8,)}
    state = {name: torch.randn(shape) for name, shape in sizes.items()} | {"flags": torch.ones(5, dtype=torch.bool)}
    types = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}
    path = tmp_path / "m.safetensors"
    for words in ("", "a", "ab", "a" * 61):  # the header's length does not matter
        write_safetensors(path, types, state.__getitem__, metadata={"words": words})
        loaded = load_file(path)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
        for name, ref in read_safetensors(path).items():  # what is a multiple of 64 bytes starts at one
            assert ref.storage.start % math.gcd(ref.nbytes, ALIGNMENT) == 0, name
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_shards_keep_order_and_limit():
    assert shards([("a", 4), ("b", 4), ("c", 9), ("d", 1)], 8) == [["a", "b"], ["c"], ["d"]]


def test_lightning_checkpoints_with_a_prefix(tmp_path):
    content = {
        "epoch": 1, "global_step": 9, "pytorch-lightning_version": "2.0", "hyper_parameters": {"x": 1},
        "state_dict": {f"bundle.ar.{name}": tensor for name, tensor in STATE.items()},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1.0}]}],
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(1.0)}}, "loops": {},
    }  # fmt: skip
    torch.save(content, tmp_path / "l.ckpt")
    check(open_checkpoint(tmp_path / "l.ckpt", prefix="bundle.ar."))
    with pytest.raises(CheckpointError, match=r"no tensor's name starts with 'bundle\.vq'"):
        open_checkpoint(tmp_path / "l.ckpt", prefix="bundle.vq")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("inner", ["model.pth", "deep/model.safetensors"])
def test_a_zip_around_a_weight_file(tmp_path, compression, inner):
    file = tmp_path / Path(inner).name
    if inner.endswith("pth"):
        torch.save({"net": STATE}, file)
    else:
        save_file({name: tensor.contiguous() for name, tensor in STATE.items()}, file)
    with zipfile.ZipFile(tmp_path / "fsq.zip", "w", compression) as archive:
        archive.write(file, inner)
        archive.writestr("README.txt", "weights")
    checkpoint = open_checkpoint(tmp_path / "fsq.zip")
    check(checkpoint)
    assert checkpoint.form.startswith("zip archive of")
    unpacked = checkpoint._tensors["a.weight"].storage.path
    assert unpacked.exists()
    del checkpoint
    gc.collect()
    assert not unpacked.exists()


class DeepSpeedThing:
    """Stands for a class of a package that is not installed where the file is read."""

    def __init__(self, value):
        self.value = value


class DeepSpeedEnum(int):
    """An enumeration, pickled by its value."""

    def __reduce__(self):
        return (DeepSpeedEnum, (int(self),))


def foreign(*classes):
    """Pickle classes under the names of a package that is not there."""
    for cls in classes:
        cls.__module__ = "someones_package"


def test_classes_that_cannot_be_imported_are_left_alone(tmp_path):
    """As in the released t2m_*_all.zip: `trans` beside a DeepSpeed optimizer state."""
    import sys
    import types

    module = types.ModuleType("someones_package")
    module.DeepSpeedThing, module.DeepSpeedEnum = DeepSpeedThing, DeepSpeedEnum
    foreign(DeepSpeedThing, DeepSpeedEnum)
    sys.modules[module.__name__] = module
    try:
        optimizer = {
            "loss_scaler": DeepSpeedThing(torch.zeros(3)), "zero_stage": DeepSpeedEnum(2),
            "param_slice_mappings": [collections.OrderedDict(x=DeepSpeedThing(2))],
            "base_optimizer_state": {"state": [torch.zeros(1000)]},
        }  # fmt: skip
        torch.save({"trans": {f"module.{k}": v for k, v in STATE.items()}, "optimizer": optimizer}, tmp_path / "t.zip")
    finally:
        del sys.modules[module.__name__]
    checkpoint = open_checkpoint(tmp_path / "t.zip", keys=("trans",))
    check(checkpoint)
    assert checkpoint.placeholders == {
        "someones_package.DeepSpeedThing", "someones_package.DeepSpeedEnum",
    }  # fmt: skip


def test_only_tensors_that_are_asked_for_are_read(tmp_path, monkeypatch):
    """Opening maps nothing; one tensor maps its file and touches its own pages."""
    from hftrainer.models.checkpoint import tensors

    opened = []
    original = tensors._mapped
    monkeypatch.setattr(tensors, "_mapped", lambda ref, held: opened.append(ref.path) or original(ref, held))
    torch.save({"trans": STATE, "optimizer": torch.zeros(1_000_000)}, tmp_path / "t.pth")
    checkpoint = open_checkpoint(tmp_path / "t.pth", keys=("trans",))
    assert opened == []
    assert torch.equal(checkpoint["a.weight"], STATE["a.weight"])
    assert opened == [tmp_path / "t.pth"]


def test_one_checkpoint_holds_one_descriptor_a_file_and_two_share_nothing(tmp_path):
    """A 7B model has hundreds of tensors, and two models of one folder must not see each other's training."""
    save_file({str(i): torch.zeros(3) for i in range(50)}, tmp_path / "a.safetensors")
    gc.collect()
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    first, second = (dict(open_checkpoint(tmp_path / "a.safetensors")) for _ in range(2))
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before + 2
    first["7"].fill_(1)
    assert second["7"].tolist() == [0, 0, 0]
    del first, second
    gc.collect()
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files and overcommit as Linux has them")
def test_files_larger_than_memory_open(tmp_path):
    """A released file with its optimizer is larger than a small machine's memory; mapping it whole would fail."""
    tensor = torch.arange(10.0)
    optimizer = {"dtype": "U8", "shape": [1 << 42], "data_offsets": [0, 1 << 42]}
    weights = {"dtype": "F32", "shape": [10], "data_offsets": [1 << 42, (1 << 42) + 40]}
    header = json.dumps({"optimizer": optimizer, "x": weights}).encode()
    try:
        with open(tmp_path / "large.safetensors", "wb") as stream:
            stream.write(len(header).to_bytes(8, "little") + header)
            stream.seek(1 << 42, 1)
            stream.write(tensor.numpy().tobytes())
    except OSError:
        pytest.skip("this disk cannot hold a sparse file of 4 TB")
    assert torch.equal(open_checkpoint(tmp_path / "large.safetensors")["x"], tensor)


def test_changing_a_loaded_tensor_does_not_change_the_file(tmp_path):
    torch.save(STATE, tmp_path / "t.pth")
    before = (tmp_path / "t.pth").read_bytes()
    open_checkpoint(tmp_path / "t.pth")["a.weight"].zero_()
    assert (tmp_path / "t.pth").read_bytes() == before


def test_numpy_values_beside_the_weights(tmp_path):
    content = {"net": STATE, "mean": np.arange(3.0), "n": np.float64(2.5), "f": np.asfortranarray(np.eye(2, 3))}
    torch.save(content, tmp_path / "t.pth")
    check(open_checkpoint(tmp_path / "t.pth", keys=("net",)))


# --- hostile files --------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class State:
    """Pickles as an object of `cls` that is given `state`."""

    def __init__(self, cls, arguments, state):
        self.parts = cls, arguments, state

    def __reduce__(self):
        return self.parts


def proof(tmp_path):
    return tmp_path / "proof"


def named(module: str, name: str, argument: str) -> bytes:
    """A pickle that calls `module.name(argument)`, written by hand."""
    return (
        b"\x80\x02c"
        + f"{module}\n{name}\n".encode()
        + b"X"
        + struct.pack("<I", len(argument))
        + argument.encode()
        + b"\x85R."
    )


def torch_zip(path: Path, data: bytes, extra: dict[str, bytes] | None = None, **options) -> Path:
    """A torch zip file with this data.pkl."""
    with zipfile.ZipFile(path, "w", options.get("compression", zipfile.ZIP_STORED)) as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/version", "3\n")
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return path


def legacy(path: Path, data: bytes) -> Path:
    """A legacy torch file with this structure."""
    stream = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
        pickle.dump(value, stream, protocol=2)
    path.write_bytes(stream.getvalue() + data + pickle.dumps([], protocol=2))
    return path


COMMAND = "echo ran > "
DANGEROUS = [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"), ("subprocess", "call"),
    ("subprocess", "check_output"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "compile"),
    ("builtins", "__import__"), ("builtins", "getattr"), ("builtins", "open"), ("builtins", "print"),
    ("builtins", "globals"), ("builtins", "map"), ("builtins", "type"), ("builtins", "memoryview"),
    ("importlib", "import_module"), ("importlib.util", "spec_from_file_location"), ("runpy", "run_path"),
    ("pickle", "loads"), ("_pickle", "loads"), ("marshal", "loads"), ("shutil", "rmtree"), ("shelve", "open"),
    ("code", "interact"), ("codecs", "decode"), ("functools", "partial"), ("operator", "attrgetter"),
    ("operator", "methodcaller"), ("socket", "create_connection"), ("urllib.request", "urlopen"),
    ("webbrowser", "open"), ("pty", "spawn"), ("ctypes", "CDLL"), ("ctypes", "cdll"), ("timeit", "timeit"),
    ("cProfile", "run"), ("pdb", "run"), ("doctest", "debug_script"), ("asyncio", "run"), ("threading", "Thread"),
    ("multiprocessing", "Process"), ("tempfile", "mktemp"), ("sys", "exit"), ("site", "main"),
    ("torch", "load"), ("torch.storage", "_load_from_bytes"), ("torch.serialization", "load"), ("torch.hub", "load"),
    ("torch", "compile"), ("torch.jit", "load"), ("torch._utils", "_rebuild_sparse_tensor"),
    ("torch._utils", "_import_dotted_name"), ("torch.utils.cpp_extension", "load"), ("torch.package",
    "PackageImporter"), ("numpy", "load"), ("numpy", "fromfile"), ("numpy", "vectorize"), ("numpy.f2py", "compile"),
    ("numpy.testing._private.utils", "runstring"), ("hftrainer.cli", "main"), ("__main__", "main"),
]  # fmt: skip


def lookup(owner: bytes, name: str) -> bytes:
    """A pickle of {"a": getattr(owner, name)}, as Python 3.11.0 to 3.11.3 write members of an enum."""
    member = b"cbuiltins\ngetattr\n" + owner + b"X" + struct.pack("<I", len(name)) + name.encode() + b"\x86R"
    return b"\x80\x02}X\x01\x00\x00\x00a" + member + b"s."


def test_an_enums_member_stays_inert(tmp_path):
    stream = io.BytesIO(lookup(b"cdeepspeed.utils\nStage\n", "weights"))
    read = load_pickle(stream, tmp_path / "x.pth", lambda pid: pid)
    assert read.placeholders == {"deepspeed.utils.Stage"}
    assert read.value["a"].arguments == ("weights",)


@pytest.mark.parametrize(
    "owner",
    [b"ccollections\nOrderedDict\n", b"X\x01\x00\x00\x00s", b"cdeepspeed.utils\nStage\n)R", b"ctorch\nfloat32\n"],
)
@pytest.mark.parametrize("name", ["__class__", "__reduce_ex__", "__subclasses__", "mro"])
def test_attributes_of_anything_else_are_refused(tmp_path, owner, name):
    with pytest.raises(UnsafeCheckpoint, match=r"asks for builtins\.getattr of .*nothing was run"):
        open_checkpoint(torch_zip(tmp_path / "x.pth", lookup(owner, name)))


@pytest.mark.parametrize(("module", "name"), DANGEROUS, ids=lambda v: v)
@pytest.mark.parametrize("form", ["zip", "legacy", "archive"])
def test_calls_of_pythons_own_are_refused_by_name(tmp_path, module, name, form):
    data = named(module, name, COMMAND + str(proof(tmp_path)))
    path = legacy(tmp_path / "x.pth", data) if form == "legacy" else torch_zip(tmp_path / "x.pth", data)
    if form == "archive":
        with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
            archive.write(path, "model.pth")
        path = tmp_path / "outer.zip"
    with pytest.raises(UnsafeCheckpoint, match=rf"asks for {module}\.{name}.*nothing was run") as caught:
        open_checkpoint(path)
    assert "x.pth" in str(caught.value) or "model.pth" in str(caught.value)
    assert not proof(tmp_path).exists()


def rebuild(*arguments):
    return Call(torch._utils._rebuild_tensor_v2, *arguments)


HOSTILE = {
    "os.system inside a state dict": lambda t: {"net": {"w": Call(os.system, COMMAND + str(t))}},
    "os.system as a key": lambda t: {Call(os.system, COMMAND + str(t)): 1},
    "nested in the arguments of a tensor": lambda t: {"w": rebuild(Call(os.system, COMMAND + str(t)), 0, (1,), (1,))},
    "nested in an ordered dictionary": lambda t: collections.OrderedDict(a=[(Call(os.system, COMMAND + str(t)),)]),
    "in the state of an ordered dictionary": lambda t: State(
        collections.OrderedDict, (), {"__setstate__": Call(os.system, COMMAND + str(t))}
    ),
    "behind _rebuild_from_type": lambda t: Call(
        torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (COMMAND + str(t),), None
    ),
    "_rebuild_from_type with a foreign rebuild": lambda t: Call(
        torch._tensor._rebuild_from_type_v2, print, torch.Tensor, (1,), None
    ),
    "a numpy object array": lambda t: {"net": np.array([Call(os.system, COMMAND + str(t))], dtype=object)},
    "a pickle in a pickle": lambda t: {"net": Call(pickle.loads, pickle.dumps(Call(os.system, COMMAND + str(t))))},
    "a tensor without a storage": lambda t: {"w": rebuild("storage", 0, (1,), (1,))},
    "a size with a string": lambda t: {"w": Call(torch.Size, ["3"])},
    "a size that is negative": lambda t: {"w": Call(torch.Size, (-1,))},
    "an ordered dictionary of a number": lambda t: {"w": Call(collections.OrderedDict, 5)},
    "encode with another codec": lambda t: {"w": Call(__import__("_codecs").encode, "x", "rot13")},
    "a numpy dtype of objects": lambda t: {"w": Call(np.dtype, "O8")},
    "a numpy dtype of rubbish": lambda t: {"w": Call(np.dtype, "i4,(999999999999,)O")},
    "a numpy scalar of the wrong size": lambda t: {"w": Call(np._core.multiarray.scalar, np.dtype("f8"), b"abc")},
    "not a dictionary": lambda t: [1, 2, 3],
    "a dictionary without tensors": lambda t: {"epoch": 3},
    "nothing": lambda t: {},
    "a state dict with text in it": lambda t: {"state_dict": {"w": "text"}},
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_hostile_structures_run_nothing_and_are_errors(tmp_path, case, form):
    data = pickle.dumps(HOSTILE[case](proof(tmp_path)), protocol=2)
    path = legacy(tmp_path / "x.pth", data) if form == "legacy" else torch_zip(tmp_path / "x.pth", data)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert "x.pth" in str(caught.value)
    assert not proof(tmp_path).exists()


def storage_pickle(numel=4, offset=0, shape=(4,), stride=(1,), key="0", kind="FloatStorage") -> bytes:
    """A state dict of one tensor, written by hand."""

    class Storage:
        def __reduce__(self):
            raise AssertionError

    class Writer(pickle._Pickler):
        def persistent_id(self, value):
            return ("storage", getattr(torch, kind), key, "cpu", numel) if isinstance(value, Storage) else None

    stream = io.BytesIO()
    Writer(stream, protocol=2).dump({"w": rebuild(Storage(), offset, shape, stride, False, {})})
    return stream.getvalue()


def test_the_hand_written_file_is_right_before_it_is_made_wrong(tmp_path):
    path = torch_zip(tmp_path / "x.pth", storage_pickle(), {"x/data/0": np.arange(4, dtype=np.float32).tobytes()})
    assert open_checkpoint(path)["w"].tolist() == [0, 1, 2, 3]


BYTES = np.arange(4, dtype=np.float32).tobytes()
BROKEN = {
    "a storage that is not there": (storage_pickle(key="1"), {"x/data/0": BYTES}, "storage '1' is not in the file"),
    "a storage that is too small": (storage_pickle(numel=9), {"x/data/0": BYTES}, "16 bytes and should hold 36"),
    "a tensor larger than its storage": (storage_pickle(shape=(5,)), {"x/data/0": BYTES}, "needs 5 items"),
    "an offset past the end": (storage_pickle(offset=3), {"x/data/0": BYTES}, "needs 7 items"),
    "a negative offset": (storage_pickle(offset=-1), {"x/data/0": BYTES}, "are no sizes"),
    "a negative stride": (storage_pickle(stride=(-1,)), {"x/data/0": BYTES}, "a tensor's sizes are"),
    "strides that do not fit": (storage_pickle(stride=(1, 1)), {"x/data/0": BYTES}, "do not belong together"),
    "a huge shape": (storage_pickle(shape=(1 << 40, 1 << 20), stride=(1, 1)), {"x/data/0": BYTES}, "items of"),
    "a key that leads out": (storage_pickle(key="../../0"), {"x/data/0": BYTES}, "is not in the file"),
    "a big-endian file": (storage_pickle(), {"x/data/0": BYTES, "x/byteorder": b"big"}, "big-endian"),
    "an entry with dots": (storage_pickle(), {"x/data/0": BYTES, "x/../../evil": b""}, "leads out of the archive"),
    "an absolute entry": (storage_pickle(), {"x/data/0": BYTES, "/etc/evil": b""}, "leads out of the archive"),
    "a backslash": (storage_pickle(), {"x/data/0": BYTES, "x\\..\\evil": b""}, "leads out of the archive"),
    "two structures": (storage_pickle(), {"x/data/0": BYTES, "y/data.pkl": b""}, "has 2 data.pkl"),
    "an empty pickle": (b"", {}, "its pickle is damaged"),
    "a pickle cut short": (storage_pickle()[:-5], {"x/data/0": BYTES}, "its pickle is damaged"),
    "an unknown opcode": (b"\x80\x02\xff.", {}, "its pickle is damaged"),
    "a memo that is not there": (b"\x80\x02h\x05.", {}, "its pickle is damaged"),
    "a string of many gigabytes": (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", {}, "its pickle is damaged"),
    "a deep nest": (b"\x80\x02" + b"(" * 100000 + b"t" * 100000 + b".", {}, "x.pth"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_torch_files_say_what_is_wrong(tmp_path, case):
    data, extra, message = BROKEN[case]
    path = torch_zip(tmp_path / "x.pth", data, extra)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(path)["w"]
    assert "x.pth" in str(caught.value) or "tensor" in str(caught.value)


def test_compressed_storages_and_bombs(tmp_path):
    data = {"x/data/0": bytes(4)}
    path = torch_zip(tmp_path / "x.pth", storage_pickle(), data, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="is compressed, which torch does not write"):
        open_checkpoint(path)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.pth", bytes(100 << 20))
    with pytest.raises(CheckpointError, match="weights do not compress that well"):
        open_checkpoint(tmp_path / "bomb.zip")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.pth", b"")
        archive.writestr("b.pth", b"")
    with pytest.raises(CheckpointError, match="expected one weight file in the archive, found 2"):
        open_checkpoint(tmp_path / "two.zip")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_every_truncation_is_an_error(tmp_path, form):
    path = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pth")
    state = {"w": torch.arange(64.0), "v": torch.arange(8)}
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    for size in range(0, len(whole), 17):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            open_checkpoint(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_every_flipped_bit_is_an_error_or_changes_values_alone(tmp_path, form):
    """Flips in structure are errors of ours and never anything else; flips in a zip's data are found by `verify`."""
    path = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pth")
    state = {"w": torch.arange(16.0), "v": torch.arange(3)}
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    undetected = 0
    for place in rng.choice(len(whole), size=min(400, len(whole)), replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = dict(open_checkpoint(path, verify=True))
        except CheckpointError:
            continue
        if form == "zip":  # what verify passes is unused: names of records, padding, dates
            assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items() if name in loaded)
        undetected += 1
    assert undetected < 350


SAFETENSORS = {
    "no header": (b"", "no complete header"),
    "a header longer than the file": (struct.pack("<Q", 1 << 40) + b"{}", "no complete header"),
    "a header that is not JSON": (struct.pack("<Q", 4) + b"abcd", "its header is not a JSON file"),
    "a header that is a list": (struct.pack("<Q", 2) + b"[]", "its header: expected an object, got a list"),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_broken_safetensors_headers(tmp_path, case):
    data, message = SAFETENSORS[case]
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}, "description of w is damaged"),
        ({"dtype": "F32", "shape": [2]}, "description of w is damaged"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "has shape"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, r"lies at 8\.\.0"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "has 8 bytes"),
        ({"dtype": "F32", "shape": [200], "data_offsets": [0, 800]}, "not a complete safetensors file"),
        ({"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}, "has shape"),
    ],
)
def test_broken_safetensors_entries(tmp_path, entry, message):
    text = json.dumps({"w": entry}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "x.safetensors")


def test_overlapping_safetensors(tmp_path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    text = json.dumps({"w": entry, "v": entry}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(CheckpointError, match=r"w and v overlap|v and w overlap"):
        open_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"hello world, not weights", "neither safetensors nor a torch file"), (b"", "neither safetensors")],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="there is no weight file"):
        open_checkpoint(tmp_path / "nowhere.pth")


def test_how_large_the_corpus_is():
    """The figure that the documentation gives."""
    assert 3 * len(DANGEROUS) + 2 * len(HOSTILE) + len(BROKEN) + len(SAFETENSORS) > 240
