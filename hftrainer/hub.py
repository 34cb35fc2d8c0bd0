"""Where a model's files are: a folder, or a repository on the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path


class ModelNotFound(ValueError):
    """Neither a folder nor a repository that can be reached; the message says what was tried."""


def find_model(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The local folder of a model. A name like ``owner/repository`` is downloaded (or found in the cache)."""
    path = Path(name_or_path)
    if path.is_dir():
        return path
    text = str(name_or_path)
    if text.count("/") != 1 or text.startswith((".", "/", "~")) or path.exists():
        raise ModelNotFound(
            f"{text!r} is not a model folder, and not a hub name either (owner/repository); "
            "`hftrainer zoo` lists the models that have short names"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                text,
                revision=revision,
                cache_dir=Path(cache_dir) if cache_dir else None,
                local_files_only=local_files_only,
                token=token,
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelNotFound(
            f"there is no folder {text!r} here, and the repository {text!r} cannot be downloaded "
            f"({type(error).__name__}: {str(error).splitlines()[0][:160]}); without a network, copy the model's "
            "folder to this machine and give its path"
        ) from error
