"""The licences of every package that hftrainer brings with it; exit status 1 if one is not among those allowed.

python scripts/licences.py            a table of the packages that are installed here
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

EXTRAS = ("train", "eval", "viz", "deepspeed", "lora", "quant")
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
FORBIDDEN = re.compile(r"\bA?GPL|Affero|SSPL|BUSL|Commons Clause|NonCommercial|proprietary", re.I)


def licence(found: Distribution) -> str:
    """What a package says of itself: an SPDX expression, a field, or classifiers."""
    data = found.metadata
    said = data.get("License-Expression") or ""
    classes = [c.split(" :: ")[-1] for c in data.get_all("Classifier") or [] if c.startswith("License ::")]
    text = (data.get("License") or "").strip().split("\n")[0]
    return said or ", ".join(classes) or text or "unknown"


def closure(root: str) -> dict[str, Distribution]:
    """Every installed package that `root` needs, also by its extras and theirs."""
    from packaging.requirements import Requirement

    out: dict[str, Distribution] = {}
    todo = [(root, frozenset(EXTRAS))]
    seen = set()
    while todo:
        name, extras = todo.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
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


def main() -> int:
    """Print the table."""
    bad = []
    for name, found in closure("hftrainer").items():
        said = licence(found)
        note = NAMED.get(name, "")
        if not note and (not ALLOWED.search(said) or FORBIDDEN.search(said)):
            bad.append(f"{name} {found.version}: {said}")
        print(f"{name:28} {found.version:16} {said[:50]:50} {note}")
    for line in bad:
        print(f"not allowed, or not known: {line}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
