"""Inputs guided by what is covered, for readers of bytes; needs atheris (pip install atheris).

    python -m tests.fuzz.guided npy --runs 1000000

Half of the changes are libFuzzer's own, half those of `tests.fuzz.mutate`, which keep the format around them intact.
What is found goes to tests/fuzz/corpus/READER/.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from pathlib import Path
from tempfile import mkdtemp

import atheris

with atheris.instrument_imports(include=["hftrainer"]):
    from tests.fuzz.mutate import MOST
    from tests.fuzz.readers import READERS
    from tests.fuzz.run import TooLong, keep, kind_of, try_input


def main() -> None:
    """The command, which ends with the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--runs", type=int, default=1_000_000)
    args = parser.parse_args()
    place, kinds = Path(mkdtemp()), set[str]()
    (place / "seeds").mkdir()
    for number, data in enumerate(READERS[args.reader].seeds):
        (place / "seeds" / str(number)).write_bytes(data)

    def ring(*_: object) -> None:
        raise TooLong

    def one(data: bytes) -> None:
        wrong = try_input(args.reader, data, place)
        if wrong is not None and kind_of(wrong) not in kinds:
            kinds.add(kind_of(wrong))
            keep(args.reader, data, wrong)

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        return READERS[args.reader].input(rng, [data] if data else [])[:most]

    signal.signal(signal.SIGPROF, ring)
    options = [f"-runs={args.runs}", f"-max_len={MOST}", "-rss_limit_mb=4096", "-timeout=60"]
    options.append(f"-artifact_prefix={place}/")  # or it would write slow inputs to where it was started
    atheris.Setup([sys.argv[0], *options, str(place / "seeds")], one, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
