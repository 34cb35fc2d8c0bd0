"""What the verbs of ``hftrainer data`` share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def with_dataset(verbs: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """A verb whose first argument is a dataset folder."""
    sub: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    sub.add_argument("dataset", type=Path, help="dataset folder")
    return sub


@contextmanager
def changed_dataset(args: argparse.Namespace) -> Iterator[Any]:
    """The dataset folder, held for a verb that rewrites its labels or splits: of two at once, one is refused."""
    from hftrainer.files import only_writer

    dataset = open_dataset(args)
    with only_writer(dataset.root):
        yield dataset


def open_dataset(args: argparse.Namespace) -> Any:
    """The dataset folder."""
    from hftrainer.data.folder import DatasetFolder

    return DatasetFolder(args.dataset)
