"""Inputs from inputs: changes of bytes, and changes of what the bytes say that keep the format around them intact.

Flipped bytes rarely get past a checksum or a parser. So numbers in text, values in JSON, fields of array headers and
members of archives are changed too, and lengths and checksums made to fit.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

MOST = 1 << 16  # bytes of an input
WORDS = [
    b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0" * 8, b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"null",
    b"[]", b"{}", b"[" * 300, b"{\"a\":" * 100, b"../", b"/etc/passwd", b"\x1b[2J", b"9" * 30, b"\xf0\x9f\x92\xa9",
    b"${oc.env:HOME}", b"*a", b"&a ", b"!!python/name:os.system ", b"\n", b"\r", b"\t", b"#", b"'", b"\"", b".", b"]",
    b"}", b"\x80\x02", b"cos\nsystem\n", b"R", b"b", b"Q", b"PK\x03\x04", b"\x93NUMPY", b"1" * 5000,
    b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"?", b"- ", b": ",
]  # fmt: skip
NUMBERS = ["0", "-1", "1", "1e308", "-1e308", "1e-320", "inf", "nan", "1e999", "99999999999", "-0", "0x10", "1_000",
           "2147483648", "9223372036854775807", "18446744073709551616", "٣", "1.5", "1e9", ""]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, 1e308, -1e308, 1e-320, 1 << 31, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1, 10**12,
    "", "x", "../x", "/etc/passwd", "\x1b[2J", "\u2028", "a" * 3000, "0", "nan", "-1", [], {}, [[]], [None], {"": None},
    [0] * 1000, ["x", 1], {"a": {"b": []}}, [[[[]]]], "\ud83d", "\0", "a/b", [1e308, 1e308], {"x": "x"},
]  # fmt: skip
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")


def mutate(data: bytes, other: bytes, rng: random.Random, keep: int = 0) -> bytes:
    """`data` changed a little; its first `keep` bytes stay. `other` is another input that parts are taken from."""
    head, data, other = data[:keep], data[keep:], other[keep:]
    if rng.random() < 0.55:
        with contextlib.suppress(ValueError, KeyError, IndexError, OverflowError, struct.error, zipfile.BadZipFile,
                                 tarfile.TarError, NotImplementedError, EOFError, RuntimeError):  # fmt: skip
            data = inside(data, other, rng)
            if rng.random() < 0.7:
                return (head + data)[:MOST]
    return (head + of_bytes(data, other, rng))[:MOST]


def of_bytes(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Bytes changed, stretches left out or doubled, words that readers know, parts of another input."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((1, 2, 4, 8, 64, 512)))
        kind = rng.randrange(7)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif kind == 2:
            del out[at:end]
        elif kind == 3:
            out[at:at] = out[at:end] * rng.choice((1, 2, 50))
        elif kind == 4:
            out[at:end] = rng.choice(WORDS)
        elif kind == 5:
            out[at:at] = rng.choice(WORDS)
        else:
            start = rng.randrange(len(other) + 1)
            out[at:end] = other[start : start + rng.choice((4, 32, 256))]
    return bytes(out)


def inside(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A change of what a file says, by what kind of file it is. Raises what its parser raises."""
    if data[:1] in (b"{", b"["):
        return _json(data, rng)
    if data[:6] == b"\x93NUMPY":
        return _npy(data, rng)
    if data[:2] == b"PK":
        return _zip(data, other, rng)
    if data[:4] == b"glTF":
        return _glb(data, rng)
    if data[8:9] == b"{":
        return _safetensors(data, rng)
    if data[257:262] == b"ustar":
        return _tar(data, other, rng)
    return _text(data, rng)


def tree(value: Any, rng: random.Random) -> Any:
    """A value of lists and objects with one or a few of its parts replaced, left out, doubled or renamed."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _change_one(value, rng)
    return value


def _change_one(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.05:
        return rng.choice(VALUES)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        kind = rng.randrange(8)
        if kind == 0:
            return rest
        if kind == 1:
            return {**rest, rng.choice([str(v) for v in VALUES[:24]]): value[key]}
        if kind == 2:
            return {**value, rng.choice(["extra", "name", "", "type"]): rng.choice(VALUES)}
        return {k: _change_one(v, rng) if k == key and kind > 3 else rng.choice(VALUES) if k == key else v
                for k, v in value.items()}  # fmt: skip
    at = rng.randrange(len(value))
    kind = rng.randrange(6)
    if kind == 0:
        return value[:at] + value[at + 1 :]
    if kind == 1:
        return value[:at] + [value[at]] * rng.choice((2, 3, 50)) + value[at + 1 :]
    return [*value[:at], _change_one(value[at], rng) if kind > 2 else rng.choice(VALUES), *value[at + 1 :]]


@lru_cache(maxsize=64)
def _parsed(data: bytes) -> Any:
    return json.loads(data)


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        return json.dumps(tree(_parsed(data), rng)).encode()
    except ValueError:
        lines = data.split(b"\n")  # JSON lines
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(tree(json.loads(lines[at]), rng)).encode()
        return b"\n".join(lines)


def _npy(data: bytes, rng: random.Random) -> bytes:
    length = struct.unpack("<H", data[8:10])[0]
    header, rest = data[10 : 10 + length].decode("latin-1"), data[10 + length :]
    changes: Sequence[Callable[[str], str]] = (
        lambda text: NUMBER.sub(lambda m: rng.choice(NUMBERS) if rng.random() < 0.5 else m[0], text),
        lambda text: re.sub(r"'[<>|][a-zA-Z]\d+'", lambda m: rng.choice(
            ["'<f8'", "'>f4'", "'<f2'", "'<i8'", "'|u1'", "'|b1'", "'<c16'", "'<M8[s]'", "'|O'", "'<U3'", "'|V8'",
             "'<f16'", "[('a','<f4')]", "'<U99999'", "None", "3"]), text),
        lambda text: text.replace("False", rng.choice(["True", "None", "1"])),
        lambda text: re.sub(r"\(.*?\)", lambda m: rng.choice(
            ["()", "(0,)", "(0, 9223372036854775807)", "(1,)*9", "[1]", "(-1,)", "(True,)", "(1e9,)", "(2,3,4)",
             "((1,),)", "(" + "1," * 40 + ")"]), text),
        lambda text: text.replace("'shape'", rng.choice(["'shapes'", "'descr'", "b'shape'"])),
    )  # fmt: skip
    header = rng.choice(changes)(header)
    if rng.random() < 0.3:
        rest = rest[: rng.randrange(len(rest) + 1)]
    if rng.random() < 0.3 and len(rest) >= 4:
        at = rng.randrange(len(rest) // 4) * 4
        value = rng.choice([b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", b"\1\0\0\0", b"\xff\xff\xff\xff"])
        rest = rest[:at] + value + rest[at + 4 :]
    raw = header.encode("latin-1", "replace")[:65000]
    return data[:8] + struct.pack("<H", len(raw)) + raw + rest


def _zip(data: bytes, other: bytes, rng: random.Random) -> bytes:
    with warnings.catch_warnings(), zipfile.ZipFile(io.BytesIO(data)) as archive:
        warnings.simplefilter("ignore")
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
        kind, at = rng.randrange(6), rng.randrange(len(members))
        name, content = members[at]
        if kind == 0:
            del members[at]
        elif kind == 1:
            members[at] = (rng.choice(["../x", "/x", "x" * 300, name + "x", "\x1b[2J", name.upper(), ""]), content)
        elif kind == 2:
            members.append((name, rng.choice(members)[1]))
        else:
            members[at] = (name, mutate(content, rng.choice(members)[1], rng))
        stream = io.BytesIO()
        packing = zipfile.ZIP_DEFLATED if rng.random() < 0.3 else zipfile.ZIP_STORED
        with zipfile.ZipFile(stream, "w", packing) as out:
            for name, content in members:
                out.writestr(name, content)
    return stream.getvalue()


def _glb(data: bytes, rng: random.Random) -> bytes:
    length = struct.unpack("<I", data[12:16])[0]
    text = _json(data[20 : 20 + length].strip(b" \0"), rng)
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    if rng.random() < 0.2:
        rest = of_bytes(rest, data, rng)
    total = 20 + len(text) + len(rest)
    return data[:8] + struct.pack("<II", total, len(text)) + b"JSON" + text + rest


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    length = struct.unpack("<Q", data[:8])[0]
    text = _json(data[8 : 8 + length], rng)
    rest = data[8 + length :]
    return struct.pack("<Q", len(text)) + text + (rest if rng.random() < 0.8 else rest[: rng.randrange(len(rest) + 1)])


def _tar(data: bytes, other: bytes, rng: random.Random) -> bytes:
    blocks = bytearray(data)
    starts = [at for at in range(0, len(blocks) - 511, 512) if blocks[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(starts)
    if rng.random() < 0.4:  # what a member holds
        size = int(bytes(blocks[at + 124 : at + 135]) or b"0", 8)
        content = mutate(bytes(blocks[at + 512 : at + 512 + size]), other, rng)
        blocks[at + 124 : at + 136] = f"{len(content):011o}\0".encode()
        tail = blocks[at + 512 + -(-size // 512) * 512 :]
        blocks[at + 512 :] = content + bytes(-len(content) % 512) + tail
    else:
        place, width = rng.choice([(0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (345, 155)])
        value = rng.choice([
            b"../x", b"/etc/x", b"motion_data/a.npy", b"split/x.txt", b"mean_std/Mean.npy", b"77777777777", b"0", b"5",
            b"1", b"2", b"g", b"L", b"x", b"S", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"texts/\x1b[2J.txt", b"a/" * 40,
        ])  # fmt: skip
        blocks[at + place : at + place + width] = value[:width].ljust(width, b"\0")
    blocks[at + 148 : at + 156] = b" " * 8
    blocks[at + 148 : at + 156] = f"{sum(blocks[at : at + 512]):06o}\0 ".encode()
    return bytes(blocks)


def _text(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8")
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(9)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines[at:at] = [lines[at]] * rng.choice((1, 2, 40))
        elif kind == 2:
            lines[at], lines[-1 - at % len(lines)] = lines[-1 - at % len(lines)], lines[at]
        elif kind == 3:
            lines[at] = (" " * rng.choice((1, 2, 4))) + lines[at]
        elif kind == 4:
            lines[at] = re.sub(r"^\s+", "", lines[at])
        elif kind == 5 and ":" in lines[at]:
            lines[at] = lines[at].partition(":")[0] + ": " + json.dumps(rng.choice(VALUES))
        elif kind == 6:
            words = lines[at].split(" ")
            words[rng.randrange(len(words))] = rng.choice([*NUMBERS, "", "x", "\t", "#", "\u2028", "\x1b[2J"])
            lines[at] = " ".join(words)
        else:
            found = list(NUMBER.finditer(lines[at]))
            if found:
                hit = rng.choice(found)
                lines[at] = lines[at][: hit.start()] + rng.choice(NUMBERS) + lines[at][hit.end() :]
        if not lines:
            lines = [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")
