"""The licences of every package that hftrainer brings with it; exit status 1 if one is not among those allowed.

python scripts/licences.py                             a table of the packages that are installed here
python scripts/licences.py --write docs/licences.md    the same for every package of requirements.lock
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("train", "eval", "viz", "serve", "deepspeed", "lora", "quant")
ALLOWED = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|HPND|CMU|Unlicense|Zlib|CC0|0BSD|PIL|Historical Permission",
    re.I,
)
# weak copyleft that ends at the package's own files, and what is said with it
NAMED = {
    "certifi": "MPL-2.0: Mozilla's list of certificates, used unchanged",
    "tqdm": "MPL-2.0 and MIT: used unchanged",
    "imageio-ffmpeg": "BSD-2-Clause; its ffmpeg is a GPL build, run as a program of its own (NOTICE)",
    "pathspec": "MPL-2.0: used unchanged",
    "torchao": "BSD-3-Clause by the licence file in its wheel",
    "numpy": "BSD-3-Clause; its wheel holds libgfortran (GPL with GCC's runtime exception)",
    "scipy": "BSD-3-Clause; its wheel holds libgfortran (GPL with GCC's runtime exception)",
}
# of other systems and interpreters: not installed where this runs, so that nothing can be asked
ELSEWHERE = {
    "async-timeout": "Apache-2.0", "colorama": "BSD-3-Clause", "cuda-bindings": "Apache-2.0",
    "cuda-pathfinder": "Apache-2.0", "exceptiongroup": "MIT", "httpx2-jsfetch": "BSD-3-Clause", "tomli": "MIT",
    "triton": "MIT",
}  # fmt: skip
NVIDIA = "NVIDIA's own licence; libraries that torch's CUDA build brings, and its CPU build does not"
FORBIDDEN = re.compile(r"\bA?GPL|Affero|SSPL|BUSL|Commons Clause|NonCommercial|proprietary", re.I)
HEAD = """# Licences

Of every package in `requirements.lock`; written by `python scripts/licences.py --write docs/licences.md`. A test
compares it with the lock file. hftrainer itself is Apache-2.0; what it includes is in NOTICE.

| package | licence | |
|---|---|---|
"""


def normal(name: str) -> str:
    """A package's name as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(found: Distribution) -> str:
    """What a package says of itself: an SPDX expression, a field, or classifiers."""
    data = found.metadata
    said = data.get("License-Expression") or ""
    classes = [c.split(" :: ")[-1] for c in data.get_all("Classifier") or [] if c.startswith("License ::")]
    text = (data.get("License") or "").strip().split("\n")[0]
    return said or ", ".join(classes) or text or "unknown"


def judged(name: str, said: str) -> tuple[bool, str]:
    """Whether a package may be brought along, and what is said with it."""
    note = NVIDIA if name.startswith("nvidia-") or name == "cuda-toolkit" else NAMED.get(name, "")
    return bool(note) or bool(ALLOWED.search(said) and not FORBIDDEN.search(said)), note


def locked() -> list[str]:
    """The packages of requirements.lock."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return sorted({normal(name) for name in re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.M)})


def of_lock() -> dict[str, str]:
    """Licence by package of requirements.lock; "unknown" if it is neither installed nor known."""
    out = {}
    for name in locked():
        try:
            out[name] = licence(distribution(name))
        except PackageNotFoundError:
            out[name] = NVIDIA.partition(";")[0] if judged(name, "")[1] == NVIDIA else ELSEWHERE.get(name, "unknown")
    return out


def closure(root: str) -> dict[str, Distribution]:
    """Every installed package that `root` needs, also by its extras and theirs."""
    from packaging.requirements import Requirement

    out: dict[str, Distribution] = {}
    todo = [(root, frozenset(EXTRAS))]
    seen = set()
    while todo:
        name, extras = todo.pop()
        key = normal(name)
        if (key, extras) in seen:
            continue
        seen.add((key, extras))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # a marker or another platform's
        if key != root:
            out[key] = found
        for text in found.requires or []:
            need = Requirement(text)
            wanted = [need.marker.evaluate({"extra": extra}) for extra in (*extras, "")] if need.marker else [True]
            if any(wanted):
                todo.append((need.name, frozenset(need.extras)))
    return dict(sorted(out.items()))


def table() -> str:
    """docs/licences.md."""
    rows = [f"| {name} | {said} | {judged(name, said)[1]} |" for name, said in of_lock().items()]
    return HEAD + "\n".join(rows) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Print the table, or write it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--write"]:
        Path(arguments[1]).write_text(table(), encoding="utf-8")
        found = of_lock()
    else:
        found = {name: licence(package) for name, package in closure("hftrainer").items()}
        for name, said in found.items():
            print(f"{name:28} {said[:50]:50} {judged(name, said)[1]}")
    bad = [f"{name}: {said}" for name, said in found.items() if not judged(name, said)[0]]
    for line in bad:
        print(f"not allowed, or not known: {line}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
