"""The ``hftrainer`` command. Each subcommand is a module of `hftrainer.commands`, imported only when it is called."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module

from hftrainer.blame import TRACEBACK, explain, is_panic, last_file
from hftrainer.processes import die_with_parent_if_told
from hftrainer.terminal import guarded_streams, is_output_closed, open_closed_streams, tidy_warnings
from hftrainer.version import __version__

COMMANDS = {
    "generate": "text to motion files: npy, npz, bvh, mp4 and a page that plays them",
    "train": "run a training configuration",
    "evaluate": "evaluate a model: protocols, comparisons, generation for test sets, reconstruction, actions",
    "data": "prepare and verify a dataset: import-bvh, captions, mirror, join, split, stats, tokenize, verify",
    "convert": "convert released checkpoints to an artifact folder",
    "export": "convert motion files to glb, bvh, npz, mp4, html and other formats",
    "serve": "a web page to type into, and a JSON API",
    "bench": "benchmark sampling, training, loading and evaluation, side by side with alternatives",
    "zoo": "the model zoo: list models, show a card, find or download files",
    "doctor": "check the installation and a model folder",
}

EXAMPLES = """examples:
  hftrainer generate "a person walks forward" --out out/
  hftrainer train configs/gotozero/debug_ar.yaml trainer.max_steps=20
  hftrainer data import-bvh FOLDER --skeleton bandai-namco --out dataset/bandai
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0 only if everything that was asked for was done, 2 for wrong usage."""
    die_with_parent_if_told()
    open_closed_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    command = argv[0] if argv else ""
    with guarded_streams(), tidy_warnings(), last_file() as opened:
        try:
            args = _parse(argv)
            _check_current_folder()
            status = int(args.run(args))
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except BaseException as error:
            if is_output_closed(error):
                with contextlib.suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1
            known = isinstance(error, Exception) or is_panic(error)
            message = explain(error, opened) if known else None
            if message is None or os.environ.get(TRACEBACK):
                raise  # a bug: its traceback is what is needed; or the end of the process
            print(f"hftrainer {command}: {message}", file=sys.stderr)
            return 1


def _check_current_folder() -> None:
    """Libraries end the process without a word of ours where there is no current folder."""
    try:
        os.getcwd()
    except OSError as error:
        raise ValueError(f"the current folder cannot be used ({error.strerror}); change to one that exists") from error


def _parse(argv: list[str]) -> argparse.Namespace:
    name = argv[0] if argv and argv[0] in COMMANDS else None
    parser = argparse.ArgumentParser(
        prog="hftrainer",
        description="Train, load, sample and evaluate text-to-human-motion models.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hftrainer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command, summary in COMMANDS.items():
        if name is None or command == name:
            sub = commands.add_parser(
                command, help=summary, description=summary, formatter_class=argparse.RawDescriptionHelpFormatter
            )
            if command == name:
                import_module(f"hftrainer.commands.{command}").add_arguments(sub)
    args, rest = parser.parse_known_args(_join_axes(argv))
    if rest and not getattr(args, "takes_overrides", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    return args


def _join_axes(argv: list[str]) -> list[str]:
    """``--up -Y`` as ``--up=-Y``, which argparse would take for two options."""
    out: list[str] = []
    for word in argv:
        if out and out[-1] == "--up" and re.fullmatch("-[XYZ]", word):
            out[-1] += f"={word}"
        else:
            out.append(word)
    return out


if __name__ == "__main__":
    sys.exit(main())
