"""``hftrainer convert checkpoint --ar FILE --out_dir FOLDER``, and ``hftrainer convert push FOLDER NAME``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hftrainer.commands.convert_flags import add_checkpoint_arguments

EPILOG = """examples:
  hftrainer convert push checkpoints/gotozero/mine someone/gotozero-7b --private
  hftrainer convert checkpoint --ar pretrained_models/motionmillion_7B.pth --out_dir checkpoints/gotozero/mine --verify
  hftrainer convert llama gotozero-nano --out exported/nano-llama
  hftrainer convert run runs/ar_7b --out checkpoints/ar_7b
  hftrainer convert adapter checkpoints/gotozero/mine runs/lora/best-adapter --out checkpoints/adapted
The second is the same as python3 scripts/eval/convert_motionmillion_checkpoint.py --ar ... --out_dir ..."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    what = parser.add_subparsers(dest="what", metavar="what", required=True)

    def verb(name: str, summary: str, act: Any, out: bool = False) -> Any:
        sub = what.add_parser(name, help=summary)
        sub.set_defaults(run=act)
        if out:
            sub.add_argument("--out", type=Path, required=True, help="folder to write")
        return sub.add_argument

    add_checkpoint_arguments(verb("checkpoint", "convert released Go to Zero files to an artifact folder", run))
    add = verb("llama", "export a model's transformer as a LlamaForCausalLM, for other engines", run_other, out=True)
    add("model", help="a model folder or zoo name")
    add = verb("run", "convert the newest checkpoint of a training run to an artifact folder", run_other, out=True)
    add("folder", type=Path, help="the run's output_dir")
    add("--checkpoint", type=Path, help="default: its checkpoints/last.ckpt")
    add("--tokenizer", type=Path, help="a model folder; default: the run's model.init.tokenizer")
    add = verb("adapter", "merge a LoRA adapter into a model", run_other, out=True)
    add("model", help="a model folder or zoo name")
    add("adapter", type=Path, help="a folder in peft's layout")
    add = verb("push", "upload an artifact folder to the Hugging Face hub", push)
    add("folder", type=Path, help="the artifact; checked against its manifest first")
    add("repo_id", help="owner/repository; created if it does not exist")
    add("--private", action="store_true", help="if the repository is created")
    add("--revision", help="an existing branch; default: main")
    add("--create_pr", action="store_true", help="open a pull request instead of committing")
    add("--message", help="of the commit")


def run(args: argparse.Namespace) -> int:
    """Released files to an artifact."""
    from hftrainer.apps.convert import convert_released

    names = ("ar", "fsq", "mean", "std", "dtype", "verify", "repo_id", "ar_config_name", "trained_on")
    given = {name: getattr(args, name) for name in names}
    text = {"text_encoder": args.text_model_source, "with_text_encoder": not args.no_text_encoder}
    convert_released(args.out_dir, **given, **text, say=print)
    return 0


def run_other(args: argparse.Namespace) -> int:
    """A model, run or adapter in another form."""
    from hftrainer.apps import convert

    act = {
        "llama": lambda: convert.export_llama(args.model, args.out),
        "run": lambda: convert.convert_run(args.folder, args.out, args.checkpoint, args.tokenizer),
        "adapter": lambda: convert.merge_adapter(args.model, args.adapter, args.out),
    }
    print(act[args.what]())
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
