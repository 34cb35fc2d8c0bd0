"""``hftrainer evaluate run --benchmark motionmillion-eval``: prompts without real clips; a gallery and physics."""

from __future__ import annotations

import argparse
from typing import Any

from hftrainer.commands.common import progress
from hftrainer.commands.evaluate_flags import settings_of


def run_benchmark(args: argparse.Namespace, source: Any) -> int:
    """Generate, measure, write; 1 if a motion failed."""
    if args.prompts is None or args.out is None or source is None:
        raise ValueError("--benchmark motionmillion-eval needs --prompts FILE, --model NAME and --out FOLDER")
    from hftrainer.apps.benchmark import PUBLISHED_PROMPTS, run_benchmark

    found = run_benchmark(source, args.prompts, args.out, settings=settings_of(args), progress=progress("batches"))
    if not found.result["published_prompts"]:
        print(
            f"{args.prompts} is not the published file of {PUBLISHED_PROMPTS} prompts: it has "
            f"{found.result['prompts']}, or different ones"
        )
    print(found.markdown())
    print(f"view them: {args.out}/index.html")
    return 1 if found.failed else 0
