"""A motion as an mp4 of a stick figure on a ground plane, drawn in software and encoded without a system ffmpeg.

The picture is drawn at twice its size and shrunk, which smooths every edge; nothing here needs OpenGL or a display.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.extras import need
from hftrainer.files import atomic_path
from hftrainer.motion.array import expect_shape
from hftrainer.motion.skeleton import CHAINS

Float = NDArray[np.floating[Any]]

_SCALE = 2  # drawn larger, shrunk afterwards
_SKY, _GROUND, _GRID, _SHADOW, _INK = (
    (245, 246, 248),
    (228, 231, 236),
    (206, 210, 218),
    (196, 200, 208),
    (44, 48, 56),
)
_RIGHT, _LEFT, _SPINE = (214, 84, 66), (52, 112, 196), (64, 68, 78)
_COLORS = (_RIGHT, _LEFT, _SPINE, _RIGHT, _LEFT)
_WIDTHS = (0.055, 0.055, 0.075, 0.045, 0.045)  # metres, one a chain
_HEAD = 0.105


@dataclass(frozen=True)
class Camera:
    """Looks at `target` (3,) from `distance` metres, turned by `azimuth` and raised by `elevation` (radians)."""

    target: Float
    distance: float
    azimuth: float = 0.6
    elevation: float = 0.2
    focal: float = 1.9

    def project(self, points: Float, size: int) -> tuple[Float, Float]:
        """Pixels (..., 2) and depths (...) of points (..., 3) in a square picture of `size` pixels."""
        ca, sa, ce, se = np.cos(self.azimuth), np.sin(self.azimuth), np.cos(self.elevation), np.sin(self.elevation)
        back = np.array([sa * ce, se, ca * ce])
        right, up = np.array([ca, 0.0, -sa]), np.array([-sa * se, ce, -ca * se])
        moved = points - self.target
        depth = np.maximum(self.distance - moved @ back, 0.2)
        scale = self.focal * size / 2 / depth
        x, y = size / 2 + (moved @ right) * scale, size / 2 - (moved @ up) * scale
        return np.stack([x, y], axis=-1), depth


def render_video(
    path: str | os.PathLike[str], joints: Float, *, title: str = "", fps: float = 30.0, size: int = 480
) -> None:
    """Write joints (T, 22, 3), metres, Y up, as an H.264 mp4 of `size` x `size` pixels, atomically."""
    ffmpeg = need("imageio_ffmpeg", "writing mp4 files")
    with atomic_path(path) as temporary:
        writer = ffmpeg.write_frames(
            str(temporary), (size, size), fps=fps, codec="libx264", quality=None, macro_block_size=2,
            output_params=["-crf", "23", "-preset", "veryfast", "-movflags", "+faststart", "-threads", "1"],
        )  # fmt: skip
        writer.send(None)
        try:
            for frame in frames(joints, title=title, fps=fps, size=size):
                writer.send(np.ascontiguousarray(frame))
        finally:
            writer.close()


def frames(joints: Float, *, title: str = "", fps: float = 30.0, size: int = 480) -> Iterator[NDArray[np.uint8]]:
    """Pictures (size, size, 3), one a frame."""
    joints = np.asarray(joints, dtype=np.float64)
    expect_shape(joints, ("T", 22, 3), "joints")
    if not len(joints) or not np.isfinite(joints).all():
        raise ValueError("a video needs at least one frame, and finite joints")
    image, draw = need("PIL.Image", "drawing"), need("PIL.ImageDraw", "drawing")
    font = _font(need("PIL.ImageFont", "drawing"), size)
    path = _smooth(joints[:, 0])
    for index, pose in enumerate(joints):
        target = np.array([path[index, 0], 0.9, path[index, 2]])
        camera = Camera(target, distance=3.5)
        canvas = image.new("RGB", (size * _SCALE, size * _SCALE), _SKY)
        _draw_scene(draw.Draw(canvas), camera, pose, joints[: index + 1, 0], size * _SCALE)
        canvas = canvas.resize((size, size), image.Resampling.BOX)
        _draw_text(draw.Draw(canvas), font, title, f"{index / fps:.1f} s", size)
        yield np.asarray(canvas)


def _draw_scene(draw: Any, camera: Camera, pose: Float, path: Float, size: int) -> None:
    _draw_ground(draw, camera, size)
    trail, _ = camera.project(path * [1.0, 0.0, 1.0] + [0.0, 0.002, 0.0], size)
    if len(trail) > 1:
        draw.line([tuple(p) for p in trail], fill=(150, 158, 172), width=max(1, size // 300), joint="curve")
    flat = pose * [1.0, 0.0, 1.0]
    for chain, width in zip(CHAINS, _WIDTHS, strict=True):
        _draw_limb(draw, camera, flat[list(chain)], width * 0.8, _SHADOW, size)
    _, depths = camera.project(pose, size)
    order = sorted(range(len(CHAINS)), key=lambda c: -depths[list(CHAINS[c])].mean())
    for c in order:
        _draw_limb(draw, camera, pose[list(CHAINS[c])], _WIDTHS[c], _COLORS[c], size)
    _draw_limb(draw, camera, pose[[16, 13, 9, 14, 17]], 0.06, _SPINE, size)
    _draw_limb(draw, camera, pose[[1, 0, 2]], 0.08, _SPINE, size)
    crown = pose[15] + (pose[15] - pose[12]) * 0.6
    (x, y), depth = (value[0] for value in camera.project(crown[None], size))
    r = _HEAD * camera.focal * size / 2 / depth
    draw.ellipse([x - r, y - r, x + r, y + r], fill=_SPINE)


def _draw_ground(draw: Any, camera: Camera, size: int) -> None:
    centre = np.round(camera.target * [1.0, 0.0, 1.0])
    horizon = camera.project(centre + np.array([[0.0, 0.0, -1e4]]), size)[0][0, 1]
    draw.rectangle([0, max(0.0, horizon), size, size], fill=_GROUND)
    near = 3.5
    for offset in np.arange(-near, near + 0.5, 1.0):
        for line in ([[offset, 0, -near], [offset, 0, near]], [[-near, 0, offset], [near, 0, offset]]):
            pixels, _ = camera.project(centre + np.array(line), size)
            draw.line([tuple(p) for p in pixels], fill=_GRID, width=max(1, size // 400))


def _draw_limb(draw: Any, camera: Camera, points: Float, width: float, color: tuple[int, int, int], size: int) -> None:
    pixels, depth = camera.project(points, size)
    thick = width * camera.focal * size / 2 / depth
    for a, b, w in zip(pixels[:-1], pixels[1:], (thick[:-1] + thick[1:]) / 2, strict=True):
        draw.line([tuple(a), tuple(b)], fill=color, width=max(1, round(w)))
    for (x, y), w in zip(pixels, thick, strict=True):
        draw.ellipse([x - w / 2, y - w / 2, x + w / 2, y + w / 2], fill=color)


def _draw_text(draw: Any, font: Any, title: str, clock: str, size: int) -> None:
    margin = size // 40
    lines, line = [], ""
    for word in title.split():
        longer = f"{line} {word}".strip()
        if draw.textlength(longer, font=font) > size - 2 * margin and line:
            lines.append(line)
            line = word
        else:
            line = longer
    for i, text in enumerate([*lines, line][:3]):
        draw.text((margin, margin + i * size // 24), text, fill=_INK, font=font)
    draw.text((margin, size - margin - size // 24), clock, fill=(120, 126, 138), font=font)


def _font(fonts: Any, size: int) -> Any:
    return fonts.load_default(size=max(10, size // 28))


def _smooth(path: Float, window: int = 31) -> Float:
    """The path that the camera follows: a moving average, so that the picture does not bob with the steps."""
    half = min(window, len(path)) // 2
    if half == 0:
        return path
    padded = np.concatenate([np.repeat(path[:1], half, 0), path, np.repeat(path[-1:], half, 0)])
    kernel = np.ones(2 * half + 1) / (2 * half + 1)
    return np.stack([np.convolve(padded[:, i], kernel, mode="valid") for i in range(3)], axis=1)
