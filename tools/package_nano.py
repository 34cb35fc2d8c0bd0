"""Package gotozero-nano: a trained model, its action classifier, sampling defaults, and the model card.

    python tools/package_nano.py --model runs/nano_ar/best --actions runs/nano_actions/best \
        --out checkpoints/gotozero-nano
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from hftrainer.files import write_json
from hftrainer.manifest import write_manifest
from hftrainer.models.motion.motionmillion import MotionMillionBundle
from hftrainer.motion.body import BODY_FILE
from hftrainer.pipelines.base import GENERATION_CONFIG
from hftrainer.requests import SamplingParams

CARD = Path(__file__).parent / "gotozero-nano.md"


def main() -> None:
    """Write OUT from scratch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/nano_ar/best"))
    parser.add_argument("--decoder", type=Path, help="a tokenizer with the same codes and a better decoder")
    parser.add_argument("--actions", type=Path, default=Path("runs/nano_actions/best"))
    parser.add_argument("--body", type=Path, default=Path("checkpoints/gotozero-nano") / BODY_FILE,
                        help="as `hftrainer bench fit --measure` writes it")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("checkpoints/gotozero-nano"))
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=None)
    parser.add_argument("--top-k", type=int, default=None)
    parser.add_argument("--min-new-tokens", type=int, default=8)
    args = parser.parse_args()

    bundle = MotionMillionBundle.from_pretrained(args.model)
    if args.decoder is not None:
        use_decoder(bundle, MotionMillionBundle.from_pretrained(args.decoder))
    bundle.save_pretrained(args.out, dtype=torch.float16)
    shutil.copytree(args.actions, args.out / "actions")
    sampling = SamplingParams(True, args.temperature, args.top_k, args.top_p, args.min_new_tokens)
    write_json(args.out / GENERATION_CONFIG, asdict(sampling))
    shutil.copyfile(args.body, args.out / BODY_FILE)
    shutil.copyfile(CARD, args.out / "README.md")
    write_manifest(args.out)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB")


def use_decoder(bundle: MotionMillionBundle, trained: MotionMillionBundle) -> None:
    """Take the tokenizer of `trained`, if its encoder is the one that the transformer was trained with."""
    ours, theirs = bundle.vqvae.state_dict(), trained.vqvae.state_dict()
    for name, tensor in ours.items():
        decides_codes = name.startswith(("vqvae.encoder.", "vqvae.quantizer.project_in."))
        if decides_codes and not torch.equal(tensor, theirs[name]):
            raise SystemExit(f"{name} differs: the decoder belongs to a tokenizer with a different encoder")
    bundle.vqvae.load_state_dict(theirs)


if __name__ == "__main__":
    main()
