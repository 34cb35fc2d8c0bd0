"""Models in other forms: released files, runs and adapters to artifacts, transformers for other engines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hftrainer.models.checkpoint import CheckpointError
from hftrainer.registry import PIPELINES
from hftrainer.training.export import export_run
from hftrainer.zoo.load import load_pipeline

Say = Callable[[str], None]


def convert_released(
    out: Path,
    *,
    ar: Path,
    fsq: Path,
    mean: Path,
    std: Path,
    text_encoder: str | os.PathLike[str] | None = None,
    with_text_encoder: bool = True,
    dtype: str | None = None,
    verify: bool = False,
    say: Say = lambda line: None,
    **options: Any,
) -> None:
    """The authors' files to an artifact folder `out`; `verify` compares every tensor, logits, codes and motion.

    `text_encoder`: a folder or hub name of the T5 encoder that goes into it. `options` (repo_id, ar_config_name,
    trained_on) are those of the conversion. Raises ``ValueError`` for files that are missing and a target that exists.
    """
    for name, path in (("ar", ar), ("fsq", fsq), ("mean", mean), ("std", std)):
        if not path.exists():
            raise ValueError(f"there is no {name} file {str(path)!r}; give it with --{name}")
    if with_text_encoder and text_encoder is None:
        raise ValueError("give --text_model_source FOLDER, or --no_text_encoder for an artifact without one")
    check_target(out)
    files = {
        "ar": ar,
        "fsq": fsq,
        "mean": mean,
        "std": std,
        "text_encoder": text_encoder if with_text_encoder else None,
    }
    _with("convert_released").convert_released(out, files, dtype=dtype, verify=verify, say=say, **options)
    say(f"done: {out}")


def export_llama(model: str, out: Path) -> str:
    """A model's transformer as transformers' LlamaForCausalLM; what was written."""
    check_target(out)
    pipeline = load_pipeline(model, text_encoder=None)
    if not hasattr(pipeline, "export_llama"):
        raise ValueError(f"{model} has no transformer that can be exported as LlamaForCausalLM")
    pipeline.export_llama(out)
    return f"wrote {out}; its README.md explains the text input"


def convert_run(folder: Path, out: Path, checkpoint: Path | None = None, tokenizer: Path | None = None) -> str:
    """A training run's newest checkpoint, or another one of its, as an artifact."""
    check_target(out)
    export_run(folder, out, checkpoint, tokenizer)
    return f"done: {out}"


def merge_adapter(model: str, adapter: Path, out: Path) -> str:
    """A model with a LoRA adapter merged into its weights, as an artifact."""
    check_target(out)
    load_pipeline(model, adapter=adapter).bundle.save_pretrained(out)
    return f"done: {out}"


def check_target(out: Path) -> None:
    """Refuse a target that exists, before any work."""
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise CheckpointError(f"{out} already exists; choose another folder, or delete it")


def _with(method: str) -> Any:
    """The pipeline class that offers `method`."""
    targets = (PIPELINES.get(name) for name in PIPELINES.names())
    found = next((target for target in targets if hasattr(target, method)), None)
    if found is None:
        raise ValueError(f"no installed pipeline offers {method}")
    return found
