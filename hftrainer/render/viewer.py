"""One HTML page that plays motions in 3D: no network, no other file, at home in an iframe.

The page is `viewer_page.html` with its title, the motions as JSON and three files put in: the viewer's elements
(`viewer_stage.html`), its style (`viewer.css`) and its program. The page of `hftrainer serve` has the same three. The
program, `viewer.bundle.js`, is made by `npm run build` from the sources in tools/web and committed, so that nobody
needs node to write a page.

Positions are packed: the pelvis as float32, the other joints as 16-bit steps from it between the smallest and the
largest offset of the clip, 138 bytes a frame before base64. The error is half a step, below 0.1 mm for a human body
wherever it walks.
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.files import write_text
from hftrainer.motion.body import BodyMotion
from hftrainer.motion.contacts import contacts
from hftrainer.motion.skeleton import N_JOINTS

_STEPS = 65535
_HERE = Path(__file__).parent


@dataclass
class ViewerClip:
    """A motion and what the page says about it.

    `joints` (T, 22, 3): metres, Y up. `title` is the prompt; `notes` are small facts such as the seed, shown in their
    order. `color`, as "#rrggbb", tints the body, its path and its number; without one the page chooses. `contacts`
    (T, 4): whether left ankle, right ankle, left toes and right toes stand. `files`: formats and the names of files
    beside the page, offered for download. Motions with the same `group` are shown together, to be compared.
    """

    joints: NDArray[np.floating[Any]]
    title: str
    notes: dict[str, str] = field(default_factory=dict)
    fps: float = 30.0
    color: str | None = None
    contacts: NDArray[np.bool_] | None = None
    files: dict[str, str] = field(default_factory=dict)
    group: str | None = None


def write_viewer(path: str | os.PathLike[str], clips: Sequence[ViewerClip], *, title: str) -> None:
    """Write the page that plays `clips`, atomically."""
    write_text(path, viewer_html(clips, title=title))


def viewer_html(clips: Sequence[ViewerClip], *, title: str) -> str:
    """The page that plays `clips`, as ASCII text."""
    before, after = viewer_frame(title)
    return before + script_json(viewer_motions(clips, title=title)) + after


def viewer_motions(clips: Sequence[ViewerClip], *, title: str) -> dict[str, Any]:
    """What stands in a page as JSON; a page of one's own may hold several, and one `viewer_frame`."""
    if not clips:
        raise ValueError("a viewer page needs at least one clip, got none")
    return {"title": _readable(title), "clips": [_packed(clip, number) for number, clip in enumerate(clips, start=1)]}


def viewer_frame(title: str) -> tuple[str, str]:
    """The page before and after the JSON of its motions."""
    before, _, after = viewer_asset("viewer_page.html").partition("{{motions}}")
    parts = {
        "title": _escaped(_readable(title)),
        "style": viewer_asset("viewer.css"),
        "stage": viewer_asset("viewer_stage.html"),
        "script": viewer_asset("viewer.bundle.js"),
    }
    # One pass each: a title that contains a placeholder stays a title.
    filled = [re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], side) for side in (before, after)]
    return filled[0], filled[1]


def script_json(value: Any) -> str:
    """JSON that no text in it can turn into the end of its script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _packed(clip: ViewerClip, number: int) -> dict[str, Any]:
    """What the page's clip.js reads."""
    joints = _checked(clip, number)
    pelvis = joints[:, 0].astype("<f4")
    # Seen from the pelvis as the page will have it, so that its rounding does not add to that of the steps.
    offsets = joints[:, 1:] - pelvis[:, None].astype(np.float64)
    low = offsets.min(axis=(0, 1))
    step = (offsets.max(axis=(0, 1)) - low) / _STEPS
    steps = np.rint((offsets - low) / np.where(step > 0, step, 1.0)).astype("<u2")
    return {
        "title": _readable(clip.title),
        "notes": {_readable(name): _readable(value) for name, value in clip.notes.items()},
        "fps": float(clip.fps),
        "frames": len(joints),
        "color": clip.color,
        **_extras(clip, len(joints), number),
        "path": _base64(pelvis),
        "pose": _base64(steps),
        "low": low.tolist(),
        "step": step.tolist(),
    }


def _extras(clip: ViewerClip, frames: int, number: int) -> dict[str, Any]:
    """What not every clip has."""
    extras: dict[str, Any] = {}
    if clip.contacts is not None:
        standing = np.asarray(clip.contacts, dtype=bool)
        if standing.shape != (frames, 4):
            raise ValueError(f"clip {number}: contacts must have shape ({frames}, 4), got {standing.shape}")
        extras["contacts"] = _base64((standing * np.array([1, 2, 4, 8])).sum(axis=1).astype(np.uint8))
    if clip.files:
        extras["files"] = {_readable(name): _readable(file) for name, file in clip.files.items()}
    if clip.group is not None:
        extras["group"] = _readable(clip.group)
    return extras


def _checked(clip: ViewerClip, number: int) -> NDArray[np.float64]:
    joints = np.asarray(clip.joints)
    name = f"clip {number} ({_shortened(clip.title)!r})"
    if joints.ndim != 3 or joints.shape[1:] != (N_JOINTS, 3) or len(joints) < 1:
        raise ValueError(f"{name}: joints must have shape (T, {N_JOINTS}, 3) with T >= 1, got {joints.shape}")
    if not np.issubdtype(joints.dtype, np.floating):
        raise ValueError(f"{name}: joints must be floating-point metres, got {joints.dtype}")
    if not np.isfinite(joints).all():
        frame = int(np.argmin(np.isfinite(joints).all(axis=(1, 2))))
        raise ValueError(f"{name}: joints must be finite, got NaN or infinity first in frame {frame}")
    if not (math.isfinite(clip.fps) and clip.fps > 0):
        raise ValueError(f"{name}: fps must be above 0, got {clip.fps}")
    if clip.color is not None and not re.fullmatch(r"#[0-9a-fA-F]{6}", clip.color):
        raise ValueError(f'{name}: color must look like "#1d9a7b", got {clip.color!r}')
    return joints.astype(np.float64)


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _readable(text: str) -> str:
    """`text` with "\ufffd" for halves of characters, which browsers choke on; arguments not in UTF-8 have some."""
    return str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _escaped(text: str) -> str:
    return html.escape(text).encode("ascii", "xmlcharrefreplace").decode("ascii")


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


@cache
def viewer_asset(name: str) -> str:
    """A file of the viewer, for pages that show it: viewer_stage.html, viewer.css or viewer.bundle.js."""
    return (_HERE / "assets" / name).read_text(encoding="utf-8")


def clips_of(motions: Sequence[BodyMotion], titles: Sequence[str]) -> list[ViewerClip]:
    """The clips of a page that shows `motions`."""
    return [clip_of(motion, title) for motion, title in zip(motions, titles, strict=True)]


def clip_of(motion: BodyMotion, title: str, notes: dict[str, str] | None = None, **more: Any) -> ViewerClip:
    """The clip of a motion, with the feet that stand; `more` are other fields of `ViewerClip`."""
    standing = contacts(motion.joints, motion.body, fps=motion.fps) > 0.5
    return ViewerClip(motion.joints, title, notes or {}, motion.fps, contacts=standing, **more)
