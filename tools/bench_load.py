"""What loading a model costs: seconds, memory of its own (anonymous) and memory in all (resident), in a fresh process.

python tools/bench_load.py runs/random_7b --tokens 40
python tools/bench_load.py runs/random_7b --tokens 40 --quantize int8 --json out/load_int8.json
python tools/bench_load.py t2m_7B_all.zip                      # a weight file of any form: the transformer alone
python tools/bench_load.py t2m_7B_all.zip --plain              # the same by torch.load and load_state_dict

A child process loads and generates; this one looks at its memory every few milliseconds. "File" memory is the mapped
weights: the kernel drops such pages when memory is short and reads them again. Run it twice for warm figures. The bars
(--bar-...) make the exit status 1 where they are not met.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

GIB = 1 << 30
FIELDS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "file"}


def main() -> int:
    """Measure and print; 1 if a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an artifact folder, or a weight file or folder of the transformer")
    parser.add_argument("--tokens", type=int, default=0, help="generate so many codes of one prompt (default none)")
    parser.add_argument("--dtype", help="cast the transformer; default: as stored")
    parser.add_argument("--quantize", choices=["int8", "int4"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plain", action="store_true", help="as other packages load: a float32 model, torch.load")
    parser.add_argument("--text-features", type=Path, help="default: text_features.safetensors in the model's folder")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--bar-anonymous", type=float, metavar="GIB", help="peak while loading")
    parser.add_argument("--bar-resident", type=float, metavar="GIB", help="peak of the whole run")
    parser.add_argument("--bar-ratio", type=float, metavar="X", help="peak resident while loading / size of the files")
    parser.add_argument("--bar-seconds", type=float, metavar="S", help="of loading")
    parser.add_argument("--bar-token", type=float, metavar="S", help="a token")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.model.exists():
        raise SystemExit(f"there is no {str(args.model)!r}")
    if args.child:
        child(args)
        return 0
    figures = measure([sys.executable, __file__, *sys.argv[1:], "--child"])
    figures["files_gib"] = weight_bytes(args.model) / GIB
    figures["ratio"] = figures["load_peak_resident_gib"] / figures["files_gib"]
    for name, value in figures.items():
        print(f"{name:28} {value if isinstance(value, (str, int)) else f'{value:.3f}'}")
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    bars = {
        "load_peak_anonymous_gib": args.bar_anonymous, "peak_resident_gib": args.bar_resident,
        "ratio": args.bar_ratio, "load_seconds": args.bar_seconds, "seconds_a_token": args.bar_token,
    }  # fmt: skip
    missed = {name: bar for name, bar in bars.items() if bar is not None and not figures.get(name, bar + 1) <= bar}
    for name, bar in missed.items():
        print(f"missed: {name} is {figures.get(name)}, the bar is {bar}", file=sys.stderr)
    return 1 if missed else 0


# --- the parent: watches ----------------------------------------------------------------------------------------------


def measure(command: list[str]) -> dict[str, Any]:
    """Run the child and take its memory's peaks in each of its phases; "imports" is where loading starts from."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    peaks: dict[str, dict[str, int]] = {}
    phase = ["start"]

    def watch() -> None:
        while process.poll() is None:
            here = phase[0]
            for name, value in memory(process.pid).items():
                peak = peaks.setdefault(here, {})
                peak[name] = max(peak.get(name, 0), value)
            time.sleep(0.004)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    figures: dict[str, Any] = {}
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("phase "):
            phase[0] = line.split()[1]
        elif line.startswith("figures "):
            figures |= json.loads(line.removeprefix("figures "))
        else:
            print(line, end="")
    if process.wait() != 0:
        raise SystemExit(f"the measured process ended with status {process.returncode}")
    watcher.join()
    for name in ("load", "generate"):
        for kind, value in peaks.get(name, {}).items():
            figures[f"{name}_peak_{kind}_gib"] = value / GIB
    figures["peak_resident_gib"] = max(peak.get("resident", 0) for peak in peaks.values()) / GIB
    return figures


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process by kind; empty where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return {kind: int(found[field].split()[0]) * 1024 for field, kind in FIELDS.items() if field in found}


def weight_bytes(model: Path) -> int:
    """Bytes of the weights on disk."""
    if model.is_file():
        return model.stat().st_size
    files = [path for path in model.rglob("*") if path.suffix in (".safetensors", ".pt", ".bin")]
    return sum(path.stat().st_size for path in files if path.name != "text_features.safetensors")


# --- the child: works -------------------------------------------------------------------------------------------------


def child(args: argparse.Namespace) -> None:
    """Import, load, generate; say when each begins."""
    import torch

    from hftrainer.models.text_features import StoredTextFeatures
    from hftrainer.pipelines.motionmillion import MotionMillionPipeline  # noqa: F401

    features = args.text_features or args.model / "text_features.safetensors"
    if args.quantize:
        import torchao.quantization  # noqa: F401  # a matter of imports, not of loading
    figures: dict[str, Any] = {"anonymous_after_imports_gib": memory(os.getpid())["anonymous"] / GIB}
    print("phase load")
    started = time.perf_counter()
    ar = load(args, features if features.is_file() else None)
    figures["load_seconds"] = time.perf_counter() - started
    print("phase generate")
    if args.tokens:
        text = torch.randn(1, 20, ar.config.clip_dim) * 0.2
        if features.is_file():
            held = StoredTextFeatures(features)
            text = held(held.texts[:1]).features
        figures |= generate(ar, text.to(ar.lm_head.weight.device), args.tokens)
    figures["torch"] = torch.__version__
    figures["threads"] = torch.get_num_threads()
    print(f"figures {json.dumps(figures)}")


def load(args: argparse.Namespace, features: Path | None) -> Any:
    """The transformer, by way of what is measured."""
    import torch

    from hftrainer.models.checkpoint import assign, open_checkpoint
    from hftrainer.models.motion.motionmillion.network import LLaMAHF
    from hftrainer.models.motion.motionmillion.upstream import sizes_of
    from hftrainer.pipelines.motionmillion import MotionMillionPipeline

    dtype = getattr(torch, args.dtype) if args.dtype else None
    if (args.model / "mm_config.json").is_file() and not args.plain:
        pipe = MotionMillionPipeline.from_pretrained(
            args.model, device=args.device, dtype=dtype, quantize=args.quantize, text_encoder=None,
            text_features=features,
        )  # fmt: skip
        return pipe.bundle.ar
    if not args.plain:
        state = open_checkpoint(args.model, keys=("trans", "state_dict"))
        with torch.device("meta"):
            model = LLaMAHF(sizes_of(state))
        assign(model, state, source=str(args.model), dtype=dtype)
        return model.eval().to(args.device)
    source = args.model / "ar.safetensors" if args.model.is_dir() else args.model
    model = LLaMAHF(sizes_of(open_checkpoint(source, keys=("trans", "state_dict"))))
    if source.suffix == ".safetensors":
        from safetensors.torch import load_file

        whole: Any = load_file(source)
    else:
        whole = torch.load(source, map_location="cpu", weights_only=True)
    whole = whole.get("trans", whole)
    model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in whole.items()})
    return model.eval().to(args.device, dtype)


def generate(ar: Any, text: Any, tokens: int) -> dict[str, Any]:
    """Seconds a token of one prompt, END forbidden; the first run touches every weight once."""
    import torch

    mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    figures: dict[str, Any] = {}
    for name, count in (("first_seconds", 1), ("generate_seconds", tokens)):
        started = time.perf_counter()
        ar.generate(text, mask, count, min_new_tokens=count)
        if text.is_cuda:
            torch.cuda.synchronize()
        figures[name] = time.perf_counter() - started
    figures["tokens"] = tokens
    figures["seconds_a_token"] = figures["generate_seconds"] / tokens
    if text.is_cuda:
        figures["gpu_peak_gib"] = torch.cuda.max_memory_allocated() / GIB
    return figures


if __name__ == "__main__":
    sys.exit(main())
