"""What is installed on this machine, whether a model's files are intact, what it is, and checks of its weights."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hftrainer.config import ConfigError

_PACKAGES = {
    "core": ("torch", "transformers", "safetensors", "numpy", "omegaconf", "einops", "huggingface_hub"),
    "train": ("lightning", "wandb"),
    "deepspeed": ("deepspeed",),
    "eval": ("scipy",),
    "viz": ("imageio-ffmpeg", "pillow"),
    "quant": ("torchao",),
}
PROMPTS = [
    "a person walks forward", "someone runs in a circle", "a person sits down, then stands up again",
    "a man throws a ball with the right hand", "a person crawls on the floor", "a woman dances slowly",
    "someone jumps over an obstacle and turns around", "a person kicks with the left leg",
]  # fmt: skip


@dataclass
class Examination:
    """What to look at beside the files: `rope_check` a dataset with tokens, `quant_check` a kind of packed matrices."""

    model: str
    verify: bool = True
    device: str = "cpu"
    dtype: str | None = None
    text_features: Path | None = None
    rope_check: Path | None = None
    split: str = "val"
    clips: int = 200
    quant_check: str | None = None
    prompts: list[str] = field(default_factory=lambda: list(PROMPTS))
    codes: int = 40

    def options(self) -> dict[str, Any]:
        """Of loading; stored features only where there are some, since not every model takes them."""
        given = {"text_features": self.text_features} if self.text_features is not None else {}
        return {"device": self.device, "dtype": self.dtype, **given}


def machine() -> Iterator[str]:
    """Python, packages by extra, devices, and plug-ins that could not be loaded."""
    from hftrainer.plugins import PluginWarning, load_plugins, plugin_failures

    yield f"python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores"
    for extra, packages in _PACKAGES.items():
        yield f"{extra:10} {', '.join(f'{name} {_version(name)}' for name in packages)}"
    if find_spec("torch"):
        import torch

        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield f"{'devices':10} {', '.join(devices) or 'cpu only'}, {torch.get_num_threads()} threads"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # named below
        working = sorted(load_plugins())
    if working:
        yield f"{'plug-ins':10} {', '.join(working)}"
    yield from plugin_failures().values()


def examine(job: Examination) -> Iterator[str]:
    """What a model is, line by line. Raises where it is damaged or does not load."""
    from hftrainer.manifest import MANIFEST, fingerprint, verify_manifest
    from hftrainer.zoo.load import load_pipeline, locate

    folder, _ = locate(job.model)
    yield f"{'model':12} {folder}"
    yield f"{'identity':12} {fingerprint(folder)}"
    if not (folder / MANIFEST).is_file():
        yield f"{'files':12} not compared: the folder has no {MANIFEST}"
    elif job.verify:
        yield f"{'files':12} {verify_manifest(folder)} files match {MANIFEST}"
    pipeline = load_pipeline(job.model, **job.options())
    for name, part in pipeline.bundle.parts().items():
        count = sum(p.numel() for p in part.parameters()) if part is not None else 0
        yield f"{name:12} {f'{count / 1e6:.1f} M parameters' if count else 'none'}"
    form = pipeline.motion_format
    yield f"{'motions':12} {form.name}, {form.width} features at {form.fps:g} frames a second"
    for name, value in pipeline.facts().items():
        yield f"{name:12} {value}"
    if job.quant_check is not None:
        yield from _check(pipeline, "quant_check")(folder, job.quant_check, job.prompts, job.codes, job.dtype)
    if job.rope_check is not None:
        root, split, clips = job.rope_check, job.split, job.clips
        yield from _check(pipeline, "rope_check")(
            lambda tokenizer, longest: caption_codes(root, split, clips, tokenizer, longest)
        )


def _check(pipeline: Any, name: str) -> Any:
    found = getattr(pipeline, name, None)
    if found is None:
        raise ConfigError(f"{type(pipeline).__name__} has no {name.replace('_', '-')}")
    return found


def caption_codes(root: Path, split: str, clips: int, tokenizer: Any, longest: int) -> Iterator[tuple[str, Any]]:
    """Captions and codes of a split, from tokens/ or upstream's one file a clip; clips without a caption are skipped.

    `tokenizer`: a `MotionTokenizer` whose codes they must be; `longest`: codes of a clip that are used.
    """
    from hftrainer.data.folder import DatasetFolder
    from hftrainer.data.tokens.folder import codes_of

    if not (root / "split").is_dir() and (root.parent / "split").is_dir():
        root = root.parent  # the folder of the tokens inside the dataset
    dataset = DatasetFolder(root)
    names: Sequence[str] = dataset.names(split)[:clips]
    for name, codes in codes_of(dataset, names, tokenizer.codebook_size, tokenizer.sha256):
        captions = dataset.captions(name)
        if captions and len(codes):
            yield captions[0].text, codes[:longest]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
