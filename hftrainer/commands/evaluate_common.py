"""What ``hftrainer evaluate tokenizer``, ``actions`` and ``prompts`` share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def with_model(what: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """A subcommand with a model, a dataset and a folder for results."""
    sub: argparse.ArgumentParser = what.add_parser(name, help=summary, description=summary)
    sub.add_argument("model", help="zoo name or model folder")
    sub.add_argument("--data", required=True, help="dataset folder with real clips")
    sub.add_argument("--split", default="test")
    sub.add_argument("--out", type=Path, help="folder for the results as JSON")
    return sub


def check_out(args: argparse.Namespace) -> None:
    """Refuse an --out that cannot be written, before hours are spent."""
    if args.out is not None:
        from hftrainer.files import check_writable

        check_writable(args.out)


def write_result(args: argparse.Namespace, name: str, content: dict[str, Any], markdown: str | None = None) -> None:
    """Write `content` as <name>.json into --out, and perhaps a table beside it."""
    if args.out is None:
        return
    from hftrainer.files import check_writable, write_json, write_text

    out = check_writable(args.out)
    write_json(out / f"{name}.json", content)
    if markdown is not None:
        write_text(out / f"{name}.md", markdown)
