"""What ``hftrainer generate`` says of what it made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hftrainer.shown import sentence

_MOST_LINES = 20


def show_made(made: Any, out: Path) -> int:
    """Print a line a motion, and to stderr what failed and what the model says of the prompts; 1 if a motion failed."""
    from hftrainer.pipelines.outputs import MANIFEST, ending

    for prompt, warnings in made.warnings.items():
        print("\n".join(f"warning: {prompt!r}: {warning}" for warning in warnings), file=sys.stderr)
    items = made.manifest["items"]
    for item in items[:_MOST_LINES]:
        if "error" in item:
            print(f"failed: {item['prompt']!r} (seed {item['seed']}): {sentence(item['error'])}", file=sys.stderr)
        else:
            print(f"{item['seconds']:5.1f} s  ends {ending(item):20}  {item['stem']}")
    if len(items) > _MOST_LINES:
        print(f"... and {len(items) - _MOST_LINES} more, see {out / MANIFEST}")
    seconds = f"loading {made.loading:.1f} s, making {made.making:.1f} s"
    print(f"{len(items) - len(made.failed)} motions in {out} ({seconds})")
    if made.page is not None:
        print(f"view them: {made.page}")
    return 1 if made.failed else 0
