"""What commands share: dtype spellings, sampling flags, prompt files."""

from __future__ import annotations

import argparse
import io

import pytest

from hftrainer.commands import common
from hftrainer.data.text_motion.prompt_file import read_prompt_file
from hftrainer.dtypes import dtype_name
from hftrainer.requests import SamplingParams


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("bf16", "bfloat16"), ("bfloat16", "bfloat16"), ("fp16", "float16"), ("float16", "float16"),
        ("fp32", "float32"), ("float32", "float32"), ("torch.float32", "float32"),
    ],
)  # fmt: skip
def test_both_spellings_of_a_dtype_are_one(spelling, name):
    assert dtype_name(spelling) == name
    parser = argparse.ArgumentParser()
    common.add_dtype(parser, "of the model")
    assert parser.parse_args(["--dtype", spelling]).dtype == name


def test_an_unknown_dtype_is_refused(capsys):
    with pytest.raises(ValueError, match="unknown floating-point type 'float99'; write bf16, fp16 or fp32"):
        dtype_name("float99")
    parser = argparse.ArgumentParser()
    common.add_dtype(parser, "as stored", ["float32", "float16"])
    for wrong, said in (("int8", "write bf16"), ("bf16", "choose one of float32, float16")):
        with pytest.raises(SystemExit):
            parser.parse_args(["--dtype", wrong])
        assert said in capsys.readouterr().err


def sampling(*flags):
    parser = argparse.ArgumentParser()
    common.add_sampling(parser)
    return common.sampling_of(parser.parse_args(flags), SamplingParams(do_sample=True, temperature=0.7, top_p=0.9))


def test_sampling_flags_change_the_models_own_settings():
    assert sampling() == SamplingParams(do_sample=True, temperature=0.7, top_p=0.9)
    assert sampling("--greedy") == SamplingParams(do_sample=False, temperature=0.7, top_p=0.9)
    assert sampling("--top-k", "5") == SamplingParams(do_sample=True, temperature=0.7, top_k=5, top_p=0.9)
    with pytest.raises(ValueError, match="--greedy does not sample; remove temperature, top_p"):
        sampling("--greedy", "--temperature", "1", "--top-p", "0.5")
    with pytest.raises(ValueError, match="top_p"):
        sampling("--top-p", "0")


def test_prompts_come_from_the_command_line_and_a_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa person walks\r\n\r\n  turn left  \n".encode())
    assert read_prompt_file(path) == ["a person walks", "turn left"]
    assert common.read_prompts(["squat"], path) == ["squat", "a person walks", "turn left"]
    with pytest.raises(ValueError, match="prompt 2 is empty"):
        common.read_prompts(["squat", " "])
    with pytest.raises(ValueError, match="give a prompt"):
        common.read_prompts([])


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\n \n", "has no prompts"), (b"walk\nPK\x03\x04\x00", "line 2 is not text"), (None, "there is no prompt file")],
)
def test_prompt_files_that_cannot_be_read(tmp_path, content, said):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_prompt_file(path)


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch, capsys):
    assert list(common.progress("x")([1, 2])) == [1, 2]
    assert capsys.readouterr().err == ""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    assert list(common.progress("walking")([1, 2])) == [1, 2]
    assert "walking" in screen.getvalue()


def test_the_device_is_this_ranks_gpu(monkeypatch):
    import torch

    given = argparse.Namespace(device=None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert common.device_of(given) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert common.device_of(given) == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert common.device_of(given) == "cuda:3"
    assert common.device_of(argparse.Namespace(device="cpu")) == "cpu"
