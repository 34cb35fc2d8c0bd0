"""Imports point one way, the package imports lightly, and nothing opens files that could run code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hftrainer"
# helpers that know nothing of motion or models; everybody may use them
BASE = {
    "version",
    "arrays",
    "defaults",
    "dtypes",
    "english",
    "environment",
    "expressions",
    "extras",
    "fields",
    "files",
    "hashes",
    "hub",
    "interfaces",
    "manifest",
    "patterns",
    "plain_text",
    "plain_yaml",
    "processes",
    "readers",
    "requests",
    "shown",
    "terminal",
    "timing",
}
MAY_IMPORT = {
    **{name: set() for name in ("version", "defaults", "dtypes", "english", "environment", "extras", "fields")},
    **{name: set() for name in ("builtin_names", "interfaces", "plain_yaml", "processes", "requests", "timing")},
    **{name: set() for name in ("expressions", "shown")},
    "files": {"processes"},
    "hashes": {"files", "readers"},
    "manifest": {"files", "hashes", "readers"},
    "hub": {"files", "manifest", "readers"},
    "readers": {"files", "plain_yaml", "shown"},
    "arrays": {"readers"},
    "patterns": {"readers"},
    "plain_text": {"readers"},
    "terminal": {"shown"},
    "blame": set(),
    "plugins": {"registry"},
    "config": BASE,
    "registry": BASE | {"builtin_names", "config", "plugins"},
    "motion": BASE | {"registry"}, "render": BASE | {"motion"}, "network": set(),
    "engine": {"network", "requests"},
    "models": BASE | {"registry", "config", "motion", "network", "engine"},
    "data": BASE | {"registry", "config", "motion"},
    "pipelines": BASE | {"models", "engine", "motion", "render", "registry", "config"},
    "evaluation": BASE | {"models", "motion", "render", "registry", "config"},
    "training": BASE | {"registry", "config", "motion", "render", "models", "data", "pipelines", "evaluation", "zoo"},
    "zoo": BASE | {"registry", "config", "plugins"},
    "apps": BASE | {
        "plugins", "registry", "config",
        "motion", "render", "models", "data", "pipelines", "evaluation", "training", "zoo",
    },
}  # fmt: skip
MAY_IMPORT["serve"] = BASE | {"registry", "config", "motion", "render", "models", "pipelines", "zoo"}
MAY_IMPORT["bench"] = set(MAY_IMPORT)  # measures everything, and is imported by its commands only
MAY_IMPORT["commands"] = set(MAY_IMPORT)
OPEN = {"cli", "__init__", "__main__"}  # find commands and public names by name


def layer(parts: tuple[str, ...]) -> str:
    return next((part for part in ("network", "engine") if part in parts), parts[0])


def imports(path: Path) -> Iterator[str]:
    """Dotted names of ours that a file imports, also inside functions; not those for type checkers alone."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


# public one-line methods that call what is above them
UP = {("models/motion/motionmillion/network/llama.py", "engine")}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if "node_modules" not in path.parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    relative = path.relative_to(PACKAGE)
    parts = (*relative.parts[:-1], relative.stem)
    here = layer(parts)
    if here in OPEN and here != "network":
        return
    for name in imports(path):
        if not name.startswith("hftrainer."):
            continue
        there = layer(tuple(name.split(".")[1:]))
        if there == here or (there not in MAY_IMPORT and there not in OPEN) or (relative.as_posix(), there) in UP:
            continue
        assert there in MAY_IMPORT[here], f"{relative} ({here}) imports {name} ({there})"


def module_level_imports(tree: ast.Module) -> Iterator[str]:
    """What is imported as soon as the module is: not in functions, and not for type checkers."""
    for node in tree.body:
        for inner in node.body if isinstance(node, ast.Try) else [node]:
            if isinstance(inner, ast.ImportFrom) and inner.module:
                yield inner.module
                yield from (f"{inner.module}.{alias.name}" for alias in inner.names)
            elif isinstance(inner, ast.Import):
                yield from (alias.name for alias in inner.names)


def test_no_modules_import_each_other_in_a_circle():
    names = {".".join(("hftrainer", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in FILES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {
        name: {there for there in module_level_imports(ast.parse(path.read_text())) if there in names} - {name}
        for name, path in names.items()
    }
    for name, path in names.items():  # a package whose __init__ only re-exports is not a step of a circle
        if path.stem == "__init__":
            graph[name] = set()
    while graph:
        done = {name for name, there in graph.items() if not there & graph.keys()}
        assert done, f"these import each other: {sorted(graph)}"
        graph = {name: there for name, there in graph.items() if name not in done}


def test_the_layer_test_can_fail(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from hftrainer.training.fit import fit\n")
    assert "hftrainer.training.fit" in set(imports(bad))
    assert "training" not in MAY_IMPORT["models"]


NETWORK = [path for path in FILES if "network" in path.parts]


@pytest.mark.parametrize("path", NETWORK, ids=lambda path: path.stem)
def test_networks_need_torch_and_einops_alone(path):
    allowed = {"torch", "einops", "hftrainer", "__future__", *sys.stdlib_module_names}
    assert {name.partition(".")[0] for name in imports(path)} <= allowed


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("torch", "numpy", "transformers", "lightning", "omegaconf", "scipy", "PIL")
    code = f"import sys, hftrainer; print([m for m in {heavy} if m in sys.modules])"
    assert run(code).strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["data", "--help"], ["train", "--help"]])
def test_help_shows_an_example_and_loads_nothing_heavy(arguments):
    code = f"import sys; from hftrainer.cli import main\ntry: main({arguments})\nexcept SystemExit: pass\n"
    out = run(code + "print('torch' in sys.modules, 'numpy' in sys.modules)")
    assert "example" in out
    assert out.strip().endswith("False False")


FORBIDDEN = re.compile(
    r"weights_only\s*=\s*False|allow_pickle\s*=\s*True|shell\s*=\s*True|except\s*:|\beval\(|\bexec\(|pickle\.load"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_opens_files_that_could_run_code(path):
    code = path.read_text().replace(".eval()", "")
    assert not FORBIDDEN.findall(code)


def test_files_stay_small():
    large = {str(p.relative_to(PACKAGE)): n for p in FILES if (n := len(p.read_text().splitlines())) > 350}
    assert not large, f"each of these probably has two subjects: {large}"
