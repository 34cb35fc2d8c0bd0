"""``hftrainer data vocabulary``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hftrainer.commands.data_common import with_dataset


def add_verbs(verbs: Any) -> None:
    """Their arguments."""
    sub = with_dataset(verbs, "vocabulary", "write what a model knows into its folder: words, actions, captions")
    sub.add_argument("--model", required=True, help="zoo name or model folder, which has a text encoder")
    sub.add_argument("--split", default="train", help="the clips that the model was trained on (default train)")
    sub.add_argument("--wordnet", default="/usr/share/wordnet", help="folder of WordNet's files (Debian: wordnet-base)")
    sub.add_argument("--absurd", type=Path, help="prompts that the model should doubt; default: the included file")
    sub.add_argument("--examples", type=int, default=2048, help="captions kept as embeddings (default 2048)")
    sub.add_argument("--false-alarms", type=float, default=0.03, help="share of unseen captions to doubt (0.03)")
    sub.add_argument(
        "--normalize", action="store_true", help="show the model prompts in lower case, typing errors mended"
    )
    sub.add_argument("--seconds", action="store_true", help='read lengths in prompts: "walks for five seconds"')
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=vocabulary)


def vocabulary(args: argparse.Namespace) -> int:
    """Write vocabulary.json, known.json and known.safetensors; print how good the judgement is."""
    from hftrainer.apps.knowledge import VocabularySettings, learn_vocabulary
    from hftrainer.pipelines.knowledge.files import Reading

    settings = VocabularySettings(
        args.split, args.wordnet, args.absurd, args.examples, false_alarms=args.false_alarms, seed=args.seed,
        reading=Reading(args.normalize, args.normalize, args.seconds),
    )  # fmt: skip
    for name, value in learn_vocabulary(args.model, args.dataset, settings, say=print).items():
        print(f"{name:45} {value}")
    return 0
