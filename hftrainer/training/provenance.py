"""Which code a run was made with."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from hftrainer.version import __version__


def provenance() -> dict[str, Any]:
    """Git revision of the code (of the working folder where the package is an installed one), and versions.

    "git" has "revision" and "dirty" (whether tracked files differ from it), or is None outside of a repository.
    """
    import lightning
    import torch

    package = Path(__file__).resolve().parents[1]
    return {
        "git": git_revision(package if "site-packages" not in package.parts else Path.cwd()),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {
            "hftrainer": __version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
            "python": platform.python_version(),
        },
    }


def git_revision(folder: Path) -> dict[str, Any] | None:
    """The commit that is checked out in `folder`, and whether tracked files were changed since."""
    try:
        revision = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or no repository
    return {"revision": revision, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
