"""Compiled steps are asked for where a model is loaded, and by ``--compile``."""

from __future__ import annotations

import argparse

import pytest

from hftrainer.apps.generate_set import Settings, Source, load_source
from hftrainer.bench.pretend import machine
from hftrainer.cli import main
from hftrainer.commands.evaluate_flags import add_model_arguments, settings_of
from hftrainer.zoo.load import load_pipeline


def test_steps_are_compiled_on_cuda_and_elsewhere_a_warning_says_not(tiny_model):
    with pytest.warns(UserWarning, match="compiled on CUDA devices only"):
        pipe = load_pipeline(tiny_model, compile=True)
    assert not pipe.bundle.ar.compile_steps
    with machine():
        pipe.bundle.ar.to("cuda:0")
        pipe.compile_steps()
    assert pipe.bundle.ar.compile_steps
    pipe.bundle.ar = None
    with pytest.raises(ValueError, match="no steps to compile"):
        pipe.compile_steps()


@pytest.mark.parametrize("asked", [True, False])
def test_the_command_asks_for_it(monkeypatch, tmp_path, asked):
    seen = {}

    def generate(prompts, **settings):
        seen.update(settings)
        raise ValueError("enough")

    monkeypatch.setattr("hftrainer.apps.generate.generate", generate)
    assert main(["generate", "a person walks", "--out", str(tmp_path / "out"), *["--compile"] * asked]) == 1
    assert seen["load"].get("compile", False) == asked


def test_a_set_is_generated_with_compiled_steps_if_asked(tiny_model):
    source = Source(str(tiny_model))
    with pytest.warns(UserWarning, match="compiled on CUDA devices only"):
        load_source(source, Settings(compile=True))
    assert not load_source(source, Settings()).bundle.ar.compile_steps
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    assert settings_of(parser.parse_args(["--compile"])).compile
