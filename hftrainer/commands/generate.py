"""``hftrainer generate "a person walks forward" --out out/``."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from hftrainer.commands.common import (
    add_model,
    add_sampling,
    one_sentence,
    progress_lines,
    read_prompts,
    sampling_of,
)
from hftrainer.commands.exporting import FORMATS_HELP, add_export, formats_of, options_of
from hftrainer.commands.generated import show_made
from hftrainer.commands.loading import add_loading, load_options

EPILOG = """examples:
  hftrainer generate "a person walks forward" -n 4 --out out/
  hftrainer generate "a person walks forward" --seconds 3 --then "someone runs" 2 --then "a person squats" 3
  hftrainer generate --prompts prompts.txt --seconds 5 --formats npy,bvh,html --out out/
  hftrainer generate "a person runs" --formats glb --skeleton unreal --loop --in-place --fps 60
A run adds to an existing folder and keeps finished motions. Open out/index.html in any browser, without a network."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("prompt", nargs="*", help="what the person does; each argument is one prompt")
    parser.add_argument("--prompts", type=Path, help="a file with one prompt per line")
    add_model(parser)
    parser.add_argument("--out", "-o", type=Path, default=Path("out"), help="folder for the files (default out/)")
    parser.add_argument("--seconds", type=float, help="exact length of every motion; default: the model decides")
    parser.add_argument(
        "--then", nargs=2, action="append", metavar=("PROMPT", "SECONDS"),
        help="then continue with this prompt for this long; may be repeated; needs --seconds for the first part",
    )  # fmt: skip
    parser.add_argument("-n", "--num-motions", type=int, default=1, help="motions per prompt, with consecutive seeds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default="npy,npz,bvh,glb,mp4,html", help=FORMATS_HELP)
    add_sampling(parser)
    parser.add_argument("--truncate", action="store_true", help="truncate text that is longer than the model's limit")
    parser.add_argument("--strict", action="store_true", help="refuse prompts that the model does not know")
    parser.add_argument("--batch-size", type=int, default=16)
    add_loading(parser)
    add_export(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Generate and write; 1 if a motion failed."""
    prompts = read_prompts(one_sentence(args.prompt), args.prompts)
    options = options_of(args)
    formats = formats_of(args, options)
    from hftrainer.apps.generate import generate

    made = generate(
        prompts, out=args.out, model=args.model, num_motions=args.num_motions, seed=args.seed, seconds=args.seconds,
        formats=formats, sampling=partial(sampling_of, args), batch_size=args.batch_size, truncate=args.truncate,
        strict=args.strict, raw=args.raw, options=options, then=args.then or (), load=load_options(args),
        progress=progress_lines("batches"),
    )  # fmt: skip
    return show_made(made, args.out)
