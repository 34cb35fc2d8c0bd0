"""``hftrainer evaluate run|generate|tokenizer|actions``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hftrainer.commands import evaluate_generate, evaluate_run

EPILOG = """examples:
  hftrainer evaluate run --data dataset/bandai --evaluator motionstreamer272-nano --model gotozero-nano --out runs/a
  hftrainer evaluate run --data dataset/HumanML3D_272 --evaluator evaluators/ms272 --predictions outputs/ms272/mine
  hftrainer evaluate run --compare runs/a runs/b
  hftrainer evaluate run --benchmark motionmillion-eval --prompts prompts.txt --model gotozero-nano --out runs/mme
  hftrainer evaluate generate --model gotozero-nano --pair-source official_split --data dataset/bandai -o made
  hftrainer evaluate tokenizer gotozero-nano --data dataset/bandai --split test
  hftrainer evaluate actions gotozero-nano --data dataset/bandai --seeds 20 --out docs/results"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    what = parser.add_subparsers(dest="what", metavar="what", required=True)
    for name, module, summary in (
        ("run", evaluate_run, "judge predictions, or a model, by a named protocol; compare two such runs"),
        ("generate", evaluate_generate, "motions of exactly the real lengths for a test set, over many processes"),
    ):
        module.add_arguments(what.add_parser(name, help=summary, description=summary))

    sub = _common(what, "tokenizer", "reconstruction of real clips")
    sub.add_argument("--evaluator", help="zoo name, folder or hub name of a MotionStreamer-272 evaluator, for FID")
    sub.set_defaults(run=tokenizer)

    sub = _common(what, "actions", "whether generated motions do what their text says, by a classifier")
    sub.add_argument("--classifier", default="checkpoints/gotozero-nano/actions", help="folder of an action classifier")
    sub.add_argument("--templates", default="bandai-namco", help="caption templates that the prompts are made from")
    sub.add_argument("--seeds", type=int, default=20, help="motions an action (default 20)")
    sub.add_argument("--pairs", type=int, default=100, help="prompts of two actions (default 100)")
    sub.add_argument("--styled", type=int, default=100, help="prompts with style words (default 100)")
    sub.add_argument("--unseen", type=Path, help="file of prompt, action, style by tabs; default: the shipped one")
    sub.add_argument("--temperature", type=float)
    sub.add_argument("--top-p", type=float)
    sub.set_defaults(run=actions)


def tokenizer(args: argparse.Namespace) -> int:
    """Print and write the figures of `evaluate_tokenizer`."""
    from hftrainer.data.folder import DatasetFolder
    from hftrainer.evaluation.tokenizer import evaluate_tokenizer
    from hftrainer.models.motion.motionmillion import MotionMillionBundle
    from hftrainer.zoo.load import locate

    folder, _ = locate(args.model)
    bundle = MotionMillionBundle.from_pretrained(folder, text_encoder=None, load_ar=False)
    dataset = DatasetFolder(args.data)
    evaluator = None
    if args.evaluator is not None:
        from hftrainer.zoo.load import load_evaluator

        evaluator = load_evaluator(args.evaluator)
    motions = map(dataset.motion, _bar(dataset.names(args.split)))
    figures = evaluate_tokenizer(bundle, motions, evaluator=evaluator)
    _write(args, "tokenizer", {"split": args.split, "evaluator": args.evaluator, "figures": figures})
    for name, value in figures.items():
        print(f"{name:44} {value:.3f}")
    return 0


def actions(args: argparse.Namespace) -> int:
    """Generate, judge, print and write."""
    import dataclasses

    import numpy as np

    from hftrainer.data.folder import DatasetFolder
    from hftrainer.data.prepare.captions import load_templates
    from hftrainer.data.prepare.trials import real_clips, styled_trials, trials, unseen_trials
    from hftrainer.evaluation.actions import Outcome, Trial, judge, report
    from hftrainer.models.action_classifier import ActionClassifier
    from hftrainer.zoo.load import load_pipeline

    templates, dataset = load_templates(args.templates), DatasetFolder(args.data)
    classifier = ActionClassifier.from_pretrained(args.classifier)
    pipeline = load_pipeline(args.model)
    given = {"temperature": args.temperature, "top_p": args.top_p}
    chosen = {key: value for key, value in given.items() if value is not None}
    sampling = dataclasses.replace(pipeline.sampling, do_sample=True, **chosen)

    asked = [Trial(*row) for row in trials(templates, args.seeds, args.pairs)]
    asked += [Trial(*row) for row in styled_trials(templates, dataset.labels(), args.styled)]
    unseen = [Trial(*row) for row in unseen_trials(args.unseen)]
    order = sorted(range(len(asked) + len(unseen)), key=lambda i: len((asked + unseen)[i].contents))
    rows = [(asked + unseen)[i] for i in order]
    made = pipeline.generate_rows([(t.prompt, t.seed) for t in rows], sampling=sampling, batch_size=32, progress=_bar)
    outcomes: dict[int, Outcome] = {
        i: Outcome(trial, m.motion, m.ended) for i, trial, m in zip(order, rows, made, strict=True)
    }
    judge(list(outcomes.values()), classifier)
    real, styles = real_clips(dataset, args.split)
    result = report(
        [outcomes[i] for i in range(len(asked))], real, classifier, styles_of=styles, rng=np.random.default_rng(0)
    )
    free = [outcomes[i] for i in range(len(asked), len(asked) + len(unseen))]
    result.figures["unseen paraphrases, agreement"] = float(np.mean([o.right for o in free]))
    print(result.markdown())
    for outcome in free:
        if not outcome.right:
            print(f"unseen: {outcome.trial.prompt!r} looks like {outcome.seen_content}", file=sys.stderr)
    content = {"figures": result.figures, "by_label": result.by_label, "sampling": dataclasses.asdict(sampling)}
    _write(args, "actions", content)
    return 0


def _common(what: Any, name: str, summary: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = what.add_parser(name, help=summary, description=summary)
    sub.add_argument("model", help="zoo name or model folder")
    sub.add_argument("--data", required=True, help="dataset folder with real clips")
    sub.add_argument("--split", default="test")
    sub.add_argument("--out", type=Path, help="folder for the figures as JSON")
    return sub


def _write(args: argparse.Namespace, name: str, content: dict[str, Any]) -> None:
    if args.out is not None:
        from hftrainer.files import check_writable, write_json
        from hftrainer.manifest import fingerprint
        from hftrainer.zoo.load import locate

        identity = {"model": str(args.model), "model_hash": fingerprint(locate(args.model)[0])}
        write_json(check_writable(args.out) / f"{name}.json", {**identity, **content})


def _bar(items: Iterable[Any]) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(items, disable=not sys.stderr.isatty())
