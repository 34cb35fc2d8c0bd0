"""``hftrainer evaluate run --benchmark motionmillion-eval``: prompts without real clips; a gallery and physics."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

# assets/infer_batch_prompt.txt of MotionMillion-Codes at be53e625: 126 lines, two of them twice
PUBLISHED_SHA256 = "5d0daad4842441307e157c613ae22d3d8f41bd6058c2a51766e7f8c6b2740550"
PUBLISHED_PROMPTS = 126


def run_benchmark(args: argparse.Namespace) -> int:
    """Generate, measure, write; 1 if a motion failed."""
    from hftrainer.commands.evaluate_generate import describe_generation, load, progress
    from hftrainer.files import check_writable, write_json, write_text
    from hftrainer.pipelines.outputs import Job, run_job

    if args.prompts is None or args.out is None or not (args.model or args.fsq):
        raise ValueError("--benchmark motionmillion-eval needs --prompts FILE, --model NAME and --out FOLDER")
    prompts, about = read_benchmark(args.prompts)
    check_writable(args.out)
    generation = describe_generation(args, about)
    pipeline = load(args)
    pipeline.max_sample_steps = args.steps
    job = Job(
        prompts, args.out, seed=args.seed, sampling=generation.sampling, formats=("npy", "html"),
        batch_size=args.batch_size or 32, truncate=True,
    )  # fmt: skip
    manifest = run_job(pipeline, job, model=generation.model, fingerprint=generation.model_hash, progress=progress)
    failed = [item for item in manifest["items"] if "error" in item]
    result = {
        "benchmark": "motionmillion-eval",
        **about,
        "model": generation.model,
        **generation.settings(),
        "seed": args.seed,
        "motions": len(manifest["items"]) - len(failed),
        "failed": {item["stem"]: item["error"] for item in failed},
        "ended_by_itself": sum(bool(item.get("ended")) for item in manifest["items"]),
        "physical": measure(args.out, manifest),
    }
    write_json(args.out / "benchmark.json", result)
    page = markdown(result)
    write_text(args.out / "benchmark.md", page)
    print(page)
    print(f"look at them: {args.out}/index.html")
    return 1 if failed else 0


def read_benchmark(path: Path) -> tuple[list[str], dict[str, Any]]:
    """The prompts of a user's copy, lines that come twice included, and whether it is the published file."""
    if not path.is_file():
        raise ValueError(
            f"there is no prompt file {str(path)!r}; the benchmark's is assets/infer_batch_prompt.txt of "
            "MotionMillion-Codes"
        )
    content = path.read_bytes()
    prompts = [line.strip() for line in content.decode("utf-8").splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"{path} holds no prompt")
    same = hashlib.sha256(content).hexdigest() == PUBLISHED_SHA256
    if not same:
        print(f"{path} is not the published file of {PUBLISHED_PROMPTS} prompts: it has {len(prompts)}, or other ones")
    return prompts, {"prompts": len(prompts), "published_prompts": same}


def measure(out: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Physical metrics over the motions of a manifest."""
    from hftrainer.data.folder import load_motion
    from hftrainer.evaluation.physical_table import physical_table

    stems = [item["stem"] for item in manifest["items"] if "error" not in item]
    return physical_table(stems, lambda stem: load_motion(out / f"{stem}.npy"), "motion272").summary()


def markdown(result: dict[str, Any]) -> str:
    """The benchmark's page."""
    from hftrainer.evaluation.report import physical_rows, pipe_table

    source = "the published prompts" if result["published_prompts"] else "prompts of one's own, not the published ones"
    lines = [
        f"# MotionMillion-Eval: {result['model']}",
        f"{result['motions']} motions for {result['prompts']} prompts ({source}), {len(result['failed'])} failed, "
        f"{result['ended_by_itself']} ended by themselves.",
        "The paper's figures for these prompts are human judgements; physical metrics say nothing about the text.",
    ]
    table = physical_rows({"physical": {"predicted": result["physical"]}})
    return "\n\n".join([*lines, *([pipe_table(table)] if table else [])]) + "\n"
