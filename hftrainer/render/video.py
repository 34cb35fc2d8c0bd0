"""Motions as mp4, GIF or WebP: the page's mannequin, one motion or several side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.extras import need
from hftrainer.files import atomic_path
from hftrainer.motion.body import BodyMotion
from hftrainer.readers import FileError
from hftrainer.render.fonts import font_for
from hftrainer.render.scene import Figure

SIZE = (1280, 720)
_INK, _SOFT = (44, 48, 56, 255), (120, 126, 138, 255)
_MOST = 6  # motions side by side
_GIF_FPS = 15.0


def render_video(
    path: str | os.PathLike[str],
    motions: BodyMotion | Sequence[BodyMotion],
    *,
    titles: str | Sequence[str] = "",
    size: tuple[int, int] = SIZE,
    transparent: bool = False,
) -> None:
    """Write motions side by side as .mp4 (H.264), .gif or .webp, by the suffix of `path`, atomically.

    A shorter motion holds its last frame. `transparent`: no ground and no sky, for .webp and .gif.
    """
    motions = [motions] if isinstance(motions, BodyMotion) else list(motions)
    titles = [titles] if isinstance(titles, str) else list(titles)
    suffix = Path(path).suffix.lower()
    if transparent and suffix == ".mp4":
        raise FileError(f"{path}: an mp4 cannot be transparent; write .webp or .gif")
    pictures = frames(motions, titles=titles, size=size, transparent=transparent)
    fps = motions[0].fps
    with atomic_path(path) as temporary:
        if suffix == ".mp4":
            _write_mp4(temporary, path, pictures, size, fps)
            if not _is_whole(temporary):  # ffmpeg failed, or was killed, at its end, which its module does not say
                raise OSError(f"{path}: ffmpeg could not write all of the video")
        elif suffix in (".gif", ".webp"):
            _write_animation(temporary, pictures, fps, suffix, transparent)
        else:
            raise FileError(f"{path}: a video is .mp4, .gif or .webp")


def frames(
    motions: Sequence[BodyMotion],
    *,
    titles: Sequence[str] = ("",),
    size: tuple[int, int] = SIZE,
    transparent: bool = False,
) -> Iterator[Any]:
    """PIL pictures, one a frame, until the longest motion ends. Raises at once for what cannot be drawn."""
    if not 1 <= len(motions) <= _MOST:
        raise ValueError(f"a video shows 1 to {_MOST} motions side by side, got {len(motions)}")
    if len({motion.fps for motion in motions}) > 1:
        raise ValueError("motions side by side need one frame rate")
    if len(titles) != len(motions):
        raise ValueError(f"got {len(titles)} titles for {len(motions)} motions")
    return _drawn(motions, titles, size, transparent)


def _drawn(
    motions: Sequence[BodyMotion], titles: Sequence[str], size: tuple[int, int], transparent: bool
) -> Iterator[Any]:
    image, draw = need("PIL.Image", "drawing"), need("PIL.ImageDraw", "drawing")
    width, height = size[0] // len(motions), size[1]
    figures = [Figure(motion, (width, height), transparent=transparent) for motion in motions]
    texts = [_Title(title, width, height) for title in titles]
    for frame in range(max(len(motion) for motion in motions)):
        canvas = image.new("RGBA", size, (0, 0, 0, 0) if transparent else (245, 246, 248, 255))
        for number, (figure, text) in enumerate(zip(figures, texts, strict=True)):
            last = min(frame, len(figure.motion) - 1)
            picture = figure.picture(last)
            text.put(draw.Draw(picture), f"{last / figure.motion.fps:.1f} s")
            canvas.paste(picture, (number * width, 0))
        yield canvas


class _Title:
    """A prompt broken into lines; without a font that has its letters, nothing: the page has the text."""

    def __init__(self, text: str, width: int, height: int):
        self.margin, self.step, self.height = height // 36, height // 24, height
        self.font = font_for(text, max(11, height // 30)) if text.strip() else None
        self.small = font_for("0", max(10, height // 36))
        self.lines = self._broken(text, width - 2 * self.margin)[:3] if self.font is not None else []

    def put(self, draw: Any, clock: str) -> None:
        for i, line in enumerate(self.lines):
            draw.text((self.margin, self.margin + i * self.step), line, fill=_INK, font=self.font)
        draw.text((self.margin, self.height - self.margin - self.step), clock, fill=_SOFT, font=self.small)

    def _broken(self, text: str, width: int) -> list[str]:
        assert self.font is not None
        words = text.split() if " " in text.strip() else list(text)  # scripts without spaces break anywhere
        glue = " " if " " in text.strip() else ""
        lines, line = [], ""
        for word in words:
            longer = f"{line}{glue}{word}" if line else word
            if line and self.font.getlength(longer) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        return [*lines, line]


def _write_mp4(
    path: Path, target: str | os.PathLike[str], pictures: Iterator[Any], size: tuple[int, int], fps: float
) -> None:
    ffmpeg = need("imageio_ffmpeg", "writing mp4 files")
    # Else it starts ffmpeg by fork with a function to call, at which OpenBLAS ends its threads: a numpy.linalg.solve in
    # another thread then waits for them for ever. This way the child shares memory until it is ffmpeg (vfork).
    os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")
    writer = ffmpeg.write_frames(
        str(path), size, fps=fps, codec="libx264", quality=None, macro_block_size=2,
        output_params=["-crf", "21", "-preset", "veryfast", "-movflags", "+faststart", "-threads", "1"],
    )  # fmt: skip
    writer.send(None)
    try:
        for picture in pictures:
            writer.send(_bytes(picture))
    except OSError as error:  # of the module, with ffmpeg's command and all that it said, on many lines
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise OSError(f"{target}: ffmpeg could not write the video: {said[-1] if said else 'it ended'}") from error
    finally:
        writer.close()


def _is_whole(path: Path) -> bool:
    """Whether an mp4 file has its index and is as long as its parts say."""
    found, size = set[bytes](), path.stat().st_size
    with open(path, "rb") as stream:
        place = 0
        while place + 8 <= size:
            stream.seek(place)
            length, kind = int.from_bytes(stream.read(4), "big"), stream.read(4)
            if length == 1:  # a long one
                length = int.from_bytes(stream.read(8), "big")
            if length < 8:
                return False
            found.add(kind)
            place += length
    return place == size and found >= {b"moov", b"mdat"}


def _bytes(picture: Any) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(picture.convert("RGB")))


def _write_animation(path: Path, pictures: Iterator[Any], fps: float, suffix: str, transparent: bool) -> None:
    every = max(1, round(fps / _GIF_FPS)) if suffix == ".gif" else 1
    kept = [picture if transparent else picture.convert("RGB") for i, picture in enumerate(pictures) if i % every == 0]
    milliseconds = round(1000 * every / fps)
    options: dict[str, Any] = {"lossless": False, "quality": 80, "method": 2} if suffix == ".webp" else {"disposal": 2}
    kept[0].save(path, save_all=True, append_images=kept[1:], duration=milliseconds, loop=0, **options)
