"""A set of motions of exactly the asked lengths, for an evaluation: from a model's name to checked files, resumable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hftrainer.data.text_motion.evaluation import Pair, captions_hash
from hftrainer.files import check_writable, sha256
from hftrainer.manifest import fingerprint, given_hash
from hftrainer.motion.representation.base import DEFAULT
from hftrainer.pipelines.base import read_sampling
from hftrainer.pipelines.exact_length import (
    ClipRequest,
    GenerationSettings,
    coverage,
    finished,
    generate,
    make_requests,
    prepare,
    shard_of,
    write_manifest,
)
from hftrainer.registry import PIPELINES
from hftrainer.requests import SamplingParams, warn_of_guidance
from hftrainer.zoo.detect import declared_representation
from hftrainer.zoo.load import card_of, load_pipeline, locate

Progress = Callable[[Iterable[Any]], Iterable[Any]]
Say = Callable[[str], None]

INCOMPLETE = 3  # exit status: this part is done, the set is not
_RECORDED = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}  # as folders that exist already have it


def silent(line: str) -> None:
    """What a library function says where nobody listens."""


@dataclass(frozen=True)
class Source:
    """What generates: a `model` (zoo name, artifact folder, owner/repository), or `released` files by what they are.

    Released files are read by the pipeline whose class lists them in ``released_files``.
    """

    model: str | None = None
    released: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model and self.released:
            raise ValueError("give a model or released files, not both")
        if not self.model and not self.released:
            raise ValueError("give a model: --model NAME, or released files")

    @cached_property
    def folder(self) -> Path | None:
        """The artifact's folder; None for released files."""
        return locate(self.model)[0] if self.model else None

    @cached_property
    def representation(self) -> str:
        """What its motions are made of, by its card or its model_index.json; a folder that does not say makes
        motion272."""
        card = card_of(self.model) if self.model else None
        declared = None if self.folder is None else declared_representation(self.folder)
        return declared or (card.representation if card is not None else None) or DEFAULT

    def identify(self) -> tuple[str, str]:
        """Name and hash."""
        if self.folder is not None:
            return str(self.model), fingerprint(self.folder)
        weights = [str(self.released[name]) for name in _reader_of(self.released).released_weights]
        others = {name: value for name, value in self.released.items() if value and str(value) not in weights}
        for path in weights:
            if not Path(path).is_file():
                raise ValueError(f"there is no file {path!r}")
        digests = ",".join(sha256(path)[:32] for path in weights)
        # statistics and text encoders change motions, too; what is no file or folder counts by its name
        more = "".join(f"; {name}: {given_hash(value)}" for name, value in sorted(others.items()))
        return " ".join(weights), f"sha256 of files:{digests}{more}"


@dataclass(frozen=True)
class Settings:
    """How motions are made. `sampling`: changes of the model's own settings; `steps`: codes at most; `batch_size`: rows
    (default: as many as are worthwhile and fit); `free_text_encoder`: unload it before decoding, to save memory;
    `compile`: decoding steps, on CUDA."""

    sampling: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 150
    dtype: str | None = None
    device: str = "cpu"
    batch_size: int | None = None
    free_text_encoder: bool = False
    seed: int = 0
    compile: bool = False


@dataclass
class SetJob:
    """Motions of `pairs` by `source`, to be in `out`; with `generations`, several of the first `generations_of` clips.

    `about` is only noted. `pipeline`: one that is loaded already.
    """

    source: Source
    out: Path
    pairs: Sequence[Pair]
    settings: Settings = field(default_factory=Settings)
    generations: int = 1
    generations_of: int | None = None
    about: dict[str, Any] = field(default_factory=dict)
    pipeline: Any = None

    @cached_property
    def generation(self) -> GenerationSettings:
        """Model, its hash, and settings; no weights are loaded for it."""
        name, digest = self.source.identify()
        own = read_sampling(self.source.folder) if self.source.folder is not None else SamplingParams()
        sampling = dataclasses.replace(own, **self.settings.sampling)
        warn_of_guidance(own, sampling)
        if self.generations > 1 and not sampling.do_sample:
            raise ValueError(f"{self.generations} greedy motions of one caption would be identical; give --temperature")
        about = {**self.about, "captions_hash": captions_hash(self.pairs), "seed": self.settings.seed}
        dtype = self.settings.dtype
        return GenerationSettings(
            model=name, model_hash=digest, sampling=sampling, max_sample_steps=self.settings.steps,
            dtype=_RECORDED.get(dtype, dtype) if dtype else "as stored", about=about,
            representation=self.source.representation,
        )  # fmt: skip

    @cached_property
    def requests(self) -> list[ClipRequest]:
        """One for each motion."""
        return make_requests(self.pairs, self.settings.seed, generations=self.generations, of_first=self.generations_of)

    def claim(self, *, overwrite: bool = False) -> None:
        """Make sure that `out` can be written and holds nothing of another generation."""
        _ = self.generation, self.requests  # what is wrong with them is said before a folder is made
        check_writable(self.out)
        prepare(self.out, self.generation, overwrite=overwrite)

    def load(self) -> Any:
        """The pipeline, loaded once."""
        if self.pipeline is None:
            self.pipeline = load_source(self.source, self.settings)
        return self.pipeline


@dataclass(frozen=True)
class SetResult:
    """What is in the folder: `made` of `wanted` motions; `failed` and why; `elsewhere`: shards that others make, and
    how many motions of theirs are still missing."""

    out: Path
    wanted: int
    made: int
    failed: Mapping[str, str]
    padded_clips: int
    padded_frames: int
    here: Sequence[int]
    elsewhere: Sequence[int] = ()
    missing_elsewhere: int = 0

    @property
    def status(self) -> int:
        """0: everything is there; 1: motions failed; 3: this part is done, others are not."""
        return 1 if self.failed else INCOMPLETE if self.missing_elsewhere else 0


def make_shards(
    job: SetJob, numbers: Sequence[int], total: int, *, say: Say = silent, progress: Progress = iter
) -> SetResult:
    """Make these shards of `total` one after another with one loaded model; what is there already stays."""
    wanted = [request for number in numbers for request in shard_of(job.requests, number, total)]
    todo = len(wanted) - len(finished(job.out, job.generation, wanted))
    say(f"shards {','.join(map(str, numbers))} of {total}: {len(wanted)} motions, {todo} to generate")
    if todo:
        generate(
            job.load(), job.generation, wanted, job.out, batch_size=job.settings.batch_size, progress=progress,
            label=f"{numbers[0]}of{total}",
        )  # fmt: skip
    result = look(job, numbers, total)
    ended = f"{result.padded_clips} clips ended early; padded with {result.padded_frames} rest frames"
    say(f"{result.made} of {result.wanted} motions are in {job.out}; {ended}")
    return result


def look(job: SetJob, numbers: Sequence[int], total: int) -> SetResult:
    """Write the manifest over all that is there, and say what is missing: of these shards, and of the others."""
    manifest = write_manifest(job.out, job.generation, job.requests)
    missing = coverage(job.out, job.generation, job.requests)
    ours = {request.name for number in numbers for request in shard_of(job.requests, number, total)}
    failed = {name: reason for name, reason in missing.items() if name in ours}
    return SetResult(
        job.out, manifest["wanted"], manifest["made"], failed, manifest["padded_clips"], manifest["padded_frames"],
        list(numbers), sorted(set(range(total)) - set(numbers)), len(missing) - len(failed),
    )  # fmt: skip


def generate_set(job: SetJob, *, overwrite: bool = False, say: Say = silent, progress: Progress = iter) -> SetResult:
    """Make every motion of a job in this process."""
    job.claim(overwrite=overwrite)
    return make_shards(job, [0], 1, say=say, progress=progress)


def load_source(source: Source, settings: Settings) -> Any:
    """The pipeline of a model or of released files."""
    options: dict[str, Any] = {
        "device": settings.device, "dtype": settings.dtype, "free_text_encoder": settings.free_text_encoder,
    }  # fmt: skip
    if source.model:
        pipeline = load_pipeline(source.model, **options)
    else:
        pipeline = _reader_of(source.released).from_released(source.released, **options)
    if settings.compile:
        if not hasattr(pipeline, "compile_steps"):
            raise ValueError(f"--compile: {type(pipeline).__name__} has no steps that can be compiled; leave it out")
        pipeline.compile_steps()
    return pipeline


def _reader_of(released: Mapping[str, Any]) -> Any:
    """The pipeline class that reads these released files."""
    classes: list[Any] = [PIPELINES.get(name) for name in PIPELINES.names()]
    for target in classes:
        known = getattr(target, "released_files", ())
        if known and set(released) <= set(known):
            missing = [name for name in target.released_weights if not released.get(name)]
            if missing:
                raise ValueError(f"released files need {' and '.join(f'--{name}' for name in missing)} too")
            return target
    raise ValueError(f"no pipeline can read the released files {', '.join(released)}")
