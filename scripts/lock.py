"""Write requirements.lock and requirements-cpu.lock: every package with its hashes, by uv, from constraints.txt."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("train", "eval", "viz", "serve", "deepspeed", "lora", "quant")
# torch 2.13.0+cpu for Python 3.11 on x86-64, from download.pytorch.org/whl/cpu
CPU_WHEEL = "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
HEAD = "# Every package that hftrainer brings, with the hashes of its files. Made by `make lock`; not to be edited.\n"
USE = "# pip install --require-hashes -r requirements.lock && pip install --no-deps -e .\n"
CPU_HEAD = (
    "# As requirements.lock, without CUDA: torch's CPU wheel for Python 3.11. Made by `make lock`; not to be edited.\n"
)
CPU_USE = (
    "# pip install --require-hashes --extra-index-url https://download.pytorch.org/whl/cpu -r requirements-cpu.lock\n"
)


def main() -> None:
    """Resolve, then leave out of one file what only GPUs need."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", place, "uv"], check=True)
        extras = [word for extra in EXTRAS for word in ("--extra", extra)]
        command = [
            f"{place}/bin/uv", "pip", "compile", "pyproject.toml", *extras, "-c", "constraints.txt",
            "--python-version", "3.10", "--universal", "--generate-hashes", "--no-header", "--no-annotate", "--quiet",
            "--index-url", "https://pypi.org/simple", "-o", f"{place}/all.lock",
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True)
        text = Path(place, "all.lock").read_text(encoding="utf-8")
    (ROOT / "requirements.lock").write_text(HEAD + USE + text, encoding="utf-8")
    blocks = re.split(r"^(?=[a-zA-Z0-9])", text, flags=re.M)
    kept = [block for block in blocks if not re.match(r"nvidia|cuda|triton", block)]
    torch = f"torch==2.13.0 \\\n    --hash=sha256:{CPU_WHEEL}\n"
    cpu = "".join(torch if block.startswith("torch==") else block for block in kept)
    (ROOT / "requirements-cpu.lock").write_text(CPU_HEAD + CPU_USE + cpu, encoding="utf-8")


if __name__ == "__main__":
    main()
