"""``hftrainer generate "a person walks forward" --out out/``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from hftrainer.commands.common import (
    add_device,
    add_dtype,
    add_sampling,
    device_of,
    progress_lines,
    read_prompts,
    sampling_of,
)
from hftrainer.commands.exporting import FORMATS_HELP, add_export, formats_of, options_of

EPILOG = """examples:
  hftrainer generate "a person walks forward, then waves" -n 4 --out out/
  hftrainer generate "a person walks forward" --seconds 3 --then "someone runs" 2 --then "a person squats" 3
  hftrainer generate --prompts prompts.txt --seconds 5 --formats npy,bvh,html --out out/
  hftrainer generate "a person runs" --formats glb --skeleton unreal --loop --in-place --fps 60
A run into a folder adds to what is there, and keeps what is finished. Open out/index.html in any browser; it needs no
network."""
# Words that are in sentences and are no prompts by themselves.
_OF_SENTENCES = {"a", "an", "the", "someone", "somebody", "he", "she", "they", "person", "man", "woman", "then", "and"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("prompt", nargs="*", help="what the person does; each argument is one prompt")
    parser.add_argument("--prompts", type=Path, help="a file with one prompt a line")
    parser.add_argument("--model", default="gotozero-nano", help="zoo name, model folder, or owner/repository")
    parser.add_argument("--out", "-o", type=Path, default=Path("out"), help="folder for the files (default out/)")
    parser.add_argument("--seconds", type=float, help="make every motion exactly so long; default: the model decides")
    parser.add_argument(
        "--then", nargs=2, action="append", metavar=("PROMPT", "SECONDS"),
        help="continue with this, for so long; may be repeated, and needs --seconds for the beginning",
    )  # fmt: skip
    parser.add_argument("-n", "--num-motions", type=int, default=1, help="motions a prompt, seeds counting up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default="npy,npz,bvh,glb,mp4,html", help=FORMATS_HELP)
    add_sampling(parser)
    parser.add_argument("--truncate", action="store_true", help="cut text that is longer than the model is shown")
    parser.add_argument("--batch-size", type=int, default=16)
    add_device(parser)
    add_dtype(parser, "of the transformer, e.g. bf16; default: as stored")
    parser.add_argument("--text-features", type=Path, help="stored features of the prompts, instead of an encoder")
    parser.add_argument("--text-encoder", help="a folder or owner/repository, instead of the model's own")
    parser.add_argument(
        "--free-text-encoder", action="store_true", help="unload the text encoder before decoding, to save memory"
    )
    parser.add_argument("--quantize", choices=["int8", "int4"], help="pack the transformer's matrices while loading")
    add_export(parser)
    parser.set_defaults(run=run)


def one_sentence(words: list[str]) -> list[str]:
    """`words` as one prompt if a shell took an unquoted sentence apart, else as they are."""
    apart = len(words) > 2 and not any(" " in word.strip() for word in words)
    if not (apart and any(word.lower().strip(".,!?") in _OF_SENTENCES for word in words)):
        return words
    sentence = " ".join(words)
    print(f'one prompt: "{sentence}" (for several prompts, put each into quotes)', file=sys.stderr)
    return [sentence]


def run(args: argparse.Namespace) -> int:
    """Generate and write; 1 if a motion failed."""
    prompts = read_prompts(one_sentence(args.prompt), args.prompts)
    timelines = _timelines(prompts, args.seconds, args.then)
    options = options_of(args)
    formats = formats_of(args, options)
    from hftrainer.files import check_writable

    check_writable(args.out)
    started = time.perf_counter()

    from hftrainer.manifest import fingerprint
    from hftrainer.pipelines.outputs import MANIFEST, PAGE, Job, run_job
    from hftrainer.zoo.load import load_pipeline, locate

    folder, _ = locate(args.model)
    pipeline = load_pipeline(
        args.model, device=device_of(args), dtype=args.dtype, quantize=args.quantize, text_features=args.text_features,
        free_text_encoder=args.free_text_encoder, **({"text_encoder": args.text_encoder} if args.text_encoder else {}),
    )  # fmt: skip
    sampling = sampling_of(args, pipeline.sampling)
    if args.num_motions > 1 and not sampling.do_sample:
        raise ValueError(f"-n {args.num_motions} greedy motions would all be the same; sample (--temperature 1)")
    if args.seconds is not None and not args.then:
        pipeline.check_seconds(args.seconds)
    if not args.truncate:
        pipeline.check_prompt_lengths(prompts)
    job = Job(
        prompts=list(timelines) or prompts, out=args.out, num_motions=args.num_motions, seed=args.seed,
        seconds=args.seconds, sampling=sampling, formats=formats, batch_size=args.batch_size, truncate=args.truncate,
        options=options, raw=args.raw, timelines=timelines,
    )  # fmt: skip
    loaded = time.perf_counter()
    manifest = run_job(
        pipeline, job, model=str(args.model), fingerprint=fingerprint(folder), progress=progress_lines("batches")
    )
    return _report(args.out, manifest, loaded - started, time.perf_counter() - loaded, MANIFEST, PAGE)


def _timelines(
    prompts: list[str], seconds: float | None, then: list[list[str]] | None
) -> dict[str, list[tuple[str, float]]]:
    """The parts of each prompt's motion, by the text that stands for all of them; none without --then."""
    if not then:
        return {}
    if seconds is None:
        raise ValueError("--then continues a motion of known length: say how long the beginning is, by --seconds")
    parts = []
    for text, length in then:
        try:
            parts.append((text, float(length)))
        except ValueError:
            raise ValueError(f"--then takes a prompt and its seconds, got {length!r} for {text!r}") from None
    return {", then ".join([prompt, *(text for text, _ in parts)]): [(prompt, seconds), *parts] for prompt in prompts}


def _report(out: Path, manifest: dict[str, Any], loading: float, making: float, name: str, page: str) -> int:
    from hftrainer.pipelines.outputs import ending

    failed = [item for item in manifest["items"] if "error" in item]
    for item in manifest["items"][:20]:
        if "error" in item:
            print(f"failed: {item['prompt']!r} (seed {item['seed']}): {item['error']}", file=sys.stderr)
        else:
            print(f"{item['seconds']:5.1f} s  ends {ending(item):20}  {item['stem']}")
    if len(manifest["items"]) > 20:
        print(f"... and {len(manifest['items']) - 20} more, see {out / name}")
    made = len(manifest["items"]) - len(failed)
    print(f"{made} motions in {out} (loading {loading:.1f} s, making {making:.1f} s)")
    if (out / page).is_file():
        print(f"look at them: {out / page}")
    return 1 if failed else 0
