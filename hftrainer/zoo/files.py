"""A card's files: where they are on this machine, downloading them, comparing them with the card's hashes."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftrainer.files import sha256
from hftrainer.hub import ON_HUB, ModelNotFound, find_model
from hftrainer.manifest import MANIFEST, ManifestError, verify_manifest
from hftrainer.readers import read_json
from hftrainer.zoo.schema import Hub, ModelCard

REPOSITORY = Path(__file__).resolve().parents[2]
VOCABULARY = "vocabulary.json"


class Unpinned(UserWarning):
    """A card names no commit of its repository."""


def local_folder(card: ModelCard) -> Path | None:
    """The first of the card's folders that is here; None if none is. The hub's cache is not looked at."""
    bases = [Path.cwd(), *([card.file.parent] if card.file is not None else []), REPOSITORY]
    places = (base / relative for base in bases for relative in card.folders)
    return next((place for place in places if place.is_dir()), None)


def hub_of(card: ModelCard) -> Hub:
    """The card's repository; `ModelNotFound` if it has none."""
    if card.hub is None:
        where = " or ".join(card.folders)
        raise ModelNotFound(f"the files of {card.name} are not on this machine and not on a hub; put them in {where}")
    return card.hub


def hub_revision(card: ModelCard, revision: str | None) -> str | None:
    """The commit to load: the one that was asked for, else the card's; warns if there is neither."""
    hub = hub_of(card)
    if revision is None and hub.revision is None:
        warnings.warn(unpinned_note(card), Unpinned, stacklevel=3)
    return revision or hub.revision


def unpinned_note(card: ModelCard) -> str:
    """What a user should know about a card without a commit."""
    return (
        f"{card.name} is not pinned to a commit of {hub_of(card).repository}: the latest commit is used; "
        "give a revision to get the same files every time"
    )


@dataclass
class Pulled:
    """A model's folder, and how many of its files were compared with known hashes."""

    folder: Path
    checked: int


def pull(card: ModelCard, *, revision: str | None = None, **hub: Any) -> Pulled:
    """The model's folder, downloaded into the hub's cache if it is not here, and compared with the known hashes.

    `hub`: cache_dir, local_files_only, token. The card's hashes are those of its own revision; another one is compared
    only with the manifest that came along. Raises `ModelNotFound` and `ManifestError`.
    """
    folder = local_folder(card) if revision is None or card.hub is None else None
    wanted = None
    if folder is None:
        wanted = hub_revision(card, revision)
        folder = find_model(ON_HUB + hub_of(card).repository, revision=wanted, **hub)
    own = card.hub is None or wanted in (None, card.hub.revision)
    return Pulled(folder, verify(card if own else None, folder))


def cached_folder(card: ModelCard) -> Path:
    """The model's folder without asking the network: one of the card's, or the hub's cache. Raises `ModelNotFound`."""
    here = local_folder(card)
    if here is not None:
        return here
    hub = hub_of(card)
    try:
        return find_model(ON_HUB + hub.repository, revision=hub.revision, local_files_only=True)
    except ModelNotFound as error:
        raise ModelNotFound(
            f"the files of {card.name} are not on this machine; get them with: hftrainer zoo pull {card.name}"
        ) from error


def verify(card: ModelCard | None, folder: str | os.PathLike[str]) -> int:
    """Compare the files with the card's hashes and with the folder's manifest; how many were compared.

    `ManifestError` names every file that differs.
    """
    folder = Path(folder)
    hashes = {} if card is None else card.files
    wrong = [name for name, digest in hashes.items() if not _has_hash(folder / name, digest)]
    if wrong and card is not None:
        raise ManifestError(
            f"{folder} does not match the card of {card.name}: {', '.join(wrong)} missing or with another hash; "
            "copy or download it again"
        )
    listed = verify_manifest(folder) if (folder / MANIFEST).is_file() else 0
    return max(len(hashes), listed)


def read_vocabulary(folder: Path, card: ModelCard) -> dict[str, dict[str, int]]:
    """The words that a model was trained on, from its vocabulary.json: by group ("verbs"), each with its count.

    `ModelNotFound` if the model has no such file.
    """
    path = folder / VOCABULARY
    if not path.is_file():
        raise ModelNotFound(
            f"{card.name} comes without a list of the words it was trained on (no {VOCABULARY} in {folder})"
        )
    groups = read_json(path, error=ManifestError)
    try:
        return {str(group): {str(word): int(n) for word, n in words.items()} for group, words in groups.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ManifestError(f'{path} must be {{"verbs": {{"walk": 12, ...}}, ...}}: {error}') from error


def _has_hash(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest
