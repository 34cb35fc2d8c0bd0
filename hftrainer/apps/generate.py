"""``hftrainer.generate``: sentences in, a folder of files out; what the command of that name calls."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftrainer.defaults import DEFAULT_MODEL
from hftrainer.files import check_writable
from hftrainer.manifest import fingerprint, given_hash
from hftrainer.pipelines.outputs import FORMATS, PAGE, Job, run_job
from hftrainer.pipelines.prompts import check_captions
from hftrainer.pipelines.sized import show_progress
from hftrainer.render.export import ExportOptions, check_formats
from hftrainer.requests import SamplingParams, check_seed, check_whole
from hftrainer.zoo.load import load_pipeline, locate


@dataclass(frozen=True)
class GenerateResult:
    """What a run made: its manifest, the page if there is one, and seconds for loading and for making; what the model
    says of prompts that it does not know, or reads in another way."""

    manifest: dict[str, Any]
    page: Path | None
    loading: float
    making: float
    warnings: dict[str, list[str]] = field(default_factory=dict)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The items without a motion, with their error."""
        return [item for item in self.manifest["items"] if "error" in item]


@dataclass(frozen=True)
class GenerateSettings:
    """What is asked for; see ``hftrainer generate --help``. `sampling` gets the model's own settings and gives those to
    use; `then`: prompts and seconds that continue each motion after `seconds`; `strict` refuses prompts that the model
    does not know; `load` are options of `load_pipeline` (device, dtype, quantize, ...)."""

    prompts: Sequence[str]
    out: str | os.PathLike[str] = "out"
    model: str = DEFAULT_MODEL
    num_motions: int = 1
    seed: int = 0
    seconds: float | None = None
    formats: Sequence[str] = FORMATS
    sampling: Callable[[SamplingParams], SamplingParams] | None = None
    batch_size: int = 16
    truncate: bool = False
    strict: bool = False
    raw: bool = False
    options: ExportOptions = field(default_factory=ExportOptions)
    then: Sequence[tuple[str, float | str]] = ()
    load: dict[str, Any] = field(default_factory=dict)


def generate(
    prompts: str | Sequence[str],
    *,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = show_progress,
    **settings: Any,
) -> GenerateResult:
    """Make motions of `prompts` and write their files; `settings` are the fields of `GenerateSettings`.

    Raises ``ValueError`` before any work for what the model cannot make or should refuse, and for formats and options
    that do not exist.
    A motion that fails does not end the others; it is in `failed`.
    """
    request = GenerateSettings(check_captions([prompts] if isinstance(prompts, str) else prompts), **settings)
    if not isinstance(request.options, ExportOptions):
        raise TypeError(f"options must be ExportOptions, for example ExportOptions(fps=60), got {request.options!r}")
    check_seed(request.seed)
    for name in ("num_motions", "batch_size"):
        check_whole(name, getattr(request, name))
        if getattr(request, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(request, name)}")
    timelines = timelines_of(request.prompts, request.seconds, request.then)
    check_formats(request.formats, request.options)
    out = check_writable(request.out)
    started = time.perf_counter()
    folder, _ = locate(request.model)
    pipeline = load_pipeline(request.model, **request.load)
    sampling = request.sampling(pipeline.sampling) if request.sampling else pipeline.sampling
    if request.num_motions > 1 and not sampling.do_sample:
        raise ValueError(f"{request.num_motions} greedy motions would be identical; use sampling (--temperature 1)")
    if request.seconds is not None and not timelines:
        pipeline.check_seconds(request.seconds)
    said = [*request.prompts, *(text for text, _ in request.then)]
    if request.strict:
        pipeline.refuse_unknown(said)
    if not request.truncate:
        pipeline.check_prompt_lengths(request.prompts)
    job = Job(
        prompts=list(timelines or request.prompts), out=out, num_motions=request.num_motions, seed=request.seed,
        seconds=request.seconds, sampling=sampling, formats=tuple(request.formats), batch_size=request.batch_size,
        truncate=request.truncate, options=request.options, raw=request.raw, timelines=timelines,
        loaded=loading_record(request.load),
    )  # fmt: skip
    loaded = time.perf_counter()
    manifest = run_job(pipeline, job, model=str(request.model), fingerprint=fingerprint(folder), progress=progress)
    page = out / PAGE if (out / PAGE).is_file() else None
    warnings = {text: found for text in dict.fromkeys(said) if (found := list(pipeline.assess(text).warnings))}
    return GenerateResult(manifest, page, loaded - started, time.perf_counter() - loaded, warnings)


# options of load_pipeline that change no motion, or what the fingerprint says already
_NEUTRAL = ("device", "device_map", "free_text_encoder", "text_on_demand", "compile", "verify", "revision", "cache_dir",
            "local_files_only", "token")  # fmt: skip


def loading_record(options: Mapping[str, Any]) -> dict[str, str]:
    """Options of `load_pipeline` that change motions: dtype, quantization, another text encoder, ...; files by hash."""
    given = {name: value for name, value in options.items() if value is not None and name not in _NEUTRAL}
    return {name: given_hash(value) for name, value in given.items()}


def timelines_of(
    prompts: Sequence[str], seconds: float | None, then: Sequence[tuple[str, float | str]]
) -> dict[str, list[tuple[str, float]]]:
    """The parts of each prompt's motion, by the text that stands for all of them; none if nothing follows.

    Raises ``ValueError`` for a beginning without a length and for lengths that are no numbers.
    """
    if not then:
        return {}
    if seconds is None:
        raise ValueError("--then continues a motion of known length: give the length of the first part with --seconds")
    parts = []
    check_captions([text for text, _ in then])
    for text, length in then:
        try:
            parts.append((text, float(length)))
        except ValueError:
            raise ValueError(f"--then takes a prompt and its seconds, got {length!r} for {text!r}") from None
    return {", then ".join([prompt, *(text for text, _ in parts)]): [(prompt, seconds), *parts] for prompt in prompts}
