"""The evaluator of a protocol, by name, folder, section or object; checks its representation."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hftrainer.evaluation.protocols.schema import Protocol
from hftrainer.files import check_writable
from hftrainer.hub import find_model
from hftrainer.manifest import fingerprint
from hftrainer.registry import EVALUATORS
from hftrainer.zoo.load import load_evaluator


def resolve_evaluator(
    evaluator: Any, protocol: Protocol, *, device: str = "cpu", cache_dir: str | os.PathLike[str] | None = None
) -> Any:
    """The evaluator that a protocol is run with.

    `evaluator`: a zoo name, folder or hub name of the protocol's kind; a section ``{name: kind, path: folder}``; or
    an object with ``encode_motions`` and ``encode_texts``. `cache_dir`: where embeddings are kept from run to run, for
    kinds that do that. Raises ``ValueError`` if it reads another representation than the protocol needs.
    """
    if evaluator is None:
        raise ValueError(f"{protocol.name} needs a {protocol.evaluator} evaluator: --evaluator NAME or FOLDER")
    if hasattr(evaluator, "encode_motions"):
        encoder = evaluator
    else:
        kind, source = protocol.evaluator, evaluator
        options: dict[str, Any] = {"device": device}
        if isinstance(evaluator, Mapping):
            options |= dict(evaluator)
            kind, source = str(options.pop("name", kind)), options.pop("path", None)
            if source is None:
                raise ValueError("evaluator.path is missing: write its zoo name, folder, or owner/repository")
        if cache_dir is not None:
            _check_cache(kind)
            options["cache_dir"] = check_writable(cache_dir, "--cache")
        encoder = load_evaluator(source, kind, **options)
    reads = getattr(encoder, "representation", protocol.representation)
    if reads != protocol.representation:
        raise ValueError(f"{protocol.name} evaluates {protocol.representation}, but the evaluator expects {reads}")
    return encoder


def identity_of(encoder: Any, named: Any) -> str:
    """What decides embeddings: weights and statistics, or for evaluators that do not say, their folder."""
    if hasattr(encoder, "identity"):
        return str(encoder.identity())
    if isinstance(named, (str, Path)):
        return fingerprint(find_model(named))
    return f"{type(encoder).__module__}:{type(encoder).__qualname__}"


def name_of(named: Any) -> str:
    """What reports call the evaluator."""
    if isinstance(named, Mapping):
        return str(named.get("path", named.get("name")))
    return str(named) if isinstance(named, (str, os.PathLike)) else type(named).__name__


def _check_cache(kind: str) -> None:
    target: Any = EVALUATORS.get(kind)
    known = inspect.signature(target.from_pretrained).parameters
    if "cache_dir" not in known:
        raise ValueError(f"{kind} evaluators do not cache embeddings; remove the cache option")
