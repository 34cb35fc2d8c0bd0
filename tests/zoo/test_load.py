"""Pipelines and evaluators are found through the registries, whoever wrote them."""

from __future__ import annotations

import json
import shutil

import pytest

import hftrainer
from hftrainer.config import ConfigError
from hftrainer.hub import ModelNotFound
from hftrainer.pipelines.motionmillion import MotionMillionPipeline
from hftrainer.registry import EVALUATORS, PIPELINES
from hftrainer.zoo.files import Unpinned
from hftrainer.zoo.load import load_evaluator, load_pipeline, locate
from tests.zoo.plugin import TOY_PIPELINE, install, install_toy


def folder_with(path, **index):
    path.mkdir()
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def test_a_plug_ins_model_loads_by_its_cards_name(site):
    install_toy(site)
    pipe = hftrainer.load_pipeline("toy", device="cpu")
    assert type(pipe).__name__ == "ToyPipeline"
    assert pipe.folder.resolve() == site / "toyplug" / "weights"  # below the card's own folder
    assert pipe.options == {"device": "cpu"}
    assert load_pipeline("toy", revision="v1", token="t").options == {"token": "t"}  # the files are found: no revision
    assert locate("toy-263") == (pipe.folder, "toy263")


@pytest.mark.parametrize(
    "index",
    [
        {"pipeline": "toy263"},
        {"pipeline": {"name": "toy263"}},
        {"_class_name": "ToyPipeline"},
        {"_class_name": "ToyPipelineOfYore"},
        {"pipeline": {"library": "toyplug", "class_name": "ToyPipeline", "module": "toyplug.pipeline"}},
    ],
    ids=["name", "section", "class", "former class", "diffusers"],
)
def test_a_folder_names_a_plug_ins_pipeline(site, tmp_path, index):
    install_toy(site)
    folder = folder_with(tmp_path / "model", **index)
    assert load_pipeline(folder).folder == folder
    assert locate(str(folder)) == (folder, "toy263")


def test_an_unknown_pipeline_lists_the_known_and_says_what_to_install(site, tmp_path):
    folder = folder_with(tmp_path / "model", _class_name="Pipeline263", pipeline={"module": "mo263.pipeline"})
    with pytest.raises(
        ModelNotFound,
        match=r"is for the pipeline 'Pipeline263', which .* pip install the plug-in .* "
        r"Known pipelines: motionmillion \(MotionMillionPipeline\)",
    ):
        load_pipeline(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelNotFound, match=r'does not say which pipeline.* write \{"pipeline": NAME\} into it'):
        load_pipeline(empty)


def test_damaged_index_files_are_named(tmp_path):
    folder = folder_with(tmp_path / "model")
    (folder / "model_index.json").write_text("{")
    with pytest.raises(ModelNotFound, match=r"model_index\.json"):
        load_pipeline(folder)
    (folder / "model_index.json").write_text("[]")
    with pytest.raises(ModelNotFound, match=r"model_index\.json"):
        load_pipeline(folder)


def test_two_pipelines_that_answer_to_one_name_are_both_named(site, tmp_path):
    install_toy(site)
    second = TOY_PIPELINE.replace("toy263", "toy264").replace("class ToyPipeline", "class OtherPipeline")
    install(site, "otherplug", "otherplug", {"otherplug.py": second})
    folder = folder_with(tmp_path / "model", _class_name="ToyPipelineOfYore")
    with pytest.raises(ConfigError, match="one of the pipelines toy263 and toy264, which match the same name"):
        load_pipeline(folder)
    (folder / "model_index.json").write_text('{"_class_name": "ToyPipelineOfYore", "pipeline": "toy264"}')
    assert type(load_pipeline(folder)).__name__ == "OtherPipeline"


def test_released_folders_are_recognized(tiny_model, tmp_path):
    assert locate(tiny_model) == (tiny_model, "motionmillion")
    folder = shutil.copytree(tiny_model, tmp_path / "without-index")
    (folder / "model_index.json").unlink()
    assert isinstance(load_pipeline(folder, text_encoder=None), MotionMillionPipeline)


def test_evaluators_are_found_by_what_their_folder_says(tmp_path):
    nano = locate("motionstreamer272-nano")[0]
    assert load_evaluator(nano).identity() == load_evaluator("motionstreamer272-nano").identity()
    with pytest.raises(ConfigError, match="is an evaluator, which does not generate motions"):
        load_pipeline(nano)
    with pytest.raises(ModelNotFound, match="does not say which evaluator"):
        load_evaluator(tmp_path)
    with pytest.raises(ConfigError, match="gotozero-nano is no evaluator; an evaluator is needed"):
        load_evaluator("gotozero-nano")


def test_every_built_in_evaluator_answers_to_its_own_folders(tmp_path):
    from hftrainer.zoo.detect import registered_name

    said = {
        "motionstreamer272": ("config.json", {"model_type": "motius-motionstreamer-272-evaluator"}),
        "humanml263": ("config.json", {"model_type": "humanml263_evaluator"}),
        "motionclip135": ("bundle_config.json", {}),
    }
    for name, (file, content) in said.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / file).write_text(json.dumps(content))
        assert registered_name(EVALUATORS, folder) == name
        assert registered_name(PIPELINES, folder) is None


def test_files_count_only_where_no_class_is_named(tmp_path):
    from hftrainer.zoo.detect import registered_name

    folder = folder_with(tmp_path / "model", _class_name="SomebodyElse")
    (folder / "mm_config.json").write_text("{}")
    assert registered_name(PIPELINES, folder) is None


def test_a_folder_is_recognized_by_all_files_of_a_class(site, tmp_path):
    from hftrainer.zoo.detect import registered_name

    pair = TOY_PIPELINE.replace('artifact_names = ("ToyPipelineOfYore",)', 'artifact_files = ("a.bin", "b.bin")')
    install(site, "pairplug", "pairplug", {"pairplug.py": pair})
    folder = tmp_path / "model"
    folder.mkdir()
    for name, expected in (("a.bin", None), ("b.bin", "toy263")):
        (folder / name).touch()
        assert registered_name(PIPELINES, folder) == expected


def test_a_card_without_a_commit_says_that_it_is_not_pinned(tiny_model, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, **options):
        asked.append((name, options["revision"]))
        assert "text_encoder/*" in options["ignore_patterns"]  # what is not asked for is not downloaded
        return str(tiny_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.warns(Unpinned, match="gotozero-3b-train is not pinned to a commit of ZeyuLing/"):
        load_pipeline("gotozero-3b", text_encoder=None)
    load_pipeline("gotozero-3b", revision="v1", text_encoder=None)  # no warning: tests make those errors
    assert asked == [("ZeyuLing/hftrainer-gotozero-3b-train-humanml272", revision) for revision in (None, "v1")]


def test_a_revision_that_is_asked_for_is_not_the_folder_that_is_here(tmp_path, tiny_model, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tiny_model))
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "checkpoints" / "gotozero" / "hftrainer_3b_train_humanml272"
    here.mkdir(parents=True)
    assert locate("gotozero-3b") == (here, "motionmillion")
    assert locate("gotozero-3b", revision="v1") == (tiny_model, "motionmillion")


def test_an_evaluator_comes_from_the_hub_at_its_revision(monkeypatch):
    import huggingface_hub

    asked = []
    nano = locate("motionstreamer272-nano")[0]

    def download(name, **options):
        asked.append((name, options["revision"], options["cache_dir"]))
        return str(nano)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    load_evaluator("someone/judge", revision="v1")
    assert asked == [("someone/judge", "v1", None)]
