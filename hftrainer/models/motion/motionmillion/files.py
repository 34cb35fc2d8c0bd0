"""mm_config.json and model_index.json of a Go to Zero model: what they say, and reading every known form of them.

What consists of the released parts is written as before parts had names, so that other readers of the format stay able
to read it; any other part has its ``name`` beside its fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hftrainer import readers
from hftrainer.config import plain
from hftrainer.models.checkpoint import CheckpointError
from hftrainer.models.motion.motionmillion.config import MotionMillionConfig
from hftrainer.models.motion.motionmillion.network.llama import PRESETS
from hftrainer.motion.representation.base import DEFAULT
from hftrainer.registry import TEXT_ENCODERS, TOKENIZERS, TRANSFORMERS, Part, Registry

CONFIG = "mm_config.json"
FORMAT = "hftrainer-motionmillion-v2"
FORMATS = (FORMAT, "hftrainer-motionmillion-v1", "motius-motionmillion-v1")
UNKNOWN_SOURCE = "text_encoder"  # of an encoder that lies, or lay, in the model's own folder
_OR_NULL = type(None)
_PARTS = dict.fromkeys(("vqvae", "ar"), (dict, _OR_NULL))
_TEXT: dict[str, readers.Kinds] = {
    **dict.fromkeys(("source", "name", "path", "sha256"), (str, _OR_NULL)),
    "config": dict,
    "max_tokens": int,
}
_DEFAULTS = {"tokenizer": "human_vqvae", "ar": "llama", "text_encoder": "t5"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; `CheckpointError` for anything else."""
    try:
        content: dict[str, Any] = readers.read_json(path, error=CheckpointError)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    return content


def read_config(raw: dict[str, Any], folder: Path) -> MotionMillionConfig:
    """mm_config.json of any of the known formats."""
    form, path = raw.get("artifact_format"), folder / CONFIG
    if form not in FORMATS or not isinstance(raw.get("config"), dict):
        raise CheckpointError(f"{path}: artifact_format is {form!r}, expected one of {', '.join(FORMATS)}")
    text = raw.get("text_encoder") or {}
    readers.json_fields(raw["config"], f"{path}, 'config'", optional=_PARTS, error=CheckpointError)
    readers.json_fields(text, f"{path}, 'text_encoder'", optional=_TEXT, error=CheckpointError)
    tokenizer = dict(raw["config"].get("vqvae") or {})
    if not isinstance(tokenizer.get("quantizer"), dict):
        tokenizer.pop("quantizer", None)  # "FSQ", the only kind before quantizers had names
    levels = tokenizer.pop("levels", None)
    if levels is not None:
        tokenizer["quantizer"] = {"name": "fsq", "levels": levels}
    config = MotionMillionConfig(tokenizer=_part(TOKENIZERS, "tokenizer", tokenizer, f"{path}: config.vqvae"))
    if raw["config"].get("ar") is not None:
        config.ar = _read_transformer(dict(raw["config"]["ar"]), config.tokenizer, path)
    source = text.get("source") or raw.get("text_model_name") or ("google/flan-t5-xl" if form != FORMAT else None)
    if source is None and text.get("name") is not None:
        source = UNKNOWN_SOURCE  # left out, but its kind is known
    if source is not None:
        section = {**text.get("config", {}), "source": str(source), "max_tokens": int(text.get("max_tokens", 150))}
        section["name"] = text.get("name", _DEFAULTS["text_encoder"])
        config.text_encoder = _part(TEXT_ENCODERS, "text_encoder", section, f"{path}: text_encoder")
    config.training_splits = str(raw.get("training_splits", "unknown"))
    config.representation = str(raw.get("representation", DEFAULT))
    config.check()
    return config


def describe(config: MotionMillionConfig, *, has_text: bool, text_sha256: str | None = None) -> dict[str, Any]:
    """The content of mm_config.json."""
    ar = _section("ar", config.ar) if config.ar is not None else None
    if ar is not None and "name" not in ar:
        sizes = {key: ar[key] for key in ("n_layer", "n_head", "n_embd")}
        ar = {"config_name": next((name for name, preset in PRESETS.items() if preset == sizes), None), **ar}
    return {
        "model_type": "motionmillion",
        "artifact_format": FORMAT,
        "representation": config.motions,
        "text_model_name": _source(config.text_encoder) if not has_text else None,
        "text_encoder": _describe_text(config.text_encoder, has_text, text_sha256),
        "training_splits": config.training_splits,
        "leaderboard_eligible": config.training_splits == "train",
        "config": {"vqvae": _describe_tokenizer(config.tokenizer), "ar": ar},
    }


def index(*, has_ar: bool, has_text: bool, representation: str = DEFAULT) -> dict[str, Any]:
    """The content of model_index.json."""
    return {
        "_class_name": "MotionMillionPipeline",
        "_diffusers_version": "hftrainer",
        "representation": representation,
        "pipeline": {
            "library": "hftrainer",
            "class_name": "MotionMillionPipeline",
            "module": "hftrainer.pipelines.motionmillion",
        },
        "bundle": {
            "library": "hftrainer",
            "class_name": "MotionMillionBundle",
            "module": "hftrainer.models.motion.motionmillion",
        },
        "weights": {
            "fsq": "fsq.safetensors",
            "ar": "ar.safetensors" if has_ar else None,
            "text_encoder": "text_encoder" if has_text else None,
        },
    }


def _read_transformer(section: dict[str, Any], tokenizer: Part, path: Path) -> Part:
    preset = section.pop("config_name", None)
    if "name" not in section and "n_layer" not in section:
        if preset not in PRESETS:
            raise CheckpointError(f"{path}: config.ar.config_name is {preset!r}, expected a preset")
        section = {**PRESETS[preset], "vocab_size": tokenizer.config.codebook_size + 2, **section}
    return _part(TRANSFORMERS, "ar", section, f"{path}: config.ar")


def _part(registry: Registry, kind: str, section: dict[str, Any], path: str) -> Part:
    """A part of a model file, which may name registered classes only: a file must not choose what is imported."""
    section = {"name": _DEFAULTS[kind], **section}
    _refuse_paths(section, path)
    return registry.part(section, path=path)


def _refuse_paths(section: dict[str, Any], path: str) -> None:
    for key, value in section.items():
        if key == "name" and ":" in str(value):
            raise CheckpointError(
                f"{path}.name is {value!r}: a model's files may not name classes by their path; register the class "
                "under a short name, in a plug-in (docs/extending.md)"
            )
        if isinstance(value, dict):
            _refuse_paths(value, f"{path}.{key}")


def _section(kind: str, part: Part) -> dict[str, Any]:
    section = part.plain()
    if part.name == _DEFAULTS[kind]:
        del section["name"]
    return section


def _describe_tokenizer(part: Part) -> dict[str, Any]:
    section = _section("tokenizer", part)
    if "name" in section or part.config.quantizer is None:
        return {**section, **({} if "name" in section else {"quantizer": "FSQ"})}
    if part.config.quantizer.name == "fsq":
        return {**section, "levels": list(part.config.quantizer.config.levels), "quantizer": "FSQ"}
    return section


def _describe_text(part: Part | None, has_text: bool, sha256: str | None) -> dict[str, Any]:
    about: dict[str, Any] = {
        "stored_in_artifact": has_text,
        "path": UNKNOWN_SOURCE if has_text else None,
        "source": UNKNOWN_SOURCE if has_text else _source(part),
        "max_tokens": part.config.max_tokens if part is not None else 150,
        "sha256": sha256,
    }
    if part is not None and part.name != _DEFAULTS["text_encoder"]:
        config = plain(part.config)
        about |= {"name": part.name, "config": {k: v for k, v in config.items() if k not in ("source", "max_tokens")}}
    return about


def _source(part: Part | None) -> str | None:
    """Where an encoder comes from; one that lay in the artifact is named by nothing once it is left out."""
    source = part.config.source if part is not None else None
    return None if source == UNKNOWN_SOURCE else source
