"""What several commands have in common: device, dtype and sampling flags, prompts, a progress bar."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hftrainer.dtypes import DTYPES, dtype_name

_SECONDS_BETWEEN_LINES = 30
MOST_PROMPTS = 100_000  # each is a motion, a file and a record
_SAMPLING = ("temperature", "top_k", "top_p")


def progress(title: str | None = None) -> Callable[..., Iterable[Any]]:
    """A wrapper that shows a bar around an iterable on a terminal, and nothing in a log."""

    def wrap(items: Iterable[Any], total: int | None = None) -> Iterable[Any]:
        from tqdm import tqdm

        return tqdm(items, desc=title, total=total, disable=not sys.stderr.isatty())

    return wrap


def progress_lines(what: str) -> Callable[[Any], Iterator[Any]]:
    """A wrapper that shows a bar on a terminal, and in a log a line every half minute."""

    def wrap(items: Any) -> Iterator[Any]:
        if sys.stderr.isatty():
            yield from progress(what)(items)
            return
        start = said = time.monotonic()
        for number, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - said >= _SECONDS_BETWEEN_LINES:
                said = now
                print(f"{number} of {len(items)} {what}, {(now - start) / number:.2f} s each", flush=True)

    return wrap


def add_model(parser: Any, flag: str = "--model") -> None:
    """--model, by default the model that comes with the repository."""
    from hftrainer.defaults import DEFAULT_MODEL

    parser.add_argument(flag, default=DEFAULT_MODEL, help=f"zoo name, folder or owner/repository ({DEFAULT_MODEL})")


# --- device and dtype -------------------------------------------------------------------------------------------------


def add_device(parser: Any) -> None:
    """--device."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: cuda if available, else cpu")


def device_of(args: argparse.Namespace) -> str:
    """What --device says, or the best that is there: the GPU of this rank, or the CPU."""
    if args.device:
        return str(args.device)
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if local is not None else "cuda"


def add_dtype(parser: Any, help_: str, choices: Sequence[str] = DTYPES, default: str | None = None) -> None:
    """--dtype in either spelling (bf16 or bfloat16), parsed to torch's name; `parser` or its ``add_argument``."""
    add = getattr(parser, "add_argument", parser)
    add("--dtype", type=_one_of(choices), default=default, metavar="DTYPE", help=help_)


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            name = dtype_name(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if name not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not available here; choose one of {', '.join(choices)}")
        return name

    return parse


# --- sampling ---------------------------------------------------------------------------------------------------------


def add_sampling(parser: Any) -> None:
    """--greedy, --temperature, --top-k, --top-p, --guidance-scale."""
    parser.add_argument("--greedy", action="store_true", help="always take the most likely code, no sampling")
    parser.add_argument("--temperature", type=float, help="sampling temperature; below 1 is more conservative")
    parser.add_argument("--top-k", type=int, help="sample from the k most likely codes")
    parser.add_argument("--top-p", type=float, help="sample from the smallest set of codes with this probability")
    parser.add_argument(
        "--guidance-scale", type=float, metavar="SCALE",
        help="above 1, keep more closely to the text; for models trained with empty texts, at half the speed",
    )  # fmt: skip


def sampling_changes(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags change in a model's own sampling settings; ``ValueError`` if they contradict each other."""
    given = {key: getattr(args, key) for key in _SAMPLING if getattr(args, key) is not None}
    if args.greedy and given:
        raise ValueError(f"--greedy does not sample; remove {', '.join(given)}")
    if args.greedy:
        given = {"do_sample": False}
    elif given:
        given["do_sample"] = True
    return given if args.guidance_scale is None else {**given, "guidance_scale": args.guidance_scale}


def sampling_of(args: argparse.Namespace, own: Any) -> Any:
    """The model's `own` sampling settings, changed by the flags."""
    return dataclasses.replace(own, **sampling_changes(args))


# --- prompts ----------------------------------------------------------------------------------------------------------


# Words that are in sentences and are no prompts by themselves.
_OF_SENTENCES = {"a", "an", "the", "someone", "somebody", "he", "she", "they", "person", "man", "woman", "then", "and"}


def one_sentence(words: list[str]) -> list[str]:
    """`words` as one prompt if a shell took an unquoted sentence apart, else as they are."""
    apart = len(words) > 2 and not any(" " in word.strip() for word in words)
    if not (apart and any(word.lower().strip(".,!?") in _OF_SENTENCES for word in words)):
        return words
    sentence = " ".join(words)
    print(f'one prompt: "{sentence}" (put each prompt in quotes to give several)', file=sys.stderr)
    return [sentence]


def read_prompts(given: Sequence[str], file: Path | None = None) -> list[str]:
    """Prompts of the command line and of a file; an empty one is refused with its place."""
    prompts = list(given)
    for place, prompt in enumerate(prompts, 1):
        if not prompt.strip():
            raise ValueError(f"prompt {place} is empty; describe what the person does")
    if file is not None:
        from hftrainer.data.text_motion.prompt_file import read_prompt_file

        prompts += read_prompt_file(file)
    if len(prompts) > MOST_PROMPTS:
        raise ValueError(f"{len(prompts)} prompts are more than {MOST_PROMPTS}; divide the file")
    if not prompts:
        raise ValueError('give a prompt, e.g. hftrainer generate "a person walks forward", or --prompts FILE')
    return prompts


# --- other processes --------------------------------------------------------------------------------------------------

_NOT_FLAGS = ("run", "command", "what", "rest", "takes_overrides")


def as_flags(args: argparse.Namespace, *, without: Sequence[str] = ()) -> list[str]:
    """The command that `args` were parsed from, for another process; flags called `without` are left out.

    Every flag is written as ``--name=value``, so that a value may begin with a dash.
    """
    out = [args.command, args.what]
    for name, value in vars(args).items():
        flag = f"--{name.replace('_', '-')}"
        if name in (*_NOT_FLAGS, *without) or value is None or value is False:
            continue
        out.append(flag if value is True else f"{flag}={value}")
    return out
