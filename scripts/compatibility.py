"""Try the package on other interpreters and other versions of its libraries: one virtual environment a combination.

    python scripts/compatibility.py                          every combination whose interpreter is here
    python scripts/compatibility.py py310-oldest py313-newest --keep
    python scripts/compatibility.py --tests tests             all default tests in place of the usual part of them

"oldest" takes the lower bounds of pyproject.toml, "tested" the versions of constraints.txt, "newest" whatever is the
newest now. Environments are made by uv, which shares the files of packages between them; they go to out/compatibility
and are removed after their tests. Prints a table in Markdown; exit status 1 if a combination fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("train", "eval", "viz", "lora", "fbx")
# quant asks for a newer torch than the package itself
LIBRARIES = ("torch", "lightning", "transformers", "numpy", "omegaconf", "huggingface-hub", "safetensors")
FOR_TESTS = ("pytest>=9", "pytest-xdist>=3.6", "hypothesis>=6.100", "upc-pymotion>=0.3", "bvhio>=1.5", "packaging>=24")
# reading and writing of every kind, networks against golden values, generation, training, evaluation, frozen artifacts
TESTS = (
    "tests/frozen", "tests/test_readers.py", "tests/test_arrays.py", "tests/test_config.py", "tests/test_registry.py",
    "tests/models/test_artifact.py", "tests/models/test_llama.py", "tests/models/test_tokenizer.py",
    "tests/models/test_motionstreamer.py", "tests/models/test_text_encoder.py", "tests/motion/test_files.py",
    "tests/pipelines/test_motionmillion.py", "tests/evaluation/test_metrics.py", "tests/training/test_fit.py",
)  # fmt: skip


@dataclass(frozen=True)
class Combination:
    """An interpreter and which versions of the libraries."""

    python: str
    versions: str

    @property
    def name(self) -> str:
        """As on the command line."""
        return f"py{self.python.replace('.', '')}-{self.versions}"


@dataclass
class Outcome:
    """What came of it; `versions` by library, `said` the last line of the tests."""

    ok: bool
    said: str
    versions: dict[str, str] = field(default_factory=dict)


COMBINATIONS = [
    Combination("3.10", "oldest"), Combination("3.10", "tested"), Combination("3.11", "oldest"),
    Combination("3.11", "tested"), Combination("3.11", "newest"), Combination("3.12", "tested"),
    Combination("3.12", "newest"), Combination("3.13", "oldest"), Combination("3.13", "tested"),
    Combination("3.13", "newest"),
]  # fmt: skip


def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """A command that may fail; what it says is kept."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def try_out(combination: Combination, uv: str, place: Path, tests: list[str]) -> Outcome:
    """Make the environment and run the tests in it."""
    python = str(place / "bin" / "python")
    made = run([uv, "venv", "--quiet", "--clear", "--python", combination.python, "--no-python-downloads", str(place)])
    if made.returncode:
        return Outcome(False, "no such interpreter here")
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    resolution = "lowest-direct" if combination.versions == "oldest" else "highest"
    constraints = ["-c", "constraints.txt"] if combination.versions == "tested" else []
    wanted = place / "wanted.txt"
    steps = [
        [uv, "pip", "compile", "--quiet", "pyproject.toml", *extras, *constraints, "--resolution", resolution,
         "--python", python, "-o", str(wanted)],
        [uv, "pip", "install", "--quiet", "--python", python, "-r", str(wanted), *FOR_TESTS, *constraints],
    ]  # fmt: skip
    for step in steps:
        done = run(step, cwd=ROOT)
        if done.returncode:
            return Outcome(False, " ".join(done.stderr.split())[:300])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    chosen = "not slow and not faults and not gpu and not weights"
    done = run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", chosen, *tests], cwd=ROOT, env=environment
    )
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    print("\n".join(failed), file=sys.stderr)
    return Outcome(done.returncode == 0, summary(lines), versions_in(uv, python))


def summary(lines: list[str]) -> str:
    """How many tests passed, without a line of it where pytest is quiet: counted from its dots."""
    counts = {letter: 0 for letter in ".sFE"}
    for line in lines:
        if re.fullmatch(r"[.sFExX]+( +\[ *\d+%\])?", line):
            for letter in line.partition(" ")[0]:
                counts[letter] = counts.get(letter, 0) + 1
    if not counts["."]:
        return (lines or ["no output"])[-1][:200]
    return f"{counts['.']} passed, {counts['s']} skipped, {counts['F'] + counts['E']} failed"


def versions_in(uv: str, python: str) -> dict[str, str]:
    """Versions of `LIBRARIES` in an environment."""
    listed = run([uv, "pip", "list", "--python", python, "--format", "freeze"]).stdout
    found = dict(line.split("==", 1) for line in listed.splitlines() if "==" in line)
    return {name: found.get(name, "") for name in LIBRARIES}


def main() -> int:
    """Print a row for each combination."""
    names = [combination.name for combination in COMBINATIONS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("combinations", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--tests", nargs="+", default=list(TESTS), help="files or folders of tests")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "compatibility")
    args = parser.parse_args()
    if unknown := set(args.combinations) - set(names):
        parser.error(f"no combination {sorted(unknown)}; there are {', '.join(names)}")
    uv = shutil.which("uv")
    if uv is None:
        parser.error("needs uv (pip install uv)")
    args.out.mkdir(parents=True, exist_ok=True)
    print(f"| combination | {' | '.join(LIBRARIES)} | tests |\n|---{'|---' * len(LIBRARIES)}|---|", flush=True)
    failed = False
    for combination in COMBINATIONS:
        if args.combinations and combination.name not in args.combinations:
            continue
        place = args.out / combination.name
        outcome = try_out(combination, uv, place, args.tests)
        failed |= not outcome.ok
        cells = [outcome.versions.get(name, "") for name in LIBRARIES]
        print(f"| {combination.name} | {' | '.join(cells)} | {outcome.said} |", flush=True)
        if not args.keep:
            shutil.rmtree(place, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
