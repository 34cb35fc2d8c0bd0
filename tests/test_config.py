"""Configurations: every shipped file, and every kind of mistake with its path and the near match."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import pytest

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from omegaconf import OmegaConf

from hftrainer.config import ConfigError, Experiment, TrainerConfig, load_experiment, plain, read_yaml, save_yaml, typed
from hftrainer.models.motion.motionmillion.config import MotionMillionConfig
from hftrainer.models.motion.motionmillion.network import LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.llama import PRESETS
from hftrainer.training.fit import check_experiment
from tests.conftest import REPOSITORY

CONFIGS = sorted(p for p in (REPOSITORY / "configs").rglob("*.yaml") if p.parent.name != "sweeps")
DEBUG = REPOSITORY / "configs" / "gotozero" / "debug_ar.yaml"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path, tmp_path):
    resolved = check_experiment(load_experiment(path))
    save_yaml(resolved, tmp_path / "resolved.yaml")
    assert check_experiment(load_experiment(tmp_path / "resolved.yaml")) == resolved


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_released_sizes_in_yaml_are_the_presets(size):
    config = typed(MotionMillionConfig, without_name(read_yaml(DEBUG.with_name(f"ar_{size}.yaml"))["model"]))
    config.check()
    assert config.ar.config == LLaMAHFConfig.from_name(size.upper())
    assert {"n_layer", "n_head", "n_embd"} == set(PRESETS["7B"])


def without_name(section):
    return {key: value for key, value in section.items() if key != "name"}


def test_overrides_reach_any_depth():
    experiment = load_experiment(DEBUG, ["trainer.max_steps=20", "model.ar.n_layer=5", "seed=7"])
    assert experiment.trainer.max_steps == 20
    assert check_experiment(experiment)["model"]["ar"]["n_layer"] == 5
    assert experiment.seed == 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_step=20", r"unknown key 'trainer.max_step'; did you mean 'max_steps'"),
        ("model.ar.n_layers=2", r"unknown key 'model.ar.n_layers'; did you mean 'n_layer'"),
        ("model.ar.n_layer=two", r"model.ar.n_layer: .*'two'"),
        ("trainer.max_steps=many", r"trainer.max_steps: .*'many'"),
        (
            "task.optimizer.schedule.name=lineer",
            r"task.optimizer.schedule.name: there is no schedule called 'lineer'. Did you mean 'linear'",
        ),
        ("task.optimizer.lr=-1", r"task.optimizer.lr must be above 0, got -1"),
        ("task.optimizer.lr=.nan", r"task.optimizer.lr must be a finite number"),
        ("task.optimizer.betas=[0.9,1.5]", r"task.optimizer.betas must be at least 0 and below 1, got 1.5"),
        ("task.optimizer.schedule.warmup=-1", r"task.optimizer.schedule.warmup must be at least 0"),
        ("trainer.accumulate_grad_batches=0", r"trainer.accumulate_grad_batches must be at least 1, got 0"),
        ("trainer.checkpoint_every_n_steps=0", r"trainer.checkpoint_every_n_steps must be at least 1, got 0"),
        ("trainer.max_steps=-1", r"trainer.max_steps must be at least 1, got -1"),
        ("trainer.gradient_clip_val=-0.5", r"trainer.gradient_clip_val must be above 0"),
        ("trainer.on_nan=ignore", r"trainer.on_nan must be one of stop, skip, got 'ignore'"),
        ("data.batch_size=0", r"data.batch_size must be at least 1, got 0"),
        (
            "callbacks=[{name: artifact, monitor: val/los}]",
            r"callbacks\[0\].monitor: nothing logs 'val/los'; did you mean 'val/loss'",
        ),
        ("model.name=motionmilion", r"no model called 'motionmilion'. Did you mean 'motionmillion'"),
        ("data.name=tokens", r"no dataset called 'tokens'.*Known: .*text_tokens"),
        ("task.name=", r"task.name is missing"),
        ("sed=1", r"unknown key 'sed'; did you mean 'seed'"),
        ("model.ar.n_head=7", r"n_embd=32 must be n_head=7 times"),
        ("trainer.max_steps", r"must look like trainer.max_steps=20"),
        ("callbacks=[{name: artifact, mode: low}]", r"callbacks\[0\]: mode must be"),
        ("callbacks=[{name: artefact}]", r"Did you mean 'artifact'"),
    ],
)
def test_mistakes_are_named_with_their_path(override, message):
    with pytest.raises(ConfigError, match=message):
        check_experiment(load_experiment(DEBUG, [override]))


def test_a_missing_file_and_a_missing_field_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file 'nowhere.yaml'"):
        load_experiment("nowhere.yaml")
    (tmp_path / "half.yaml").write_text("model: {name: motionmillion}\n")
    with pytest.raises(ConfigError, match=r"(data|task) is required"):
        load_experiment(tmp_path / "half.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_experiment(tmp_path / "list.yaml")


@dataclass
class Inner:
    size: int = 3
    names: list[str] = field(default_factory=list)


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None


def test_saving_and_loading_is_the_identity(tmp_path):
    config = typed(Outer, {"inner": {"names": ["a", "b"]}, "maybe": {"size": 4}})
    save_yaml(config, tmp_path / "c.yaml")
    assert typed(Outer, read_yaml(tmp_path / "c.yaml")) == config
    assert plain(config) == {"inner": {"size": 3, "names": ["a", "b"]}, "maybe": {"size": 4, "names": []}}
    assert TrainerConfig() == typed(TrainerConfig, {})


def test_lists_and_sections_in_each_others_place_are_named():
    fields = {"model": {}, "task": {}, "data": {}}
    with pytest.raises(ConfigError, match=r"^callbacks must be a list, got \{'name': 'ema'\}"):
        typed(Experiment, {**fields, "callbacks": {"name": "ema"}})
    for key in ("trainer", "model"):
        with pytest.raises(ConfigError, match=rf"^run\.{key} must be a section, got \[1\]"):
            typed(Experiment, {**fields, key: [1]}, path="run")


def test_text_that_is_not_yaml_is_named_with_its_line(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("model:\n  name: [\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not YAML: .*line 3"):
        read_yaml(path)


GROWING = {
    "a name made of another value": "a: b\nb: x\nc: ${${a}}\n",
    "a name in quotes": "'k 0': x\nb: ${oc.select:\"k 0\"}\n",
    "a name with signs": "k+0: x\nb: ${k+0}\n",
    "made": "b: ${oc.create:[1]}\n",
    "behind a backslash": "k: x\nb: '\\\\${oc.select:k}'\n",
    "in a key": "${oc.select:k}: 1\n",
}


@pytest.mark.parametrize("name", GROWING)
def test_expressions_whose_size_cannot_be_told_are_refused(name, tmp_path):
    """Forty lines that ask for the one before twice stand for a terabyte."""
    path = tmp_path / "x.yaml"
    path.write_text(GROWING[name])
    with pytest.raises(ConfigError, match="an expression other than"):
        read_yaml(path)


def test_expressions_that_are_read(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: {b: [1, 2]}\nc: ${a.b[1]}\nd: x${ .c }y\ne: '\\${text}'\n")
    assert read_yaml(path) == {"a": {"b": [1, 2]}, "c": 2, "d": "x2y", "e": "${text}"}


def test_configurations_that_take_too_long_are_refused(tmp_path):
    path = tmp_path / "x.yaml"
    for text, why in (
        ("a: 1" + ":1" * 100_000, "more than 1000 digits"), ("a: x\nb: " + "${a}" * 20_000, "more than 50000 letters"),
        ("#" * 300_000, "the limit is 262144"), ("a: !!int ''", "string index"), ("a: !!bool x", "'x'"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ConfigError, match=why) as caught:
            read_yaml(path)
        assert str(path) in str(caught.value)


def test_a_wrong_key_is_told_with_its_file(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("model: {}\ntask: {}\ndata: {}\nsead: 1\n")
    with pytest.raises(ConfigError, match=r"unknown key 'sead'.*x\.yaml"):
        load_experiment(path)


def test_parts_that_do_not_fit_are_refused_before_anything_is_built():
    from hftrainer.training.fit import check_experiment

    with pytest.raises(ConfigError, match=r"ar\.vocab_size=99 must be the tokenizer's 240 codes"):
        check_experiment(load_experiment(DEBUG, ["model.ar.vocab_size=99"]))
    with pytest.raises(ConfigError, match=r"model\.vqvae is now model\.tokenizer, and both are given"):
        check_experiment(load_experiment(DEBUG, ["model.vqvae={width: 32}"]))


@pytest.mark.parametrize("fields", [None, ["a"], 3, "text"])
def test_what_is_no_section_is_refused(fields):
    with pytest.raises(ConfigError, match=r"parts\[0\]: expected a section with keys, got "):
        typed(TrainerConfig, fields, path="parts[0]")


def test_resolvers_that_were_registered_are_used(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 3\nb: ${tests_half:8}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 2.4 renamed it to what 2.3 had deprecated
        OmegaConf.register_new_resolver("tests_half", lambda number: number // 2)
    try:
        assert read_yaml(path)["b"] == 4
    finally:
        OmegaConf.clear_resolver("tests_half")
    with pytest.raises(ConfigError, match="an expression other than"):
        read_yaml(path)
