"""``hftrainer evaluate prompts``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from hftrainer.commands.evaluate_common import check_out, with_model, write_result


def add_arguments(what: Any) -> None:
    """Its arguments."""
    sub = with_model(what, "prompts", "check whether a model doubts absurd prompts, and only those")
    sub.add_argument("--trained", default="train", help="split whose captions are left out (default train)")
    more = "more real captions: a .txt file, or a caption table (cmu-humanml3d-test, a .jsonl file)"
    sub.add_argument("--captions", action="append", default=[], help=more)
    sub.add_argument("--absurd", type=Path, help="tab-separated prompt and kind; default: the included test file")
    sub.set_defaults(run=prompts)


def prompts(args: argparse.Namespace) -> int:
    """Print and write the share of captions and of absurd prompts that the model doubts."""
    from hftrainer.apps.prompt_check import check_prompts

    check_out(args)

    given = {"split": args.split, "trained": args.trained, "captions": args.captions, "absurd": args.absurd}
    found = check_prompts(args.model, args.data, **given)
    print(found.markdown())
    for source, said in found.mistaken:
        print(f"{source}: {said.prompt!r}, similarity {said.similarity}", file=sys.stderr)
    write_result(args, "prompts", found.content, found.markdown())
    return 0
