"""Pictures of the mannequin on a ground plane, drawn in software: no OpenGL, no display.

Faces are sorted by depth and filled, lit from the front left as on the page. The figure is drawn at twice its size
and shrunk, which smooths its edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.extras import need
from hftrainer.motion.body import BodyMotion
from hftrainer.motion.mannequin import COLORS, mannequin
from hftrainer.motion.skeleton import CHAINS

Float = NDArray[np.floating[Any]]

_FINE = 2  # the figure is drawn larger, shrunk afterwards
_SKY, _GROUND, _LINE, _TRAIL = (245, 246, 248), (230, 233, 238), (208, 212, 220), (122, 104, 216)
_LIGHT = np.array([0.45, 0.75, 0.5]) / np.linalg.norm([0.45, 0.75, 0.5])
_SHADOW_WIDTHS = (0.075, 0.075, 0.16, 0.055, 0.055)  # metres, one a chain
_NEAR = 0.3


@dataclass(frozen=True)
class Camera:
    """Looks at `target` (3,) from `distance` metres, turned by `azimuth` and raised by `elevation` (radians)."""

    target: Float
    distance: float
    size: tuple[int, int]
    azimuth: float = 0.55
    elevation: float = 0.16
    focal: float = 2.4  # half the picture's height, in distances of one metre

    @property
    def axes(self) -> tuple[Float, Float, Float]:
        """Right, up, and from the target to the camera."""
        ca, sa, ce, se = np.cos(self.azimuth), np.sin(self.azimuth), np.cos(self.elevation), np.sin(self.elevation)
        return np.array([ca, 0.0, -sa]), np.array([-sa * se, ce, -ca * se]), np.array([sa * ce, se, ca * ce])

    def project(self, points: Float) -> tuple[Float, Float]:
        """Pixels (..., 2) and depths (...) of points (..., 3)."""
        right, up, back = self.axes
        moved = points - self.target
        depth = np.maximum(self.distance - moved @ back, _NEAR)
        scale = self.focal * self.size[1] / 2 / depth
        width, height = self.size
        return np.stack([width / 2 + (moved @ right) * scale, height / 2 - (moved @ up) * scale], axis=-1), depth


class Figure:
    """One motion, ready to be drawn frame by frame into a picture of `size` (width, height) pixels."""

    def __init__(self, motion: BodyMotion, size: tuple[int, int], *, transparent: bool = False):
        self.motion, self.size, self.transparent = motion, size, transparent
        self.figure = mannequin(motion.body)
        quads = [_quads(self.figure.faces[name]) for name in COLORS]
        self.faces = np.concatenate(quads)
        shades = [int(color[k : k + 2], 16) for color in COLORS.values() for k in (1, 3, 5)]
        counts = [len(part) for part in quads]
        self.colors = np.repeat(np.array(shades, dtype=np.float64).reshape(-1, 3), counts, axis=0)
        self.path = _smoothed(motion.root)
        self.tall = float(motion.body.rest_joints[15, 1] + 0.2 * motion.body.leg / 0.81)
        self.image, self.draw = need("PIL.Image", "drawing"), need("PIL.ImageDraw", "drawing")

    def picture(self, frame: int) -> Any:
        """The picture of a frame: a PIL image, RGBA if it is transparent."""
        target = np.array([self.path[frame, 0], 0.5 * self.tall, self.path[frame, 2]])
        width, height = self.size
        fit = max(1.0, 0.62 * height / width)  # narrow pictures are looked at from farther away
        camera = Camera(target, distance=2.0 * self.tall * fit, size=self.size)
        canvas = self.image.new("RGBA", self.size, (0, 0, 0, 0) if self.transparent else (*_SKY, 255))
        draw = self.draw.Draw(canvas)
        if not self.transparent:
            self._ground(draw, camera, frame)
        self._shadow(canvas, camera, frame)
        self._body(canvas, camera, frame)
        return canvas

    def _ground(self, draw: Any, camera: Camera, frame: int) -> None:
        width, height = self.size
        middle = np.round(camera.target * [1.0, 0.0, 1.0])
        back = camera.axes[2]
        flat = back * [1.0, 0.0, 1.0]
        far = camera.project(camera.target - flat * 1e4 - [0.0, camera.target[1], 0.0])[0]
        draw.rectangle([0, max(0.0, float(far[1])), width, height], fill=_GROUND)
        reach = np.arange(-7, 8.0)
        for offset in reach:
            for line in ([[offset, 0, -7], [offset, 0, 7]], [[-7, 0, offset], [7, 0, offset]]):
                points = middle + np.linspace(line[0], line[1], 29)
                pixels, depth = camera.project(points)
                seen = depth > _NEAR
                runs = [tuple(pixel) for pixel, here in zip(pixels, seen, strict=True) if here]
                if len(runs) > 1:
                    draw.line(runs, fill=_LINE, width=max(1, height // 480))
        trail = self.path[: frame + 1 : 2] * [1.0, 0.0, 1.0]
        if len(trail) > 1:
            pixels, _ = camera.project(trail)
            draw.line([tuple(pixel) for pixel in pixels], fill=_TRAIL, width=max(2, height // 300), joint="curve")

    def _shadow(self, canvas: Any, camera: Camera, frame: int) -> None:
        joints = self.motion.joints[frame]
        flat = joints - _LIGHT * (joints[:, 1:2] / _LIGHT[1])
        flat[:, 1] = 0.0
        pixels, depth = camera.project(flat)
        pixels = pixels / 2  # drawn small and enlarged, which makes it soft
        shade = self.image.new("L", (self.size[0] // 2, self.size[1] // 2), 0)
        draw = self.draw.Draw(shade)
        scale = camera.focal * self.size[1] / 4
        for chain, width in zip(CHAINS, _SHADOW_WIDTHS, strict=True):
            for a, b in pairwise(chain):
                thick = max(1, round(width * 1.3 * scale / float(depth[a])))
                draw.line([tuple(pixels[a]), tuple(pixels[b])], fill=70, width=thick)
                x, y = pixels[b]
                draw.ellipse([x - thick / 2, y - thick / 3, x + thick / 2, y + thick / 3], fill=70)
        box = shade.getbbox()
        if box is not None:
            low, high = (2 * box[0], 2 * box[1]), (2 * box[2], 2 * box[3])
            soft = shade.crop(box).resize((high[0] - low[0], high[1] - low[1]), self.image.Resampling.BICUBIC)
            canvas.paste((60, 66, 80, 255), (*low, *high), soft)

    def _body(self, canvas: Any, camera: Camera, frame: int) -> None:
        part = slice(frame, frame + 1)
        points = self.figure.posed(self.motion.rotations[part], self.motion.root[part])[0]
        pixels, depth = camera.project(points)
        a, b, c, d = (pixels[self.faces[:, k]] for k in range(4))
        front = (c[:, 0] - a[:, 0]) * (d[:, 1] - b[:, 1]) - (c[:, 1] - a[:, 1]) * (d[:, 0] - b[:, 0]) < 0
        faces = self.faces[front]
        order = np.argsort(-depth[faces].mean(axis=1))
        faces = faces[order]
        corners = points[faces]
        across = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
        light = 0.58 + 0.5 * np.clip(across @ _LIGHT, -0.35, 1.0)
        shaded = np.clip(self.colors[front][order] * light[:, None], 0, 255).astype(int).tolist()
        low = np.maximum(np.floor(pixels.min(axis=0)) - 2, 0).astype(int)
        high = np.minimum(np.ceil(pixels.max(axis=0)) + 3, self.size).astype(int)
        if (high <= low).any():
            return
        wide = tuple((high - low) * _FINE)
        layer = self.image.new("RGBA", wide, (0, 0, 0, 0))
        draw = self.draw.Draw(layer)
        drawn = ((pixels[faces] - low) * _FINE).reshape(len(faces), 8).tolist()
        for corners_, color in zip(drawn, shaded, strict=True):
            draw.polygon(corners_, fill=(*color, 255))
        layer = layer.resize(tuple(high - low), self.image.Resampling.BOX)
        canvas.alpha_composite(layer, tuple(low))


def _quads(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Faces (N, 4): pairs of triangles that were a quadrilateral as one, others with their last corner twice."""
    first, second = faces[:-1], faces[1:]
    pair = (first[:, 0] == second[:, 0]) & (first[:, 2] == second[:, 1])
    for i in np.flatnonzero(pair):  # a triangle belongs to one pair
        if i and pair[i - 1]:
            pair[i] = False
    starts = np.flatnonzero(pair)
    single = np.setdiff1d(np.arange(len(faces)), np.concatenate([starts, starts + 1]))
    joined = np.concatenate([faces[starts], faces[starts + 1, 2:]], axis=1)
    return np.concatenate([joined, faces[single][:, [0, 1, 2, 2]]])


def _smoothed(path: Float, window: int = 31) -> Float:
    """The path that the camera follows: a moving average, so that the picture does not bob with the steps."""
    half = min(window, len(path)) // 2
    if half == 0:
        return path
    padded = np.concatenate([np.repeat(path[:1], half, 0), path, np.repeat(path[-1:], half, 0)])
    kernel = np.ones(2 * half + 1) / (2 * half + 1)
    return np.stack([np.convolve(padded[:, i], kernel, mode="valid") for i in range(3)], axis=1)
