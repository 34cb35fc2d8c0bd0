"""From the body of a request to motions to make, or to the one sentence that says why not."""

from __future__ import annotations

from typing import Any

from hftrainer.pipelines.joining import MotionSpec
from hftrainer.pipelines.knowledge import joined
from hftrainer.pipelines.prompts import seeded_rows
from hftrainer.requests import SamplingParams
from hftrainer.serve.jobs import Job, MotionTask, new_id
from hftrainer.serve.refusal import Refusal, one_line
from hftrainer.serve.schema import MotionRequest
from hftrainer.serve.served import Served
from hftrainer.serve.settings import Settings
from hftrainer.serve.store import Store


def plan(request: MotionRequest, served: Served, store: Store) -> Job:
    """A job with the motions that are asked for, not yet submitted; raises `Refusal`."""
    settings, pipeline = served.settings, served.pipeline
    _check_size(request, settings)
    try:
        sampling = _sampling(request, served)
        with served.reading:
            specs = _timelines(request, served, sampling) if request.timeline else _motions(request, served, sampling)
            said = [_said(pipeline, spec) for spec in specs]
            if request.strict:
                pipeline.refuse_unknown([text for spec in specs for text in spec.texts])
    except (ValueError, TypeError) as error:
        raise Refusal(422, "invalid", one_line(error)) from error
    name, fps = new_id(), pipeline.motion_format.fps
    motions: list[dict[str, Any]] = [
        {"id": f"{name}-{index}", "index": index, "prompt": spec.prompt, "seed": spec.seed, "fps": fps, **known}
        for index, (spec, known) in enumerate(zip(specs, said, strict=True))
    ]
    job = Job(name, served.name, request.model_dump(exclude={"stream"}), motions, pipeline.representation)
    job.tasks = [MotionTask(job, index, spec, store) for index, spec in enumerate(specs)]
    return job


def _check_size(request: MotionRequest, settings: Settings) -> None:
    texts = [request.prompt] if request.prompt else request.prompts or [part.prompt for part in request.timeline or []]
    longest = max(len(text) for text in texts if text is not None)
    if longest > settings.max_prompt:
        raise Refusal(
            422, "prompt_too_long",
            f"a prompt has {longest} characters, at most {settings.max_prompt} are read; shorten it",
        )  # fmt: skip
    if request.count > settings.max_count:
        raise Refusal(422, "too_many", f"count is {request.count}, at most {settings.max_count} are made of a prompt")
    motions = request.count * (1 if request.timeline else len(texts))
    if max(motions, len(texts)) > settings.max_motions:
        raise Refusal(422, "too_many", f"{motions} motions are requested, at most {settings.max_motions} may be")


def _sampling(request: MotionRequest, served: Served) -> SamplingParams:
    given = {name: getattr(request, name) for name in ("temperature", "top_p", "guidance_scale")}
    if request.guidance_scale is not None and served.pipeline.sampling.guidance_scale is None:
        raise ValueError(f"the model {served.name} was not made for guidance; leave guidance_scale out")
    sampling: SamplingParams = served.pipeline.sampling_for(**given)
    if request.count > 1 and not sampling.do_sample:
        raise ValueError(f"{request.count} greedy motions of a prompt are identical; give a temperature")
    return sampling


def _motions(request: MotionRequest, served: Served, sampling: SamplingParams) -> list[MotionSpec]:
    pipeline = served.pipeline
    texts = [request.prompt] if request.prompt is not None else request.prompts or []
    pipeline.check_prompt_lengths(texts)
    frames = None if request.seconds is None else pipeline.check_seconds(request.seconds)
    rows = seeded_rows([text for text in texts for _ in range(request.count)], request.seed)
    specs = []
    for text, seed in rows:
        made = pipeline.request(text, seed, sampling, frames or pipeline.frames_asked(text))
        specs.append(MotionSpec(text, seed, sampling, made))
    return specs


def _timelines(request: MotionRequest, served: Served, sampling: SamplingParams) -> list[MotionSpec]:
    pipeline, settings = served.pipeline, served.settings
    if not hasattr(pipeline, "timeline"):
        raise ValueError(f"the model {served.name} makes one motion per prompt, and no timelines")
    parts = [(part.prompt, part.seconds) for part in request.timeline or []]
    pipeline.check_prompt_lengths([text for text, _ in parts])
    total = sum(seconds for _, seconds in parts)
    if total > settings.max_seconds or round(total * pipeline.motion_format.fps) < 1:
        raise ValueError(f"a timeline lasts up to {settings.max_seconds:g} s and at least a frame, got {total:g} s")
    text = "; ".join(text for text, _ in parts)
    return [MotionSpec(text, request.seed + j, sampling, parts=parts) for j in range(request.count)]


def _said(pipeline: Any, spec: MotionSpec) -> dict[str, Any]:
    """What the model knows of the prompts, and where the parts of a timeline are."""
    found = [pipeline.assess(text) for text in spec.texts]
    fields = joined(found) if spec.parts else found[0].fields()
    out = {name: fields[name] for name in ("known", "similarity", "nearest", "warnings")}
    if spec.parts:
        starts = [sum(seconds for _, seconds in spec.parts[:i]) for i in range(len(spec.parts))]
        out["segments"] = [
            {"prompt": text, "start": round(start, 3), "seconds": seconds}
            for (text, seconds), start in zip(spec.parts, starts, strict=True)
        ]
    return out
