"""Folders of generated motions on one page: motions of one prompt and seed beside each other, in lockstep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hftrainer.motion.body import Body
from hftrainer.motion.io.read_body import read_motions
from hftrainer.pipelines.folder import existing
from hftrainer.render.viewer import ViewerClip, clip_of, write_viewer

COLORS = ("#7a68d8", "#1d9a7b", "#c2892b", "#c4568f")


def compare_folders(
    folders: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str], *, body: Body | None = None
) -> int:
    """Write the page and give the number of prompts and seeds that at least two folders have.

    `body` is what .npy files are fitted to where a folder has no .npz. Raises ``ValueError`` for fewer than two or more
    than four folders, and if they have nothing in common.
    """
    places = [Path(folder) for folder in folders]
    if not 2 <= len(places) <= len(COLORS):
        raise ValueError(f"a comparison needs two to {len(COLORS)} folders, got {len(places)}")
    found: dict[tuple[str, object], list[tuple[int, Path]]] = {}
    for number, folder in enumerate(places):
        for item in existing(folder)["items"]:
            stem = str(item["stem"])
            file = next(
                (folder / f"{stem}{end}" for end in (".npz", ".npy") if (folder / f"{stem}{end}").is_file()), None
            )
            if file is not None:
                found.setdefault((str(item["prompt"]), item.get("seed")), []).append((number, file))
    shared = {key: files for key, files in found.items() if len({number for number, _ in files}) > 1}
    if not shared:
        raise ValueError(
            f"{', '.join(map(str, places))} have no common prompt and seed; are they folders that "
            "`hftrainer generate` wrote?"
        )
    clips: list[ViewerClip] = []
    for (prompt, seed), files in shared.items():
        for number, file in files:
            _, motion = read_motions(file, body=body)[0]
            notes = {"folder": str(places[number]), "seed": str(seed)}
            group = f"{prompt} / {seed}"
            clips.append(clip_of(motion, prompt, notes, color=COLORS[number], group=group))
    write_viewer(path, clips, title=f"{' against '.join(folder.name for folder in places)}: {len(shared)} prompts")
    return len(shared)
