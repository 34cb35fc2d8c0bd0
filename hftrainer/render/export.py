"""One motion into any file: what `hftrainer export`, ``GeneratedMotion.save`` and every generated file go through."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.extras import check
from hftrainer.files import atomic_path
from hftrainer.motion.animation import animate
from hftrainer.motion.body import BodyMotion
from hftrainer.motion.edit import Loop, in_place, loop, resample
from hftrainer.motion.io.bvh_write import write_bvh
from hftrainer.motion.io.glb import save_glb, save_vrma
from hftrainer.motion.io.npz import write_amass, write_npz
from hftrainer.motion.io.table import write_csv
from hftrainer.motion.io.usd import write_usd
from hftrainer.motion.rigs import find_rig, onto_rig
from hftrainer.readers import FileError

# Names of formats, and the endings of their files. "amass" is an .npz, too: "walk.amass.npz".
ENDINGS = {
    "npz": ".npz", "amass": ".amass.npz", "bvh": ".bvh", "glb": ".glb", "vrma": ".vrma", "csv": ".csv", "usd": ".usda",
    "mp4": ".mp4", "gif": ".gif", "webp": ".webp", "html": ".html",
}  # fmt: skip
UNITS = {"m": 1.0, "cm": 100.0, "mm": 1000.0, "inch": 1 / 0.0254}
_SEVERAL = ("glb", "html", "mp4", "gif", "webp")  # one file can hold several motions
_NEEDS = {"mp4": ("imageio_ffmpeg", "PIL"), "gif": ("PIL",), "webp": ("PIL",), "usd": ("pxr",)}


@dataclass(frozen=True)
class ExportOptions:
    """How motions are written. Raises ``ValueError`` for what does not exist.

    `skeleton`: a rig's name; `fps`: None keeps the motion's; `unit` of lengths in BVH and GLB (None: centimetres and
    metres, which these formats are read as); `up`: "y", or "z" for BVH; `in_place`, `root_motion` (a root bone carries
    the path), `loop`; `transparent` pictures.
    """

    skeleton: str = "model"
    fps: float | None = None
    unit: str | None = None
    up: str = "y"
    in_place: bool = False
    root_motion: bool = False
    loop: bool = False
    transparent: bool = False

    def __post_init__(self) -> None:
        find_rig(self.skeleton)
        for name in ("in_place", "root_motion", "loop", "transparent"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.fps is not None and (isinstance(self.fps, bool) or not isinstance(self.fps, Real)):
            raise TypeError(f"fps must be a number, got {self.fps!r}")
        if self.unit is not None and self.unit not in UNITS:
            raise ValueError(f"there is no unit {self.unit!r}; choose one of {', '.join(UNITS)}")
        if self.up not in ("y", "z"):
            raise ValueError(f"up is 'y' or 'z', got {self.up!r}")
        if self.fps is not None and not 1 <= self.fps <= 480:
            raise ValueError(f"a frame rate must lie between 1 and 480, got {self.fps:g}")
        if self.in_place and self.root_motion:
            raise ValueError("in_place removes the path that root_motion needs; choose one of them")

    def apply(self, motion: BodyMotion, *, raw: bool = False) -> BodyMotion:
        """The motion that all files of one export show; `raw`: feet that these options move are not locked again."""
        if self.loop:
            return self.looped(motion, raw=raw).motion
        placed = self._placed(motion, lock=not raw)
        return in_place(placed) if self.in_place else placed

    def looped(self, motion: BodyMotion, *, raw: bool = False) -> Loop:
        """The loop that the files show, its seam measured on the final body and at the final frame rate."""
        return loop(self._placed(motion, lock=False), lock=not raw, on_the_spot=self.in_place)

    def _placed(self, motion: BodyMotion, *, lock: bool) -> BodyMotion:
        """On the rig's body and at the frame rate: before the path is removed, as feet are locked to the floor."""
        motion = onto_rig(motion, find_rig(self.skeleton), lock=lock)
        return resample(motion, self.fps) if self.fps is not None else motion


def check_formats(names: Sequence[str], options: ExportOptions | None = None) -> None:
    """Raise before any work if a format is unknown, needs what is not installed, or cannot have the options."""
    known = ("npy", *ENDINGS)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"unknown formats {unknown}; known: {', '.join(known)}")
    for name in names:
        for module in _NEEDS.get(name, ()):
            check(module, f"writing {name} files")
    if options is None:
        return
    if options.up == "z" and "bvh" not in names:
        raise ValueError("only BVH files can have Z up; other formats define their up axis")
    if not {"bvh", "glb"} & set(names):
        if options.unit is not None:
            raise ValueError(f"only BVH and GLB files can have another unit; {', '.join(names)} cannot")
        if options.root_motion:
            raise ValueError(f"only BVH and GLB files can have root motion; {', '.join(names)} cannot")


def format_of(path: str | os.PathLike[str]) -> str:
    """The format of a file by its ending; ``ValueError`` lists those that can be written."""
    name = Path(path).name.lower()
    for kind, ending in sorted(ENDINGS.items(), key=lambda item: -len(item[1])):
        if name.endswith(ending) or (kind == "usd" and name.endswith((".usd", ".usdc"))):
            return kind
    raise FileError(f"{path}: cannot write {Path(path).suffix or 'a file without a suffix'}; endings are "
                     f"{', '.join(ENDINGS.values())}")  # fmt: skip


def write(
    path: str | os.PathLike[str],
    motions: Sequence[BodyMotion],
    options: ExportOptions,
    *,
    titles: Sequence[str],
    kind: str | None = None,
    raw: bool = False,
) -> None:
    """Write motions that `options` were applied to; several only where a file can hold several.

    Feet are locked again for formats with a body of their own, but not if the motion is `raw`, in place or a loop: feet
    in place slide over the floor, and locking one round opens the seam.
    """
    kind = kind or format_of(path)
    lock = not (raw or options.in_place or options.loop)
    if len(motions) != 1 and kind not in _SEVERAL:
        raise FileError(f"{path}: a {kind} file holds one motion, got {len(motions)}; glb, html and mp4 hold several")
    motion = motions[0]
    if kind == "bvh":
        animation = animate(motion, options.skeleton, root_motion=options.root_motion, moving_root=True)
        write_bvh(path, animation, scale=UNITS[options.unit or "cm"], up=options.up)
    elif kind == "glb":
        scale = UNITS[options.unit or "m"]
        save_glb(path, motions, titles=titles, rig=options.skeleton, root_motion=options.root_motion, scale=scale)
    elif kind == "html":
        from hftrainer.render.viewer import clips_of, write_viewer

        write_viewer(path, clips_of(motions, titles), title=titles[0] if len(titles) == 1 else f"{len(titles)} motions")
    elif kind in ("mp4", "gif", "webp"):
        from hftrainer.render.video import render_video

        render_video(path, motions, titles=titles, transparent=options.transparent)
    elif kind == "vrma":
        save_vrma(path, motion, title=titles[0], lock=lock)
    elif kind == "amass":
        write_amass(path, motion, lock=lock)
    else:
        {"npz": write_npz, "csv": write_csv, "usd": write_usd}[kind](path, motion)


def write_features(path: str | os.PathLike[str], features: NDArray[np.floating[Any]]) -> None:
    """Write a model's own features (T, width) as float32 .npy, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, features.astype(np.float32))


def describe_loop(found: Loop) -> str:
    """One line that says how well a loop closes."""
    return (
        f"loop of frames {found.first} to {found.last} at {found.motion.fps:g} fps: "
        f"gap {1000 * found.position_gap:.2g} mm, velocity step "
        f"{found.velocity_step:.2g} m/s (inside {found.usual_step:.2g})"
    )
