"""What ``hftrainer generate`` imports, says and writes on its way to the first file."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "transformers", "lightning", "pytorch_lightning", "wandb", "matplotlib", "scipy", "torchao", "huggingface_hub",
    "torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes", "sympy", "tensorboard",
)  # fmt: skip


def test_generate_imports_nothing_that_it_does_not_need(tmp_path):
    arguments = ["generate", "a person walks", "--seconds", "0.5", "--out", str(tmp_path), "-v"]
    code = (
        f"import sys; from hftrainer.cli import main; status = main({arguments})\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"
    parts = [line.partition(":")[0] for line in done.stderr.splitlines()]
    names = ("motion tokenizer", "transformer", "text tokenizer", "text encoder", "prepared weights")
    assert parts == [f"loading {name}" for name in names]
    endings = {path.suffix for path in tmp_path.iterdir()}
    assert {".npy", ".npz", ".bvh", ".glb", ".mp4", ".html"} <= endings
