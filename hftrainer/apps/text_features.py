"""What ``hftrainer data text-features`` encodes, and with which encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hftrainer.config import load_experiment
from hftrainer.data.folder import DatasetFolder
from hftrainer.files import check_file
from hftrainer.models.text_features import StoredTextFeatures
from hftrainer.plain_text import read_lines
from hftrainer.registry import TEXT_ENCODERS
from hftrainer.zoo.load import load_pipeline


def texts_of(prompts: Path | None, folder: Path | None, splits: Sequence[str] | None = None) -> list[str]:
    """Prompts of a file, and captions of a dataset."""
    if prompts is None and folder is None:
        raise ValueError("nothing to encode; give --prompts FILE or a dataset")
    texts = [line.strip() for line in read_lines(prompts) if line.strip()] if prompts is not None else []
    if folder is not None:
        dataset = DatasetFolder(folder)
        wanted: Sequence[str | None] = splits or [None]
        for name in dict.fromkeys(n for split in wanted for n in dataset.names(split)):
            texts += [caption.text for caption in dataset.captions(name)]
    return texts


def check_target(out: Path) -> None:
    """Refuse a file that cannot be written, and one that holds something else, such as the prompts."""
    check_file(out)
    if out.exists():
        try:
            StoredTextFeatures(out)
        except ValueError as error:
            raise ValueError(f"{out} is there already and would be replaced ({error}); choose another --out") from error


def encoder_of(model: str | None, encoder: str | None, config: str | None) -> Any:
    """A model's text encoder, a T5 by its folder or hub name, or that of a training configuration; one is given."""
    if sum(given is not None for given in (model, encoder, config)) != 1:
        raise ValueError("give the encoder: one of --model MODEL, --config FILE, or --encoder FOLDER (a T5)")
    if encoder is not None:
        return TEXT_ENCODERS.build({"name": "t5", "source": encoder}, on_demand=True)
    if config is not None:
        section = load_experiment(config).model.get("text_encoder")
        if section is None:
            raise ValueError(f"{config} has no model.text_encoder")
        return TEXT_ENCODERS.build(section, path="model.text_encoder", on_demand=True)
    assert model is not None
    found = load_pipeline(model, load_ar=False).bundle.text_encoder
    if found is None:
        raise ValueError(f"{model} has no text encoder; name one with --config or --encoder")
    return found
