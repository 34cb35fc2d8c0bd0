"""From a name to a working pipeline or evaluator."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hftrainer.config import ConfigError
from hftrainer.hub import ModelNotFound, find_model
from hftrainer.registry import EVALUATORS, PIPELINES
from hftrainer.zoo.cards import ModelCard, find_card

_REPOSITORY = Path(__file__).resolve().parents[2]


def load_pipeline(name_or_path: str | os.PathLike[str], **options: Any) -> Any:
    """A pipeline by the zoo's name, a model's folder, or owner/repository on the hub.

    `options` go to the pipeline's ``from_pretrained`` (device, dtype, revision, ...).
    """
    folder, name = locate(name_or_path, **_hub_options(options))
    if not name:
        raise ConfigError(f"{name_or_path} is an evaluator: it judges motions and makes none")
    return PIPELINES.get(name).from_pretrained(folder, **options)  # type: ignore[attr-defined]


def load_evaluator(name_or_path: str | os.PathLike[str], kind: str = "motionstreamer272", **options: Any) -> Any:
    """An evaluator of a kind (a name in EVALUATORS) by the zoo's name, a folder, or owner/repository on the hub.

    `options` go to its ``from_pretrained`` (device, cache_dir, ...).
    """
    text = str(name_or_path)
    folder: str | os.PathLike[str] = name_or_path
    if not Path(text).is_dir() and "/" not in text and os.sep not in text:
        card = find_card(text)
        if card.evaluator != kind:
            what = f"an evaluator of the kind {card.evaluator}" if card.evaluator else "no evaluator"
            raise ConfigError(f"{card.name} is {what}; {kind} is needed")
        folder, _ = locate(text)
    target: Any = EVALUATORS.get(kind)
    return getattr(target, "from_pretrained", target)(folder, **options)


def locate(name_or_path: str | os.PathLike[str], **hub: Any) -> tuple[Path, str]:
    """The folder of a model and the name of its pipeline."""
    text = str(name_or_path)
    if Path(text).is_dir() or "/" in text or os.sep in text:
        folder = find_model(name_or_path, **hub)
        return folder, _pipeline_of(folder)
    card = find_card(text)
    here = _folder_of(card)
    if here is not None:
        return here, card.pipeline
    if card.hub is None:
        raise ModelNotFound(f"the files of {card.name} are not here; they belong in {card.folders}")
    return find_model(card.hub, **hub), card.pipeline


def is_here(card: ModelCard) -> bool:
    """Whether the model's files are on this machine outside the hub's cache."""
    return _folder_of(card) is not None


def _folder_of(card: ModelCard) -> Path | None:
    places = (base / relative for base in (Path.cwd(), _REPOSITORY) for relative in card.folders)
    return next((place for place in places if place.is_dir()), None)


def _pipeline_of(folder: Path) -> str:
    """Which pipeline a folder is for, from its model_index.json; Go to Zero if there is none."""
    index = folder / "model_index.json"
    if not index.is_file():
        return "motionmillion"
    name = json.loads(index.read_text(encoding="utf-8")).get("_class_name", "MotionMillionPipeline")
    table = {"MotionMillionPipeline": "motionmillion"}
    if name not in table:
        raise ModelNotFound(f"{index} asks for the pipeline {name!r}, which is not one of {sorted(table)}")
    return table[name]


def _hub_options(options: dict[str, Any]) -> dict[str, Any]:
    return {k: options[k] for k in ("revision", "cache_dir", "local_files_only", "token") if k in options}
