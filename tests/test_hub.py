"""Hub names: what is asked of huggingface_hub, what users read when it fails, and uploading."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from hftrainer.cli import main
from hftrainer.hub import ModelNotFound, UploadFailed, find_model, push_folder
from hftrainer.manifest import ManifestError
from hftrainer.models.motion.motionmillion import MotionMillionBundle
from hftrainer.pipelines.motionmillion import MotionMillionPipeline

NAME = "someone/gotozero"


@pytest.fixture
def asked(tiny_model, monkeypatch):
    """Stands for the hub: every download is the tiny model; what was asked for is kept."""
    calls = []

    def download(name, **options):
        calls.append({"name": name, **options})
        return str(tiny_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


@pytest.mark.parametrize("cls", [MotionMillionBundle, MotionMillionPipeline])
def test_every_from_pretrained_takes_hub_names_and_their_options(asked, tmp_path, cls):
    cls.from_pretrained(NAME, revision="v1", cache_dir=tmp_path, local_files_only=True, token="secret")
    assert len(asked) == 1
    assert asked[0]["name"] == NAME
    wanted = {"revision": "v1", "cache_dir": tmp_path, "local_files_only": True, "token": "secret"}
    assert {key: asked[0][key] for key in wanted} == wanted
    assert "*.h5" in asked[0]["ignore_patterns"]
    assert "text_encoder/*" not in asked[0]["ignore_patterns"]


def test_parts_that_are_left_out_are_not_downloaded(asked):
    MotionMillionBundle.from_pretrained(NAME, text_encoder=None, load_ar=False)
    assert {"text_encoder/*", "ar.*", "ar-*"} <= set(asked[0]["ignore_patterns"])


def test_classifiers_come_from_the_hub_too(tmp_path, monkeypatch):
    from hftrainer.models.action_classifier import ActionClassifier, ActionClassifierConfig

    model = ActionClassifier(ActionClassifierConfig(contents=["walk", "run"], styles=["slow"], width=16))
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path))
    assert ActionClassifier.from_pretrained(NAME, revision="v1").config == model.config


def response(status: int) -> SimpleNamespace:
    """As much of an HTTP answer as the hub's errors look at."""
    return SimpleNamespace(status_code=status, headers={}, request=None)


FAILURES = {
    "no such repository": (errors.RepositoryNotFoundError("404", response=response(404)), "or it is private"),
    "gated": (errors.GatedRepoError("403", response=response(403)), "access to the repository .* must be requested"),
    "no such revision": (errors.RevisionNotFoundError("404", response=response(404)), "has no revision 'v9'"),
    "not in the cache": (errors.LocalEntryNotFoundError("offline"), "not in this machine's cache"),
    "bad name": (errors.HFValidationError("bad"), "cannot be downloaded|not in this machine's cache"),
    "nothing answers": (errors.HTTPError("no route"), "without a network, copy the model's folder"),
    "disk full": (OSError(28, "No space left on device"), "No space left|not in this machine's cache"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures_say_what_to_do(monkeypatch, case):
    error, message = FAILURES[case]

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelNotFound, match=message):
        find_model(NAME, revision="v9")


def test_offline_for_real(tmp_path):
    """Nothing is patched: the cache is empty and the network may not be used."""
    with pytest.raises(ModelNotFound, match="not in this machine's cache, the only allowed source"):
        MotionMillionBundle.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True)


# --- uploading --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """Stands for the hub's API; keeps what was uploaded."""
    kept = SimpleNamespace(repos=[], uploads=[], token=None, files=set())

    class Api:
        def __init__(self, token=None):
            kept.token = token

        def create_repo(self, repo_id, **options):
            kept.repos.append((repo_id, options))

        def upload_folder(self, *, folder_path, **options):
            kept.files = {p.relative_to(folder_path).as_posix() for p in folder_path.rglob("*") if p.is_file()}
            kept.uploads.append(options)
            return SimpleNamespace(commit_url=f"https://hub/{options['repo_id']}/commit/1", pr_url="https://hub/pr/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return kept


@pytest.mark.parametrize("cls", [MotionMillionBundle, MotionMillionPipeline])
def test_push_to_hub_uploads_a_whole_artifact(hub, tiny_model, cls):
    url = cls.from_pretrained(tiny_model).push_to_hub(NAME, private=True, token="secret", commit_message="first")
    assert url == "https://hub/someone/gotozero/commit/1"
    assert hub.token == "secret"
    assert hub.repos == [(NAME, {"private": True, "exist_ok": True})]
    assert hub.uploads[0]["commit_message"] == "first"
    assert {"fsq.safetensors", "ar.safetensors", "manifest.json", "README.md", "text_encoder/config.json"} <= hub.files


def test_a_folder_is_pushed_as_it_is(hub, tiny_model, capsys):
    assert main(["convert", "push", str(tiny_model), NAME, "--create_pr"]) == 0
    assert "https://hub/pr/1" in capsys.readouterr().out
    assert hub.files == {p.relative_to(tiny_model).as_posix() for p in tiny_model.rglob("*") if p.is_file()}


def test_damaged_folders_are_not_pushed(hub, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "mean.npy").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"mean\.npy"):
        push_folder(folder, NAME)
    assert not hub.uploads
    with pytest.raises(UploadFailed, match="there is no folder"):
        push_folder(tmp_path / "nowhere", NAME)


def test_a_failed_upload_says_why(hub, tiny_model, monkeypatch):
    def refuse(*_, **__):
        raise errors.HfHubHTTPError("403 Forbidden", response=response(403))

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(UploadFailed, match=r"403 Forbidden\); check the name, .* write access"):
        push_folder(tiny_model, NAME)
