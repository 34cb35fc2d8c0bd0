"""From a name to a working pipeline or evaluator."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hftrainer.config import ConfigError
from hftrainer.hub import ModelNotFound, find_model
from hftrainer.interfaces import MotionTokenizer
from hftrainer.registry import EVALUATORS, PIPELINES
from hftrainer.zoo.collection import find_card
from hftrainer.zoo.detect import not_recognized, registered_name
from hftrainer.zoo.files import hub_of, hub_revision, local_folder
from hftrainer.zoo.schema import ModelCard

_HUB_OPTIONS = ("revision", "local_files_only", "token")


def load_pipeline(name_or_path: str | os.PathLike[str], **options: Any) -> Any:
    """A pipeline by the zoo's name, a model's folder, or owner/repository on the hub.

    `options` go to the pipeline's ``from_pretrained`` (device, dtype, ...); `revision`, `cache_dir`, `local_files_only`
    and `token` also say where the files come from. A card's own revision counts unless another is given. Raises
    `ConfigError` and `ModelNotFound`.
    """
    card = card_of(name_or_path)
    if card is not None and not card.pipeline:
        raise ConfigError(_makes_none(card.name, card.task))
    hub = {key: options[key] for key in ("cache_dir", *_HUB_OPTIONS) if key in options}
    if card is not None:
        folder, name = _folder(name_or_path, card, hub, _fetcher(card, options)), card.pipeline or ""
    else:
        folder, name = locate(name_or_path, **hub)
    if not name:
        if registered_name(EVALUATORS, folder) is not None:
            raise ConfigError(_makes_none(str(name_or_path), "evaluator"))
        raise not_recognized(PIPELINES, folder)
    options.pop("revision", None)  # of the folder, which is here now
    target: Any = PIPELINES.get(name)
    made = target.from_pretrained(folder, **_accepted(name, target.from_pretrained, options))
    said, found = card.representation if card is not None else None, getattr(made, "representation", None)
    if None not in (said, found) and said != found:
        raise ConfigError(f"{card.file if card else ''}: representation is {said}, the model in {folder} makes {found}")
    return made


def load_evaluator(name_or_path: str | os.PathLike[str], kind: str | None = None, **options: Any) -> Any:
    """An evaluator by the zoo's name, a folder, or owner/repository on the hub.

    `kind`: the name in EVALUATORS that is needed; None: what the card or the folder says. `options` go to its
    ``from_pretrained`` (device, cache_dir for embeddings, ...); `revision`, `local_files_only` and `token` also say
    where the files come from. Raises `ConfigError` and `ModelNotFound`.
    """
    card = card_of(name_or_path)
    if card is not None and (card.evaluator is None or kind not in (None, card.evaluator)):
        what = f"an evaluator of the kind {card.evaluator}" if card.evaluator else "no evaluator"
        raise ConfigError(f"{card.name} is {what}; {kind or 'an evaluator'} is needed")
    folder = _folder(name_or_path, card, {key: options[key] for key in _HUB_OPTIONS if key in options})
    options.pop("revision", None)  # of the folder, which is here now
    kind = kind or (card.evaluator if card is not None else registered_name(EVALUATORS, folder))
    if kind is None:
        raise not_recognized(EVALUATORS, folder)
    target: Any = EVALUATORS.get(kind)
    return getattr(target, "from_pretrained", target)(folder, **options)


def load_tokenizer(name_or_path: str | os.PathLike[str], *, device: str = "cpu", **hub: Any) -> MotionTokenizer:
    """Only the motion tokenizer of a model, by the zoo's name, a folder, or owner/repository on the hub."""
    folder, name = locate(name_or_path, **hub)
    if not name:
        raise not_recognized(PIPELINES, folder)
    target: Any = PIPELINES.get(name)
    if not hasattr(target, "load_tokenizer"):
        raise ConfigError(f"{name_or_path}: the pipeline {name!r} offers no motion tokenizer (load_tokenizer)")
    made: MotionTokenizer = target.load_tokenizer(folder, device=device)
    return made


def locate(name_or_path: str | os.PathLike[str], **hub: Any) -> tuple[Path, str]:
    """The folder of a model, and the name of its pipeline in the registry ("" for what is not loaded by a pipeline)."""
    card = card_of(name_or_path)
    folder = _folder(name_or_path, card, hub)
    if card is not None:
        return folder, card.pipeline or ""
    return folder, registered_name(PIPELINES, folder) or ""


def card_of(name_or_path: str | os.PathLike[str]) -> ModelCard | None:
    """The card that is meant by a plain name; None for a folder or a hub name. An unknown plain name is an error."""
    text = str(name_or_path)
    if Path(text).is_dir() or not isinstance(name_or_path, str) or "/" in text or os.sep in text:
        return None
    return find_card(text)


def _makes_none(name: str, task: str) -> str:
    what = (
        "an evaluator, which does not generate motions"
        if task == "evaluator"
        else f"for {task}, which does not generate motions"
    )
    return f"{name} is {what}"


def _fetcher(card: ModelCard, options: Mapping[str, Any]) -> Callable[..., Path]:
    """Downloads a card's repository; a pipeline's own ``fetch`` downloads only what `options` do not leave out."""
    fetch: Callable[..., Path] | None = getattr(PIPELINES.get(card.pipeline or ""), "fetch", None)
    return find_model if fetch is None else partial(fetch, **options)


def _folder(
    name_or_path: str | os.PathLike[str],
    card: ModelCard | None,
    hub: dict[str, Any],
    fetch: Callable[..., Path] = find_model,
) -> Path:
    if card is None:
        return find_model(name_or_path, **hub)
    here = local_folder(card) if hub.get("revision") is None or card.hub is None else None
    if here is not None:
        return here
    options = {**hub, "revision": hub_revision(card, hub.get("revision"))}
    try:
        return fetch(hub_of(card).repository, **options)
    except ModelNotFound as error:
        places = f"; its folder is looked for at {' or '.join(card.folders)}" if card.folders else ""
        raise ModelNotFound(f"{card.name}: {error}{places}") from error


def _accepted(name: str, load: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options that a pipeline takes; one that it does not take, and that asks for something, is an error."""
    parameters = inspect.signature(load).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return options
    asked = sorted(key for key, value in options.items() if key not in parameters and value not in (None, False))
    if asked:
        known = ", ".join(key for key in list(parameters)[1:])
        raise ConfigError(f"the pipeline {name!r} cannot be loaded with {', '.join(asked)}; it takes {known}")
    return {key: value for key, value in options.items() if key in parameters}
