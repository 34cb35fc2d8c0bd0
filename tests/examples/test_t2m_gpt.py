"""The example plug-in, installed beside the package: trained in both stages, then used by every command."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from hftrainer.cli import main
from hftrainer.data.folder import DatasetFolder
from hftrainer.motion.representation.convert import convert
from tests.conftest import REPOSITORY
from tests.tiny import tiny_evaluator
from tests.tiny_encoders import tiny_clip
from tests.zoo.plugin import fresh_plugins

PLUGIN = REPOSITORY / "examples" / "t2m_gpt"
SIZES = ["model.vqvae={width: 32, down: 2, depth: 1, quantizer: {name: ema, codes: 24}}"]
SHORT = [
    "trainer.max_steps=8", "trainer.val_every_n_steps=8", "trainer.checkpoint_every_n_steps=8",
    "trainer.accelerator=cpu", "trainer.progress_bar=false", "trainer.log_every_n_steps=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The plug-in, as `pip install` leaves it."""
    site = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        shutil.copytree(PLUGIN / "t2m_gpt", site / "t2m_gpt")
        about = site / "hftrainer_t2m_gpt-0.1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: hftrainer-t2m-gpt\nVersion: 0.1\n")
        (about / "entry_points.txt").write_text("[hftrainer.plugins]\nt2m_gpt = t2m_gpt\n")
        for _ in fresh_plugins.__wrapped__(patch, site):
            yield site


@pytest.fixture(scope="module")
def data(synthetic, tmp_path_factory):
    """The synthetic set in HumanML3D's representation."""
    source = DatasetFolder(synthetic)
    root = tmp_path_factory.mktemp("t2m_gpt") / "hml263"
    made = DatasetFolder(root, create=True)
    made.write_representation("hml263")
    for name in source.names():
        made.write_motion(name, convert(source.motion(name), "motion272", "hml263").values)
    shutil.copytree(synthetic / "split", root / "split")
    for path in (synthetic / "texts").glob("*.txt"):  # with parts of speech, as HumanML3D has them
        lines = [line.split("#")[0] for line in path.read_text().splitlines()]
        tagged = [f"{line}#{' '.join(f'{word}/NOUN' for word in line.split())}#0.0#0.0" for line in lines]
        (root / "texts").mkdir(exist_ok=True)
        (root / "texts" / path.name).write_text("\n".join(tagged))
    assert main(["data", "stats", str(root)]) == 0
    return root


@pytest.fixture(scope="module")
def model(installed, data, tmp_path_factory):
    """Both stages, trained for some steps by the shipped configurations."""
    work = tmp_path_factory.mktemp("t2m_gpt_runs")
    tiny_clip(work / "text")
    first = ["train", str(PLUGIN / "configs" / "vqvae.yaml"), *SIZES, *SHORT, f"data.root={data}"]
    assert main([*first, f"output_dir={work / 'vqvae'}", "data.batch_size=8", "data.window=32"]) == 0
    assert main(["data", "tokenize", str(data), "--model", str(work / "vqvae" / "best")]) == 0
    second = [
        "train", str(PLUGIN / "configs" / "gpt.yaml"), *SHORT, f"data.root={data}", f"output_dir={work / 'gpt'}",
        f"model.tokenizer_from={work / 'vqvae' / 'best'}",
        "model.gpt={text_width: 16, width: 32, layers: 2, heads: 2, longest: 50}",
        f"model.text_encoder.source={work / 'text'}", "data.batch_size=8",
        "callbacks=[{name: artifact}, {name: t2m_inference, prompts: [a person walks], formats: [npy, html]}]",
    ]  # fmt: skip
    assert main(second) == 0
    return work / "gpt" / "best"


def test_both_stages_learn_and_validation_generates(model):
    samples = sorted(model.parent.glob("samples/*/*.npy"))
    assert samples
    assert all(np.load(path).shape[1] == 263 for path in samples)
    assert json.loads((model / "model_index.json").read_text())["representation"] == "hml263"
    stored = json.loads((model.parents[1] / "vqvae" / "best.json").read_text())
    assert np.isfinite(stored["metrics"]["val/loss"])


def test_the_zoo_lists_it(installed, capsys):
    assert main(["zoo", "list", "--representation", "hml263"]) == 0
    assert "t2m-gpt" in capsys.readouterr().out
    assert main(["zoo", "show", "t2m-gpt"]) == 0
    assert "T2M-GPT" in capsys.readouterr().out


def test_it_generates_and_doctor_describes_it(model, tmp_path, capsys):
    prompt = "a person walks forward"
    command = ["generate", prompt, "--model", str(model), "--formats", "npy,html", "--temperature", "1"]
    assert main([*command, "-n", "2", "--seconds", "2", "--out", str(tmp_path)]) == 0
    motions = [np.load(path) for path in sorted(tmp_path.glob("*.npy"))]
    assert [motion.shape for motion in motions] == [(40, 263)] * 2
    assert not np.array_equal(*motions)
    assert json.loads((tmp_path / "manifest.json").read_text())["representation"] == "hml263"
    capsys.readouterr()
    assert main(["doctor", str(model)]) == 0
    out = capsys.readouterr().out
    assert "24 codes of 4 frames" in out
    assert "hml263, 263 features at 20 frames a second" in out


def test_a_motion_depends_on_its_seed_only(model):
    import hftrainer

    pipe = hftrainer.load_pipeline(model)
    together = pipe(["a person squats", "someone stands still"], num_motions=2, temperature=1.0, seed=3)
    alone = pipe("someone stands still", temperature=1.0, seed=4)
    assert np.array_equal(together[3].tokens, alone[0].tokens)
    # batches of other sizes are summed in another order
    np.testing.assert_allclose(together[3].motion, alone[0].motion, atol=1e-4)


@pytest.mark.parametrize("stage", ["vqvae", "gpt"])
def test_a_dry_run_counts_it(installed, data, stage, capsys):
    command = [
        "train",
        str(PLUGIN / "configs" / f"{stage}.yaml"),
        "--dry-run",
        *SIZES,
        f"data.root={data}",
        "data.batch_size=8",
    ]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "memory per device" in out
    assert "t2m_gpt" in out


def test_the_card_counts_what_the_configurations_make(installed):
    from omegaconf import OmegaConf

    from hftrainer.config import load_experiment
    from hftrainer.training.dry_run import dry_run

    card = OmegaConf.load(PLUGIN / "t2m_gpt" / "cards" / "t2m-gpt.yaml")
    found = dry_run(load_experiment(PLUGIN / "configs" / "gpt.yaml", ["callbacks=[]"]))
    parts = {part.name: part.parameters for part in found.parts}
    assert {part.name: part.parameters for part in card.parts} == {name: parts[name] for name in ("vqvae", "gpt")}


def test_it_is_judged_as_263_and_after_conversion_as_272(model, data, tmp_path):
    from hftrainer.models.motion.humanml263 import HumanML263Evaluator
    from hftrainer.models.motion.humanml263.evaluator import HumanML263Config
    from hftrainer.models.motion.humanml263.network import Matcher
    from hftrainer.models.motion.humanml263.words import WordVectors
    from tests.models.test_humanml263 import TINY, WORDS

    rng = np.random.default_rng(0)
    words = WordVectors(WORDS, rng.normal(size=(len(WORDS), 300)).astype(np.float32))
    judge = HumanML263Evaluator(
        HumanML263Config(matcher=TINY), Matcher(TINY), words, np.zeros(263, np.float32), np.ones(263, np.float32)
    )
    judge.save_pretrained(tmp_path / "263")
    tiny_evaluator().save_pretrained(tmp_path / "272")
    small = ["batches.size=4", "repeats=2", "metrics.diversity_pairs=2"]
    for protocol, evaluator in (("hml3d-263-leaderboard", "263"), ("hftrainer-v1", "272")):
        out = tmp_path / f"run_{evaluator}"
        command = ["evaluate", "run", "--protocol", protocol, "--data", str(data), "--split", "train"]
        command += [part for change in small for part in ("--set", change)]
        assert main([*command, "--evaluator", str(tmp_path / evaluator), "--model", str(model), "--out", str(out)]) == 0
        assert (out / "report.md").is_file()
        about = json.loads((out / "report.json").read_text())["predictions"]
        assert about.get("rotations") == ("posed" if evaluator == "272" else None)
