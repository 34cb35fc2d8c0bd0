"""``hftrainer train CONFIG [section.field=value ...]``."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """example:
  hftrainer train configs/gotozero/debug_ar.yaml trainer.max_steps=20 model.ar.n_layer=2
  hftrainer train configs/gotozero/ar_7b.yaml trainer.devices=4 --dry-run
A run whose folder has a checkpoint goes on from it; resume=never starts anew."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("config", help="a YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="changes to the configuration")
    parser.add_argument("--check", action="store_true", help="check the configuration, print it resolved, and stop")
    parser.add_argument(
        "--dry-run", action="store_true", help="print parameters, memory per device and steps; nothing is read or made"
    )
    parser.set_defaults(run=run, takes_overrides=True)  # also after an option


def run(args: argparse.Namespace) -> int:
    """Train."""
    from hftrainer.config import load_experiment
    from hftrainer.training.fit import check_experiment, fit

    experiment = load_experiment(args.config, [*args.overrides, *getattr(args, "rest", [])])
    if args.check:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(OmegaConf.create(check_experiment(experiment))))
        return 0
    if args.dry_run:
        return _dry_run(experiment)
    output = fit(experiment)
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only(print)(f"done: {output}")
    return 0


def _dry_run(experiment: Any) -> int:
    """Print what the run would be."""
    from omegaconf import OmegaConf

    from hftrainer.training.dry_run import dry_run

    found = dry_run(experiment)
    print(OmegaConf.to_yaml(OmegaConf.create(found.resolved)))
    print("\n".join(found.lines()))
    return 0
