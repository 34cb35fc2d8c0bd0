"""``hftrainer convert checkpoint --ar FILE --out_dir FOLDER``, and ``hftrainer convert push FOLDER NAME``."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """examples:
  hftrainer convert push checkpoints/gotozero/mine someone/gotozero-7b --private
  hftrainer convert checkpoint --ar pretrained_models/motionmillion_7B.pth --out_dir checkpoints/gotozero/mine --verify
  hftrainer convert llama gotozero-nano --out exported/nano-llama
  hftrainer convert run runs/ar_7b --out checkpoints/ar_7b
  hftrainer convert adapter checkpoints/gotozero/mine runs/lora/best-adapter --out checkpoints/adapted
The second is the same as python3 scripts/eval/convert_motionmillion_checkpoint.py --ar ... --out_dir ..."""

DTYPES = {
    "float32": "float32", "bfloat16": "bfloat16", "float16": "float16",
    "fp32": "float32", "bf16": "bfloat16", "fp16": "float16",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    what = parser.add_subparsers(dest="what", metavar="what", required=True)
    sub = what.add_parser("checkpoint", help="released Go to Zero files to an artifact folder")
    add_checkpoint_arguments(sub)
    sub.set_defaults(run=run)
    llama = what.add_parser("llama", help="a model's transformer as a LlamaForCausalLM, for other engines")
    llama.add_argument("model", help="a model folder or zoo name")
    llama.add_argument("--out", type=Path, required=True, help="folder to write")
    llama.set_defaults(run=run_llama)
    sub = what.add_parser("run", help="the newest checkpoint of a training run to an artifact folder")
    sub.add_argument("folder", type=Path, help="the run's output_dir")
    sub.add_argument("--checkpoint", type=Path, help="default: its checkpoints/last.ckpt")
    sub.add_argument("--tokenizer", type=Path, help="a model folder; default: the run's model.init.tokenizer")
    sub.add_argument("--out", type=Path, required=True, help="folder to write")
    sub.set_defaults(run=run_run)
    sub = what.add_parser("adapter", help="a model with a LoRA adapter merged into it")
    sub.add_argument("model", help="a model folder or zoo name")
    sub.add_argument("adapter", type=Path, help="a folder in peft's layout")
    sub.add_argument("--out", type=Path, required=True, help="folder to write")
    sub.set_defaults(run=run_adapter)
    sub = what.add_parser("push", help="upload an artifact folder to the Hugging Face hub")
    sub.add_argument("folder", type=Path, help="the artifact; compared with its manifest first")
    sub.add_argument("repo_id", help="owner/repository; made if it is not there")
    sub.add_argument("--private", action="store_true", help="if the repository is made")
    sub.add_argument("--revision", help="an existing branch; default: main")
    sub.add_argument("--create_pr", action="store_true", help="open a pull request instead of committing")
    sub.add_argument("--message", help="of the commit")
    sub.set_defaults(run=push)


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """The model card's flags, and ours."""
    pretrained = Path("checkpoints/motionmillion/pretrained_models")
    statistics = Path("checkpoints/motionmillion/mean_std/vector_272")
    add = parser.add_argument
    add("--ar", type=Path, default=pretrained / "motionmillion_7B.pth", help="transformer, any form")
    add("--fsq", type=Path, default=pretrained / "fsq.zip", help="tokenizer, any form")
    add("--mean", type=Path, default=statistics / "mean.npy")
    add("--std", type=Path, default=statistics / "std.npy")
    add("--out_dir", type=Path, required=True, help="folder of the artifact; must not be there yet")
    add("--repo_id", help="the hub name that the model card's example uses")
    add("--text_model_source", help="folder (or hub name) of the T5 encoder that goes into the artifact")
    add("--ar_config_name", default="auto", help="auto: off the tensors; or a size that they must have")
    add("--dtype", choices=list(DTYPES), help="of the transformer; default: as it is")
    add("--no_text_encoder", action="store_true", help="make an artifact without a text encoder")
    add(
        "--trained_on",
        choices=["auto", "train", "all", "unknown"],
        default="auto",
        help="splits; auto: by the file's name",
    )
    add("--verify", action="store_true", help="compare every tensor, then logits, codes and motion")


def run(args: argparse.Namespace) -> int:
    """Convert, and compare if asked."""
    import torch

    from hftrainer.hub import find_model
    from hftrainer.models.motion.motionmillion import convert

    for name in ("ar", "fsq", "mean", "std"):
        path = getattr(args, name)
        if not path.exists():
            raise ValueError(f"there is no {name} file {str(path)!r}; give it with --{name}")
    if not args.no_text_encoder and args.text_model_source is None:
        raise ValueError("give --text_model_source FOLDER, or --no_text_encoder for an artifact without one")
    convert.check_target(args.out_dir)
    text = None if args.no_text_encoder else find_model(args.text_model_source)
    job = convert.Conversion(
        ar=args.ar, out=args.out_dir, fsq=args.fsq, mean=args.mean, std=args.std, text_encoder=text,
        ar_config_name=args.ar_config_name, dtype=getattr(torch, DTYPES[args.dtype]) if args.dtype else None,
        repo_id=args.repo_id, trained_on=args.trained_on,
    )  # fmt: skip
    convert.convert(job, say=print)
    if args.verify:
        count = convert.compare_tensors(job, say=print)
        convert.compare_outputs(job, say=print)
        print(f"verified: {count} tensors and the outputs are the source's")
    splits = convert.training_splits(job)
    if splits == "all":
        print("trained on all splits: not eligible for test-set leaderboards; the card says so")
    elif splits == "unknown":
        print("trained on unknown splits: marked as not eligible for leaderboards; if you know, say --trained_on train")
    print(f"done: {args.out_dir}")
    return 0


def run_llama(args: argparse.Namespace) -> int:
    """Export for other engines."""
    from hftrainer.models.motion.motionmillion.hf_llama import export_llama
    from hftrainer.zoo.load import load_pipeline

    bundle = load_pipeline(args.model, text_encoder=None).bundle
    if bundle.ar is None:
        raise ValueError(f"{args.model} has no transformer")
    export_llama(bundle.ar, args.out)
    print(f"wrote {args.out}; its README.md says how text goes in")
    return 0


def run_run(args: argparse.Namespace) -> int:
    """A run's checkpoint to an artifact."""
    from hftrainer.models.motion.motionmillion.convert import check_target
    from hftrainer.training.export import export_run

    check_target(args.out)
    export_run(args.folder, args.out, args.checkpoint, args.tokenizer)
    print(f"done: {args.out}")
    return 0


def run_adapter(args: argparse.Namespace) -> int:
    """Merge an adapter."""
    from hftrainer.models.motion.motionmillion.convert import check_target
    from hftrainer.zoo.load import load_pipeline

    check_target(args.out)
    load_pipeline(args.model, adapter=args.adapter).bundle.save_pretrained(args.out)
    print(f"done: {args.out}")
    return 0


def push(args: argparse.Namespace) -> int:
    """Upload."""
    from hftrainer.hub import push_folder

    url = push_folder(
        args.folder, args.repo_id, private=args.private or None, revision=args.revision,
        commit_message=args.message, create_pr=args.create_pr,
    )  # fmt: skip
    print(f"uploaded: {url}")
    return 0
