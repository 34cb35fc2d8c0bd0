"""Datasets for debug configurations: made on the spot, from `hftrainer.data.synthetic.motions`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hftrainer.config import ConfigError
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.motion.windows import MotionWindows, MotionWindowsConfig
from hftrainer.data.synthetic.motions import write_dataset, write_tokens
from hftrainer.data.text_motion.pairs import TextMotion, TextMotionConfig
from hftrainer.data.tokens.captioned import TextTokens, TextTokensConfig
from hftrainer.motion.representation.base import DEFAULT
from hftrainer.registry import DATASETS


@dataclass
class SyntheticWindowsConfig(MotionWindowsConfig):
    """`clips` clips are written to `root` unless it is there."""

    root: str = "dataset/synthetic"
    clips: int = 48
    representation: str | None = None


@DATASETS.register("synthetic_windows")
class SyntheticWindows(MotionWindows):
    """Windows of procedural motions."""

    Config = SyntheticWindowsConfig

    def __init__(self, config: SyntheticWindowsConfig):
        _make(config.root, config.clips, config.representation)
        super().__init__(config)


@dataclass
class SyntheticTokensConfig(TextTokensConfig):
    """`clips` clips with made-up codes below `codebook_size` are written to `root` unless it is there."""

    root: str = "dataset/synthetic"
    clips: int = 48
    representation: str | None = None
    codebook_size: int = 240


@DATASETS.register("synthetic_tokens")
class SyntheticTokens(TextTokens):
    """Captions of procedural motions with codes that follow from the caption; no tokenizer is needed."""

    Config = SyntheticTokensConfig

    def __init__(self, config: SyntheticTokensConfig):
        dataset = _make(config.root, config.clips, config.representation)
        if not (dataset.root / config.tokens).is_dir():
            write_tokens(dataset, codebook_size=config.codebook_size)
        super().__init__(config)


@dataclass
class SyntheticTextMotionConfig(TextMotionConfig):
    """`clips` clips are written to `root` unless it is there."""

    root: str = "dataset/synthetic"
    clips: int = 48
    representation: str | None = None


@DATASETS.register("synthetic_text_motion")
class SyntheticTextMotion(TextMotion):
    """Procedural motions with their captions."""

    Config = SyntheticTextMotionConfig

    def __init__(self, config: SyntheticTextMotionConfig):
        _make(config.root, config.clips, config.representation)
        super().__init__(config)


def _make(root: str, clips: int, representation: str | None) -> DatasetFolder:
    if not Path(root, "split").is_dir():
        return write_dataset(root, clips=clips, representation=representation or DEFAULT)
    dataset = DatasetFolder(root)
    if representation not in (None, dataset.representation):
        raise ConfigError(
            f"data.representation={representation}, but the dataset in data.root={root} is of "
            f"{dataset.representation}; choose another folder"
        )
    return dataset
