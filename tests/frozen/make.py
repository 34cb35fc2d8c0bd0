"""Write this version's artifacts, and what they give, as an archive: once for every release.

    python -m tests.frozen.make 0.2.0

`test_frozen.py` unpacks every such archive and loads what is in it with the present code. A release that changes what
is written gets one beside the older ones; those are never written again.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch

from hftrainer import cli
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.synthetic.motions import write_dataset
from hftrainer.models.motion.motionmillion.artifact import Parts
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.config import HumanVQVAEConfig, MotionMillionConfig
from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionstreamer import MotionStreamer272Config, MotionStreamer272Evaluator
from hftrainer.models.motion.motionstreamer.config import TextModelConfig
from hftrainer.models.motion.motionstreamer.text_model import new_tokenizer
from hftrainer.models.text_encoder import TextEncoderConfig
from tests.frozen.read import read
from tests.tiny import SENTENCES, tiny_text_encoder

WIDTH = 4
TRAIN = (
    "train configs/gotozero/debug_tokenizer.yaml model.tokenizer.width=2 model.tokenizer.code_dim=2 "
    "model.tokenizer.output_emb_width=2 task.optimizer.schedule.warmup=1 trainer.max_steps=4 data.batch_size=4 "
    "trainer.checkpoint_every_n_steps=4 trainer.val_every_n_steps=null callbacks=[] trainer.accelerator=cpu "
    "trainer.progress_bar=false"
).split()


def model() -> MotionMillionBundle:
    """A whole model of the smallest sizes, with random weights."""
    torch.manual_seed(2)
    sizes = {"nb_code": 256, "width": WIDTH, "code_dim": WIDTH, "output_emb_width": WIDTH}
    vqvae = HumanVQVAEConfig(**sizes)
    ar = LLaMAHFConfig(vocab_size=vqvae.codebook_size + 2, n_layer=2, n_head=2, n_embd=8, clip_dim=16)
    config = MotionMillionConfig(tokenizer=vqvae, ar=ar, text_encoder=TextEncoderConfig(source="text_encoder"))
    mean, std = np.zeros(272, np.float32), np.full(272, 0.05, np.float32)
    mean[9] = 0.9
    return MotionMillionBundle(parts=Parts(config, HumanVQVAE(**sizes), LLaMAHF(ar), tiny_text_encoder(16), mean, std))


def evaluator() -> MotionStreamer272Evaluator:
    """An evaluator of the smallest sizes, with random weights."""
    torch.manual_seed(3)
    text = TextModelConfig(source=None, vocab_size=120, width=8, layers=1, heads=2, hidden=16, max_tokens=24)
    config = MotionStreamer272Config(latent_dim=8, num_layers=1, num_heads=2, ff_size=16, positions=302, text=text)
    made = MotionStreamer272Evaluator.from_config(config)
    made.tokenizer = new_tokenizer(SENTENCES, text.vocab_size)
    return made.requires_grad_(False)


def main(place: Path) -> None:
    """Write all of it, then what `read` makes of it."""
    place.mkdir()
    model().save_pretrained(place / "model")
    evaluator().save_pretrained(place / "evaluator")
    scratch = place / "scratch"
    write_dataset(scratch / "data", clips=24, seed=0)
    commands = [
        f"generate|{SENTENCES[0]}|--model|{place}/model|--seconds|0.3|--formats|npy|--device|cpu|--out|{place}/generated",
        f"data|tokenize|{scratch}/data|--model|{place}/model",
        f"data|pack-tokens|{scratch}/data|--out|{place}/packed",
        "|".join([*TRAIN, f"data.root={scratch}/data", f"output_dir={place}/run"]),
    ]
    for line in commands:
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
            assert cli.main(line.split("|")) == 0, said.getvalue()
    data = DatasetFolder(scratch / "data")
    np.save(place / "clip.npy", data.motion(data.names()[0])[:16])
    shutil.rmtree(scratch)
    for path in sorted(place.rglob("*")):
        if path.name == "logs" or path.match("run/checkpoints/step-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    np.savez(place / "expected.npz", **read(place))  # type: ignore[arg-type]


def pack(place: Path, archive: Path) -> None:
    """The folder as a .tar.xz, without who made it and when."""
    with tarfile.open(archive, "w:xz", preset=9) as out:
        for path in sorted(p for p in place.rglob("*") if p.is_file()):
            member = out.gettarinfo(str(path), str(path.relative_to(place)))
            member.uid = member.gid = member.mtime = 0
            member.uname = member.gname = ""
            with open(path, "rb") as stream:
                out.addfile(member, stream)


if __name__ == "__main__":
    folder = Path("out/frozen") / sys.argv[1]  # relative: its name is in what is written
    folder.parent.mkdir(parents=True, exist_ok=True)
    main(folder)
    pack(folder, Path(__file__).parent / f"{sys.argv[1]}.tar.xz")
