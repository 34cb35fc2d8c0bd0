"""Package a trained text-to-motion model, or an evaluator, where the zoo finds it, with its card and manifest.

    python tools/package_model.py gotozero-mini --model runs/mini_ar/best --int8 \
        --body runs/mini_body/skeleton.json --temperature 0.9 --top-p 0.95
    python tools/package_model.py gotozero-nano --model runs/nano_finetune/last --decoder runs/nano_decoder/best \
        --actions runs/nano_actions/best --temperature 0.8 --top-p 0.9 --min-new-tokens 16
    python tools/package_model.py motionstreamer272-mini --evaluator runs/motionstreamer272_mini/best

Weights are stored in float16, with --int8 the transformer's in 8 bits. tools/<name>.md becomes the folder's README.md.
`hftrainer data vocabulary DATASET --model checkpoints/<name>` then adds what the model knows; last,
`python tools/package_model.py <name> --card` puts the hashes of all files into the card.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
import yaml

from hftrainer.files import sha256, write_json, write_text
from hftrainer.manifest import write_manifest
from hftrainer.models.motion.motionmillion import MotionMillionBundle
from hftrainer.models.motion.motionstreamer import MotionStreamer272Evaluator
from hftrainer.motion.body import BODY_FILE
from hftrainer.pipelines.base import GENERATION_CONFIG
from hftrainer.pipelines.knowledge.files import EXAMPLES, KNOWN, VOCABULARY
from hftrainer.requests import SamplingParams
from hftrainer.zoo import read_card
from hftrainer.zoo.collection import BUILT_IN

MOST = {"text-to-motion": 48e6, "evaluator": 15e6}  # bytes; they are committed
CARDS = Path(__file__).parent
_CARD_HASHES = (".safetensors", ".json", ".npy")


def main() -> None:
    """Write OUT from scratch, but for what the model knows, and print sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the card in hftrainer/zoo/models")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model", type=Path, help="trained transformer, with tokenizer and text encoder")
    what.add_argument("--evaluator", type=Path, help="trained evaluator")
    parser.add_argument(
        "--card", action="store_true", help="put the hashes of the files into the card in hftrainer/zoo"
    )
    parser.add_argument("--decoder", type=Path, help="a tokenizer with the same codes and a better decoder")
    parser.add_argument("--actions", type=Path, help="an action classifier that comes along")
    parser.add_argument("--body", type=Path, help="as `hftrainer bench fit --measure` writes it; default: OUT's own")
    parser.add_argument("--out", type=Path, help="default: checkpoints/<name>")
    parser.add_argument("--int8", action="store_true", help="store the transformer's matrices in 8 bits")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--min-new-tokens", type=int, default=8)
    args = parser.parse_args()
    out = args.out or Path("checkpoints") / args.name
    if args.model is not None:
        package_model(args, out)
    elif args.evaluator is not None:
        package_evaluator(args.evaluator, out)
    elif not args.card:
        parser.error("give --model or --evaluator to package one, or --card for what is packaged already")
    shutil.copyfile(CARDS / f"{args.name}.md", out / "README.md")
    write_manifest(out)
    card = BUILT_IN / f"{args.name}.yaml"
    most = MOST[read_card(card).task]
    if args.card:
        update_card(card, out)
    sizes = {path.relative_to(out).as_posix(): path.stat().st_size for path in out.rglob("*") if path.is_file()}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{size / 1e6:8.2f} MB  {name}")
    total = sum(sizes.values())
    print(f"{total / 1e6:8.2f} MB  {out}, {most / 1e6:.0f} MB are allowed")
    if total > most:
        raise SystemExit(f"{out} is too large to be committed")


def package_model(args: argparse.Namespace, out: Path) -> None:
    """Weights in float16, sampling, skeleton, and what the packaged model before it knows and is shown on."""
    bundle = MotionMillionBundle.from_pretrained(args.model)
    if args.decoder is not None:
        use_decoder(bundle, MotionMillionBundle.from_pretrained(args.decoder))
    kept = {name: path.read_bytes() for name in (BODY_FILE, VOCABULARY, KNOWN, EXAMPLES)
            if (path := out / name).is_file()}  # fmt: skip
    bundle.save_pretrained(out, dtype=torch.float16, int8_matrices=args.int8)
    for name, content in kept.items():
        (out / name).write_bytes(content)
    if args.actions is not None:
        shutil.copytree(args.actions, out / "actions")
    if args.body is not None:
        shutil.copyfile(args.body, out / BODY_FILE)
    sampling = SamplingParams(True, args.temperature, args.top_k, args.top_p, args.min_new_tokens, args.guidance_scale)
    write_json(out / GENERATION_CONFIG, sampling.record())
    size = {
        name: sum(p.numel() for p in part.parameters()) for name, part in bundle.parts().items() if part is not None
    }
    print(", ".join(f"{name}: {count} parameters" for name, count in size.items()))


def package_evaluator(source: Path, out: Path) -> None:
    """The evaluator, complete enough to be used."""
    evaluator = MotionStreamer272Evaluator.from_pretrained(source)
    evaluator.encode_texts(["a person walks"])  # fails if the folder is incomplete
    evaluator.save_pretrained(out)


def use_decoder(bundle: MotionMillionBundle, trained: MotionMillionBundle) -> None:
    """Take the tokenizer of `trained`, if its encoder is the one that the transformer was trained with."""
    ours, theirs = bundle.vqvae.state_dict(), trained.vqvae.state_dict()
    for name, tensor in ours.items():
        decides_codes = name.startswith(("vqvae.encoder.", "vqvae.quantizer.project_in."))
        if decides_codes and not torch.equal(tensor, theirs[name]):
            raise SystemExit(f"{name} differs: the decoder belongs to a tokenizer with a different encoder")
    bundle.vqvae.load_state_dict(theirs)


def update_card(card: Path, folder: Path) -> None:
    """Put the hashes of the folder's files at the end of its card."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in _CARD_HASHES and p.name != "manifest.json")
    hashes = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    kept = card.read_text(encoding="utf-8").partition("\nfiles:\n")[0].rstrip("\n")
    write_text(card, f"{kept}\n{yaml.safe_dump({'files': hashes}, indent=2)}")
    print(f"{card}: {len(hashes)} hashes")


if __name__ == "__main__":
    main()
