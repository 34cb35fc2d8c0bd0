"""What each benchmark can be told; imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hftrainer.dtypes import DTYPES, dtype_name


def sample_flags(add: Callable[..., object]) -> None:
    """Batches, codes, engines."""
    add("--size", default="44M", help="a preset with random weights, or a model (default 44M)")
    add("--batch", default="1,32", help="batch sizes of ours (default 1,32)")
    add("--codes", type=int, default=150, help="codes per prompt (default 150)")
    add("--ragged", type=int, default=0, metavar="N", help="also N prompts of unequal length")
    add("--engine", choices=["transformers"], help="also measure this engine")
    add("--no-uncached", action="store_true", help="skip the slowest baseline")
    _usual(add, rounds=5)


def evalset_flags(add: Callable[..., object]) -> None:
    """How many prompts of what length."""
    add("--size", default="44M", help="a preset with random weights, or a model (default 44M)")
    add("--prompts", type=int, default=512)
    add("--codes", type=int, default=100, help="on average (default 100)")
    add("--batch", type=int, default=32, help="rows (default 32)")
    _usual(add)


def equality_flags(add: Callable[..., object]) -> None:
    """Rows and arithmetics."""
    add("--size", default="44M", help="a preset with random weights, or a model (default 44M)")
    add("--rows", type=int, default=64, help="prompts (default 64)")
    add("--codes", type=int, default=50, help="maximum codes per prompt (default 50)")
    add("--batch", type=int, default=32, help="batch size (default 32)")
    add("--dtype", default="float32,bfloat16", help="one or both of float32,bfloat16 (default both)")
    add("--device", default="cpu")
    add("--json", help="write the results to this file")


def train_flags(add: Callable[..., object]) -> None:
    """Size and rows."""
    add("--size", default="111M", help="a preset with random weights, or a model (default 111M)")
    add("--batch", type=int, default=16, help="rows (default 16)")
    _usual(add)


def load_flags(add: Callable[..., object]) -> None:
    """What is loaded and how, and bars."""
    add("model", help="an artifact folder, or a weight file or folder of the transformer")
    add("--tokens", type=int, default=0, help="generate this many codes of one prompt (default none)")
    add("--dtype", type=dtype_name, choices=DTYPES, help="cast the transformer; default: as stored")
    add("--quantize", choices=["int8", "int4"])
    add("--device", default="cpu")
    add("--plain", action="store_true", help="also load as other packages do: a float32 model, torch.load")
    add("--compare", action="store_true", help="also measure the way other packages do it, in turn")
    add("--text-features", help="default: text_features.safetensors in the model's folder")
    add("--bar-anonymous", type=float, metavar="GIB", help="peak while loading; exit status 1 if it is exceeded")
    add("--bar-resident", type=float, metavar="GIB", help="peak of the complete run")
    add("--bar-ratio", type=float, metavar="X", help="peak resident while loading / size of the files")
    add("--bar-seconds", type=float, metavar="S", help="of loading")
    add("--bar-token", type=float, metavar="S", help="a token")
    add("--child", action="store_true", help="run in this process, to be measured from outside")
    _rounds_and_json(add)


def convert_flags(add: Callable[..., object]) -> None:
    """What is converted, and bars."""
    add("--size", default="44M", help="create released files of this preset, with random weights (default 44M)")
    add("--dtype", default="bfloat16", type=dtype_name, choices=DTYPES, help="of the files")
    add("--optimizer-bytes", type=int, default=8, help="per parameter, besides the weights (default 8)")
    add("--released", metavar="FOLDER", help="existing files (make_random_artifact.py --released)")
    add("--layers", type=int, help="fewer layers than the preset, for testing")
    add("--width", type=int, help="another width than the preset's, for testing")
    add("--folder", help="folder for temporary files (default: the system's)")
    add("--compare", action="store_true", help="also measure the way other packages do it, in turn")
    add("--bar-resident", type=float, metavar="GIB", help="peak of the process; exit status 1 if it is exceeded")
    add("--bar-seconds", type=float, metavar="S", help="of converting")
    _rounds_and_json(add)


def tokenizer_flags(add: Callable[..., object]) -> None:
    """Windows of a batch."""
    add("--batch", type=int, default=64, help="windows (default 64, as released)")
    add("--window", type=int, default=96, help="frames (default 96, as released)")
    add("--width", type=int, default=512, help="of the network (default 512, as released)")
    add("--device", default="cpu")
    _rounds_and_json(add)


def data_flags(add: Callable[..., object]) -> None:
    """Which rows, and how many of them are read."""
    add("--rows", type=int, default=2_000_000, help="synthetic clips (default 2000000)")
    add("--root", help="measure this packed dataset instead")
    add("--batch", type=int, default=16, help="rows (default 16)")
    add("--reads", type=int, default=20_000, help="random rows per round (default 20000)")
    add("--batches", type=int, default=500, help="data loader batches per round (default 500)")
    add("--files", type=int, default=2_000, help="clips to read from individual files, 0: none (default 2000)")
    add("--workers", default="0,2", help="processes of the data loader (default 0,2)")
    _rounds_and_json(add, rounds=5)


def metrics_flags(add: Callable[..., object]) -> None:
    """How many clips."""
    add("--clips", type=int, default=4042, help="synthetic clips of 40 to 300 frames (default 4042)")
    add("--device", default="cpu", help="of the evaluator")
    _rounds_and_json(add)


def fit_flags(add: Callable[..., object]) -> None:
    """Which motions on which body."""
    add("motions", nargs="*", type=Path, help="272 motions: .npy files or folders of them")
    add("--model", help="also generate motions with this model; its skeleton is used")
    add("--prompts", type=Path, help="prompts to generate: a file with one per line")
    add("--count", type=int, default=100, help="how many to generate (default 100)")
    add("--body", type=Path, help="a skeleton.json; default: that of --model, or of the default model")
    add("--measure", type=Path, metavar="FILE", help="write the motions' own skeleton there as skeleton.json, and exit")
    add("--name", help="of the measured body; default: its folder's name")
    add("--json", help="write the results to this file")


def serve_flags(add: Callable[..., object]) -> None:
    """How many clients."""
    add("--model", default="gotozero-nano", help="zoo name or folder (default gotozero-nano)")
    add("--requests", type=int, default=1000, help="at the same moment (default 1000)")
    add("--rows", type=int, default=32, help="motions that are decoded together (default 32)")
    add("--soak", type=int, default=0, help="then so many requests, over which memory is watched (default none)")
    _rounds_and_json(add)


def gpu_flags(add: Callable[..., object]) -> None:
    """How long, and where to."""
    add("--minutes", type=float, default=9.0, help="all stages together (default 9)")
    add("--out", type=Path, required=True, help="folder for gpu.jsonl and summary.md")
    add("--size", default="7B", help="the large model, a preset (default 7B)")
    add("--pretend", action="store_true", help="all stages small, on a pretend device")


def kernels_flags(add: Callable[..., object]) -> None:
    """For which model."""
    add("--size", default="7B", help="a preset (default 7B)")
    add("--json", help="write the results to this file")


def stream_flags(add: Callable[..., object]) -> None:
    """Prompts, how long, against what."""
    add("prompt", nargs="*", default=STREAMED, help="at least two, in turn (default: five actions of gotozero-nano)")
    add("--model", default="gotozero-nano", help="zoo name, model folder, or owner/repository")
    add("--seconds", type=float, default=4.0, help="of each prompt (default 4)")
    add("--timelines", type=int, default=8, help="timelines of all prompts (default 8)")
    add("--minutes", type=float, default=10.0, help="motion of the live session (default 10)")
    add("--tries", type=int, default=20, help="codes that are replaced, motions that are compared (default 20)")
    add("--real", type=Path, metavar="FOLDER", help="a dataset whose 99th percentiles seams are compared with")
    add("--clips", type=int, default=300, help="real motions that are read (default 300)")
    add("--device", default="cpu")
    add("--json", help="write the results to this file")


STREAMED = [
    "a person walks forward",
    "someone runs",
    "a person waves with the right hand",
    "a person raises the left hand",
    "a person takes a bow",
]
KINDS: dict[str, tuple[str, Callable[[Callable[..., object]], None]]] = {
    "sample": ("codes per second, against an un-cached and a batch-1 cached sampler", sample_flags),
    "evalset": ("many prompts of unequal length: refilled rows against static batches", evalset_flags),
    "equality": ("how often rows differ from the un-cached loop, and by how much", equality_flags),
    "load": ("seconds and memory of loading, in fresh processes", load_flags),
    "serve": ("a server under load: codes per second beside the scheduler alone, latencies, memory", serve_flags),
    "convert": ("seconds and memory of converting released files, in fresh processes", convert_flags),
    "train": ("an optimizer step of the transformer, ours and the release's", train_flags),
    "tokenizer": ("an optimizer step of the tokenizer, ours and the release's", tokenizer_flags),
    "data": ("a packed dataset of tokens: opening, rows and batches per second", data_flags),
    "fit": ("how closely exported motions follow the model's positions, and foot sliding", fit_flags),
    "gpu": ("what there is to learn of a GPU in a few minutes: steps, kernels, memory, training", gpu_flags),
    "kernels": ("into how many kernels torch's compiler fuses a decoding step", kernels_flags),
    "stream": ("streams and live sessions: first frames, seams, waits, memory", stream_flags),
    "metrics": ("evaluation: the evaluator, metrics, FID beside sqrtm, physics, 272 to 263", metrics_flags),
}


def _usual(add: Callable[..., object], rounds: int = 3) -> None:
    _rounds_and_json(add, rounds)
    add("--dtype", default="float32", type=dtype_name, choices=DTYPES[:2], help="default float32")
    add("--device", default="cpu")


def _rounds_and_json(add: Callable[..., object], rounds: int = 3) -> None:
    add("--rounds", type=int, default=rounds, help=f"each method runs once per round (default {rounds})")
    add("--json", help="write the results to this file")
