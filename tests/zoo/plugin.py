"""Plug-ins for tests: each is what pip would leave on sys.path, a module or package and its .dist-info folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

import pytest

from hftrainer import plugins, registry
from hftrainer.zoo import collection

TOY_CARD = """\
task: text-to-motion
representation: hml263
summary: A toy
pipeline: {pipeline}
parts:
  - {{name: network, parameters: 3}}
folders: [../weights]
licence: {{name: CC0, commercial: true, redistribution: true, attribution: none}}
leaderboard: {{eligible: false, reason: it is a toy}}
aliases: [toy]
"""

TOY_PIPELINE = """\
from pathlib import Path

from hftrainer.registry import PIPELINES


@PIPELINES.register("toy263")
class ToyPipeline:
    artifact_names = ("ToyPipelineOfYore",)

    def __init__(self, folder, options):
        self.folder, self.options = folder, options

    @classmethod
    def from_pretrained(cls, folder, **options):
        return cls(Path(folder), options)

    def __call__(self, prompts):
        return [len(prompt) for prompt in prompts]
"""


def install(site: Path, name: str, value: str, files: dict[str, str], *, entry: str | None = None) -> None:
    """Put `files` and the metadata of a package whose entry point (called `entry`, or as it) is `value` into `site`."""
    for path, content in files.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    info = site / f"{name}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[hftrainer.plugins]\n{entry or name} = {value}\n")


def install_toy(site: Path, card: str = TOY_CARD.format(pipeline="toy263"), name: str = "toyplug") -> None:
    """A package with a pipeline of its own and a card."""
    files = {"__init__.py": "from . import pipeline\n", "pipeline.py": TOY_PIPELINE, "cards/toy-263.yaml": card}
    install(site, name, name, {f"{name}/{path}": content for path, content in files.items()})
    (site / name / "weights").mkdir()


@contextmanager
def fresh_plugins(monkeypatch: pytest.MonkeyPatch, site: Path) -> Iterator[Path]:
    """`site` is on sys.path and no plug-in has been loaded; afterwards everything is as before."""
    site.mkdir(exist_ok=True)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(plugins, "_modules", None)
    monkeypatch.setattr(plugins, "_failures", {})
    before = [(table, dict(table._targets)) for table in registry._REGISTRIES]
    modules = set(sys.modules)
    invalidate_caches()
    collection._collect.cache_clear()
    yield site
    for table, targets in before:
        built_in = {name: target for name, target in table._targets.items() if name in table._modules}
        table._targets = {**built_in, **targets}
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
            del sys.modules[name]
    collection._collect.cache_clear()
