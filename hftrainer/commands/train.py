"""``hftrainer train CONFIG [section.field=value ...]``."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """example:
  hftrainer train configs/gotozero/debug_ar.yaml trainer.max_steps=20 model.ar.n_layer=2
  hftrainer train configs/gotozero/ar_7b.yaml trainer.devices=4 --dry-run --card h100-80
A run whose folder has a checkpoint is continued; --new takes another folder, resume=never starts again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("config", help="a YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="changes to the configuration")
    parser.add_argument(
        "--new", action="store_true", help="keep the run in output_dir unchanged; train in output_dir-2"
    )
    parser.add_argument("--check", action="store_true", help="check the configuration, print it resolved, and exit")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print parameters, memory per device and steps, without reading or writing data",
    )
    parser.add_argument("--card", help="with --dry-run: check whether the run fits, e.g. h100-80")
    parser.set_defaults(run=run, takes_overrides=True)  # also after an option


def run(args: argparse.Namespace) -> int:
    """Train."""
    overrides = [*args.overrides, *getattr(args, "rest", [])]
    if args.check or args.dry_run:
        return _look(args, overrides)
    from hftrainer.apps.train import train

    done = train(args.config, overrides, new=args.new)
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only(print)(f"done: {done.folder}")
    return 0


def _look(args: argparse.Namespace, overrides: list[str]) -> int:
    """Print what the run would be; 1 if it does not fit the card."""
    from omegaconf import OmegaConf

    from hftrainer.config import load_experiment
    from hftrainer.training.fit import check_experiment
    from hftrainer.training.preflight import warn_of_warmup

    experiment = load_experiment(args.config, overrides)
    warn_of_warmup(experiment)
    found: Any = None
    if args.dry_run:
        from hftrainer.training.dry_run import dry_run

        found = dry_run(experiment, card=args.card)
    print(OmegaConf.to_yaml(OmegaConf.create(found.resolved if found else check_experiment(experiment))))
    if found is not None:
        print("\n".join(found.lines()))
    return 0 if found is None or found.fits is not False else 1
