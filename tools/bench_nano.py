"""What gotozero-nano costs on this machine, side by side in one process: un-cached oracle, cached, batched.

    python tools/bench_nano.py --rounds 5

Every round runs each way once, in turn; printed are medians, and the median of the rounds' ratios. END is not allowed,
so all ways make the same number of codes; the tokens of the cached ways are checked against the oracle's.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch

from hftrainer.zoo.load import load_pipeline

PROMPTS = ["a person walks forward", "someone waves the left hand", "a woman bows", "run as fast as possible"] * 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gotozero-nano")
    parser.add_argument("--codes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write the figures here too")
    args = parser.parse_args()

    bundle = load_pipeline(args.model).bundle
    head = bundle.ar.lm_head.weight
    with torch.inference_mode():
        head[bundle.ar.config.end_id] = -10 * head.abs().mean(dim=0)  # no END
        text = bundle.encode_text(PROMPTS)
        one = text.features[:1], text.mask[:1]
        ways: dict[str, tuple[int, Callable[[], torch.Tensor]]] = {
            "un-cached, 1 prompt": (1, lambda: bundle.ar.sample(*one, max_sample_steps=args.codes)),
            "cached, 1 prompt": (1, lambda: bundle.ar.generate(*one, args.codes).tokens),
            "cached, 16 prompts": (16, lambda: bundle.ar.generate(text.features, text.mask, args.codes).tokens),
        }
        want = ways["un-cached, 1 prompt"][1]()
        for _, way in ways.values():
            assert torch.equal(way()[:1], want), "the ways do not agree; a fast wrong sampler is no result"
        seconds = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, (rows, way) in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append((time.perf_counter() - start) / rows)
    figures = report(seconds, args.codes)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as stream:
            json.dump(figures, stream, indent=2)


def report(seconds: dict[str, list[float]], codes: int) -> dict[str, dict[str, float]]:
    """Print the table; the figures."""
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'way':22} {'s a motion':>11} {'codes/s':>9} {'x un-cached':>12}")
    base, figures = seconds["un-cached, 1 prompt"], {}
    for name, times in seconds.items():
        ratio = statistics.median(b / t for b, t in zip(base, times, strict=True))
        middle = statistics.median(times)
        figures[name] = {"seconds": middle, "codes_per_second": codes / middle, "ratio": ratio}
        print(f"{name:22} {middle:11.3f} {codes / middle:9.0f} {ratio:12.1f}")
    return figures


if __name__ == "__main__":
    main()
