"""What the documentation says: its commands parse, its files exist, its links lead somewhere."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex

import pytest
import yaml

from hftrainer.cli import COMMANDS
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PAGES += [
    page for folder in ("checkpoints", "configs", "examples") for page in (REPOSITORY / folder).rglob("README.md")
]
PAGES.sort()


def commands():
    """Every `hftrainer ...` line of a code block, continued lines joined, with its page."""
    for page in PAGES:
        for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(), flags=re.S):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.partition("  #")[0].strip()
                if line.startswith("hftrainer "):
                    yield pytest.param(line, id=f"{page.name}: {line[:60]}")


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(f"hftrainer.commands.{command}").add_arguments(parser)
    return parser


@pytest.mark.parametrize("line", list(commands()))
def test_documented_commands_parse(line):
    _, command, *arguments = shlex.split(line)
    assert command in COMMANDS
    args = parser_of(command).parse_args(arguments)
    assert callable(args.run)
    for argument in arguments:
        if argument.startswith(("configs/", "examples/")):
            assert (REPOSITORY / argument).is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_help_parse(command):
    parser = parser_of(command)
    assert parser.epilog
    assert "hftrainer" in parser.epilog
    for line in parser.epilog.splitlines():
        if line.strip().startswith("hftrainer "):
            _, name, *arguments = shlex.split(line.strip())
            assert name == command
            parser.parse_args(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for target in re.findall(r"`((?:configs|examples|tools|tests|docs|hftrainer)/[\w./-]+\.\w+)`", text):
        assert (REPOSITORY / target).exists(), f"{page.name} names {target}"


CODE = re.compile(r"^```.*?^```$", re.M | re.S)


def anchors(page) -> set[str]:
    """Of a page's headings: lower case, words joined by dashes, as git servers and the site make them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), flags=re.M)
    texts = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings]
    return {re.sub(r"[^\w\s-]", "", text).strip().lower().replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_headings_that_exist(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*?)#([^)]*)\)", CODE.sub("", page.read_text())):
        there = page.parent / target if target else page
        if there.suffix == ".md":
            assert anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


def documented_imports():
    """What code blocks import from hftrainer, with the page."""
    for page in PAGES:
        for block in re.findall(r"```(?:python|py)\n(.*?)```", page.read_text(), flags=re.S):
            try:
                tree = ast.parse(block)
            except SyntaxError:
                continue  # an excerpt
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hftrainer"):
                    yield from ((page, node.module, alias.name) for alias in node.names)


def source_of(module: str):
    """The file of a module of ours, or None."""
    path = REPOSITORY.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def exists(module: str, name: str) -> bool:
    """Whether a module of ours has a name, by its source: importing all of them takes long."""
    file = source_of(module)
    if file is None:
        return False
    text = file.read_text()
    if "def __getattr__" in text and f'"{name}"' in text:
        return True  # imported when it is asked for
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = {target.id for target in targets if isinstance(target, ast.Name)} | {getattr(node, "name", None)}
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.asname or alias.name for alias in node.names}
        if name in names:
            return True
    return source_of(f"{module}.{name}") is not None


@pytest.mark.parametrize(("page", "module", "name"), list(documented_imports()), ids=lambda part: str(part)[-40:])
def test_documented_imports_exist(page, module, name):
    assert exists(module, name), f"{page.name} imports {name} from {module}"


def test_the_search_for_names_can_fail():
    assert exists("hftrainer.requests", "SamplingParams")
    assert exists("hftrainer.evaluation", "protocols")
    assert not exists("hftrainer.requests", "Sampling")
    assert not exists("hftrainer.nothing", "SamplingParams")


REFERENCE = [
    pytest.param(name, id=name)
    for page in sorted((REPOSITORY / "docs/api").glob("*.md"))
    for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.M)
]


@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_names_what_exists(name):
    module, _, last = name.rpartition(".")
    assert exists(module, last)


def test_every_page_is_in_the_sites_navigation():
    """mkdocs.yml; a new page needs a place there, or readers of the site will not find it."""
    nav = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]
    named = re.findall(r"[\w/-]+\.md", str(nav))
    assert len(named) == len(set(named))
    pages = {str(page.relative_to(REPOSITORY / "docs")) for page in (REPOSITORY / "docs").rglob("*.md")}
    assert {name for name in named if not name.startswith("repository/")} == pages
    for name in named:
        if name.startswith("repository/"):
            assert (REPOSITORY / name.removeprefix("repository/")).is_file()
