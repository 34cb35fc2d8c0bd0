"""Prompts without real clips: motions, a gallery and physical metrics (``hftrainer evaluate run --benchmark``)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftrainer.apps.generate import loading_record
from hftrainer.apps.generate_set import Progress, SetJob, Settings, Source
from hftrainer.data.folder import load_motion
from hftrainer.data.text_motion.prompt_file import read_prompt_file
from hftrainer.evaluation.physical_table import physical_table
from hftrainer.evaluation.report import physical_rows, pipe_table
from hftrainer.files import check_writable, write_json, write_text
from hftrainer.pipelines.outputs import Job, run_job
from hftrainer.shown import as_markdown

NAME = "motionmillion-eval"
# assets/infer_batch_prompt.txt of MotionMillion-Codes at be53e625: 126 lines, two of them twice
PUBLISHED_SHA256 = "5d0daad4842441307e157c613ae22d3d8f41bd6058c2a51766e7f8c6b2740550"
PUBLISHED_PROMPTS = 126


@dataclass
class BenchmarkResult:
    """What benchmark.json holds, and where it is."""

    result: dict[str, Any]
    out: Path

    @property
    def failed(self) -> dict[str, str]:
        """Why, by the name of the motion."""
        failed: dict[str, str] = self.result["failed"]
        return failed

    def markdown(self) -> str:
        """The benchmark's page."""
        return markdown(self.result)


def run_benchmark(
    source: Source,
    prompts: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    progress: Progress = iter,
) -> BenchmarkResult:
    """Generate a motion for each line of `prompts`, measure, write benchmark.json, benchmark.md and a gallery to `out`.

    A line that comes twice gets two seeds.
    """
    settings = settings or Settings()
    texts, about = read_benchmark(prompts)
    out = check_writable(out)
    job = SetJob(source, out, [], settings, about=about)
    generation, pipeline = job.generation, job.load()
    pipeline.max_sample_steps = settings.steps
    manifest = run_job(
        pipeline,
        Job(
            texts, out, seed=settings.seed, sampling=generation.sampling, formats=("npy", "html"),
            batch_size=settings.batch_size or 32, truncate=True, loaded=loading_record({"dtype": settings.dtype}),
        ),
        model=generation.model, fingerprint=generation.model_hash, progress=progress,
    )  # fmt: skip
    failed = {item["stem"]: item["error"] for item in manifest["items"] if "error" in item}
    result = {
        "benchmark": NAME,
        **about,
        "model": generation.model,
        **generation.settings(),
        "seed": settings.seed,
        "motions": len(manifest["items"]) - len(failed),
        "failed": failed,
        "ended_by_itself": sum(bool(item.get("ended")) for item in manifest["items"]),
        "physical": measure(out, manifest, pipeline.representation),
    }
    write_json(out / "benchmark.json", result)
    write_text(out / "benchmark.md", markdown(result))
    return BenchmarkResult(result, out)


def read_benchmark(path: str | os.PathLike[str]) -> tuple[list[str], dict[str, Any]]:
    """The prompts of a user's copy, lines that come twice included, and whether it is the published file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"there is no prompt file {str(path)!r}; the benchmark's is assets/infer_batch_prompt.txt of "
            "MotionMillion-Codes"
        )
    prompts = read_prompt_file(path)
    same = hashlib.sha256(path.read_bytes()).hexdigest() == PUBLISHED_SHA256
    return prompts, {"prompts": len(prompts), "published_prompts": same}


def measure(out: Path, manifest: dict[str, Any], kind: str) -> dict[str, Any]:
    """Physical metrics over the motions of a manifest, of the representation `kind`."""
    stems = [item["stem"] for item in manifest["items"] if "error" not in item]
    return physical_table(stems, lambda stem: load_motion(out / f"{stem}.npy", kind), kind).summary()


def markdown(result: dict[str, Any]) -> str:
    """The benchmark's page."""
    own = f"your own prompts, not the published file of {PUBLISHED_PROMPTS}"
    source = "the published prompts" if result["published_prompts"] else own
    lines = [
        f"# MotionMillion-Eval: {as_markdown(str(result['model']))}",
        f"{result['motions']} motions for {result['prompts']} prompts ({source}), {len(result['failed'])} failed, "
        f"{result['ended_by_itself']} ended by themselves.",
        "The paper's figures for these prompts are human judgements; physical metrics say nothing about the text.",
    ]
    table = physical_rows({"physical": {"predicted": result["physical"]}})
    return "\n\n".join([*lines, *([pipe_table(table)] if table else [])]) + "\n"
