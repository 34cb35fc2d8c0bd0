"""What the documentation says: its commands parse, its files exist, its links lead somewhere."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex

import pytest

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
