"""Models on the Hugging Face hub: where a model's files are, and putting a folder there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hftrainer.manifest import MANIFEST, verify_manifest
from hftrainer.readers import FileError

# copies of the same weights for other frameworks, which nothing here reads
FOREIGN_WEIGHTS = ("*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.tflite")


ON_HUB = "hf:"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_USUAL_FOLDERS = ("checkpoints", "ckpt", "data", "dataset", "datasets", "exp", "experiments", "models", "out", "output",
                  "outputs", "pretrained", "results", "run", "runs", "tmp", "weights")  # fmt: skip


class ModelNotFound(FileError):
    """Neither a folder nor a repository that can be reached; the message says what was tried."""


class FolderMeant(ModelNotFound):
    """A name that looks like a mistyped folder, which the hub is not asked for."""


class UploadFailed(ValueError):
    """A folder that is not on the hub now; the message says why."""


def find_model(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    without: Sequence[str] = (),
) -> Path:
    """The local folder of a model. A name like ``owner/repository`` is downloaded (or found in the cache).

    ``hf:owner/repository`` always means the hub. Without ``hf:``, a name that may be a mistyped folder is refused: who
    owns that name on the hub would supply the weights.

    `revision` is a branch, tag or commit; `token` True, or the token itself, for private repositories. Files that match
    the patterns `without` ("text_encoder/*"), and other frameworks' weights, are not downloaded. Raises
    `ModelNotFound`.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return path
    text = os.fspath(name_or_path)
    name = text.removeprefix(ON_HUB)
    if _NAME.fullmatch(name) is None or path.exists():
        raise ModelNotFound(
            f"{text!r} is not a model folder, and not a hub name either (owner/repository); "
            "`hftrainer zoo` lists the models that have short names"
        )
    like = _folder_like(name.partition("/")[0])
    if not text.startswith(ON_HUB) and like is not None:
        raise FolderMeant(
            f"there is no model folder {text!r}, and {like}, so it is not looked for on the hub; if the hub is meant, "
            f"write {ON_HUB}{text}"
        )
    text = name
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                text,
                revision=revision,
                cache_dir=Path(cache_dir) if cache_dir else None,
                local_files_only=local_files_only,
                token=token,
                ignore_patterns=[*FOREIGN_WEIGHTS, *without],
            )
        )
    except _hub_errors() as error:
        raise ModelNotFound(_why_not_here(text, revision, local_files_only, error)) from error


def _folder_like(owner: str) -> str | None:
    """Why the first part of a name may be a folder rather than an owner on the hub; None if it may not."""
    if owner.lower() in _USUAL_FOLDERS:
        return f"{owner!r} is a usual name of a folder"
    here = [entry.name for entry in os.scandir() if entry.is_dir()]
    near = get_close_matches(owner, here, n=1, cutoff=0.8)
    return f"there is a folder {near[0]!r} here" if near else None


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> str:
    """Upload a complete model folder as one commit; the address of the commit or pull request.

    The files are compared with the folder's manifest first, and the repository is made if it is not there. `private`
    counts only for a new one; `revision` is an existing branch. Raises `UploadFailed`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UploadFailed(f"there is no folder {str(folder)!r} to upload; save the model first")
    if (folder / MANIFEST).is_file():
        verify_manifest(folder)
    from huggingface_hub import HfApi

    api: Any = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message or f"Upload {folder.name}",
        )
    except _hub_errors() as error:
        raise UploadFailed(
            f"{str(folder)!r} cannot be uploaded to {repo_id!r} ({_first_line(error)}); check the name, that "
            "huggingface.co can be reached, and that a token with write access is given (token=..., or `hf auth login`)"
        ) from error
    return str(commit.pr_url if create_pr else commit.commit_url)


def _why_not_here(name: str, revision: str | None, local_files_only: bool, error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    start = f"there is no folder {name!r} here, and"
    if isinstance(error, GatedRepoError):
        return f"{start} access to the repository {name!r} must be requested on its page; then give token=..."
    if isinstance(error, RepositoryNotFoundError):
        return f"{start} the hub has no repository {name!r}, or it is private: check the name, or give token=..."
    if isinstance(error, RevisionNotFoundError):
        return f"the repository {name!r} has no revision {revision!r}; give a branch, a tag or a commit of it"
    if local_files_only or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        which = f" at revision {revision!r}" if revision else ""
        return (
            f"{start} the repository {name!r}{which} is not in this machine's cache, the only allowed source "
            "(local_files_only, or HF_HUB_OFFLINE); without a network, copy the model's folder to this machine and "
            "give its path"
        )
    return (
        f"{start} the repository {name!r} cannot be downloaded ({_first_line(error)}); without a network, copy the "
        "model's folder to this machine and give its path"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _hub_errors() -> tuple[type[Exception], ...]:
    """What goes wrong between here and the hub. When nothing answers, its HTTP client raises an error of its own, which
    in older versions is an OSError."""
    from huggingface_hub import errors

    transport = getattr(errors, "HTTPError", OSError)
    return (OSError, errors.HFValidationError, errors.HfHubHTTPError, transport)
