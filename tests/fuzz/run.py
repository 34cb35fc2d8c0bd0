"""Give a reader many inputs; an exception that is not documented, more than 10 s or more than 2 GB is a find.

    python -m tests.fuzz.run all --runs 100000        mutations of seeds, the same for the same --seed
    python -m tests.fuzz.run npy --atheris --runs 1000000    guided by what is covered, where atheris is installed

What is found is written to tests/fuzz/corpus/READER/, which the default tests read from then on.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.fuzz.readers import READERS

CORPUS = Path(__file__).parent / "corpus"
SECONDS, BYTES = 10, 2 << 30
WORDS = [
    b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0" * 8, b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"null",
    b"[]", b"{}", b"[" * 300, b"{\"a\":" * 100, b"../", b"/etc/passwd", b"\x1b[2J", b"9" * 30, b"\xf0\x9f\x92\xa9",
    b"${oc.env:HOME}", b"*a", b"&a ", b"!!python/name:os.system ", b"\n", b"\r", b"\t", b"#", b"'", b"\"", b".", b"]",
    b"}", b"\x80\x02", b"cos\nsystem\n", b"R", b"b", b"Q", b"PK\x03\x04", b"\x93NUMPY", b"1" * 5000,
]  # fmt: skip


class TooLong(BaseException):
    """More than `SECONDS`; no `Exception`, so that no reader takes it for damage."""


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A few changes: bytes, stretches left out or doubled, words that readers know, parts of another seed."""
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
    return bytes(out[: 1 << 16])


def try_input(reader: str, data: bytes, folder: Path) -> str | None:
    """What is wrong with how the reader takes these bytes: the traceback's end, or None."""
    name, read, _ = READERS[reader]
    path = folder / name
    path.write_bytes(data)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        read(path)
    except (ValueError, OSError) as error:
        return "the message has a control character" if "\x1b" in str(error) else None
    except TooLong:
        return f"more than {SECONDS} s"
    except Exception:  # noqa: BLE001 -- which is what is looked for
        return traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def limits() -> None:
    """An alarm for time, and no more than 2 GB beyond what the interpreter has mapped."""

    def ring(*_: object) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, ring)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def fuzz(reader: str, runs: int, seed: int) -> int:
    """Mutations of seeds and of earlier finds; how many new kinds of finds."""
    rng = random.Random(f"{reader} {seed}")
    seeds = [*READERS[reader][2], *(path.read_bytes() for path in sorted((CORPUS / reader).glob("*")))]
    found: set[str] = set()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        for _ in range(runs):
            data = mutate(rng.choice(seeds), rng.choice(seeds), rng)
            wrong = try_input(reader, data, Path(place))
            if wrong is not None and (kind := wrong.strip().splitlines()[-1][:60]) not in found:
                found.add(kind)
                keep(reader, data, wrong)
    print(f"{reader:14} {runs:8} inputs {time.monotonic() - start:7.1f} s   finds: {len(found)}", flush=True)
    return len(found)


def keep(reader: str, data: bytes, wrong: str) -> None:
    """Put an input into the corpus."""
    path = CORPUS / reader / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"--- {reader}: {path}\n{wrong}", flush=True)


def by_coverage(reader: str, runs: int) -> None:
    """The same with atheris, which ends with the process."""
    import atheris

    place = Path(tempfile.mkdtemp())

    def one(data: bytes) -> None:
        wrong = try_input(reader, data, place)
        if wrong is not None:
            keep(reader, data, wrong)

    for number, data in enumerate(READERS[reader][2]):
        (place / "seeds").mkdir(exist_ok=True)
        (place / "seeds" / str(number)).write_bytes(data)
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-runs={runs}", "-max_len=65536", str(place / "seeds")], one)
    atheris.Fuzz()


def main(arguments: Any = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=["all", *READERS])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    args = parser.parse_args(arguments)
    limits()
    with contextlib.suppress(KeyboardInterrupt):
        if args.atheris:
            by_coverage(args.reader, args.runs)
        return (
            1 if sum(fuzz(r, args.runs, args.seed) for r in (READERS if args.reader == "all" else [args.reader])) else 0
        )
    return 130


if __name__ == "__main__":
    sys.exit(main())
