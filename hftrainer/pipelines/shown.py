"""What a generated motion shows: the motion of one body that files, pictures and pages have, and ways to them."""

from __future__ import annotations

import html
import os
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.body import Body, BodyMotion
from hftrainer.motion.fit import pose
from hftrainer.readers import FileError


class Shown:
    """Mixed into `GeneratedMotion`; `motion` holds the model's own features, which nothing here changes."""

    motion: NDArray[np.float32]
    representation: str
    prompt: str
    body: Body

    def posed(self, *, raw: bool = False) -> BodyMotion:
        """The motion fitted to the model's body with its feet locked; `raw`: neither smoothed nor locked.

        Raises ``ValueError`` for a motion without frames.
        """
        if not len(self.motion):
            raise ValueError(
                f"the motion of {self.prompt!r} has no frames: the model ended immediately; try another seed"
            )
        kept: dict[bool, BodyMotion] = self.__dict__.setdefault("_posed", {})
        if raw not in kept:
            kept[raw] = pose(self.motion, self.body, representation=self.representation, raw=raw)
        return kept[raw]

    @property
    def joints(self) -> NDArray[np.float64]:
        """World joint positions (T, 22, 3) of the fitted motion, metres, Y up."""
        return self.posed().joints

    @property
    def rotations(self) -> NDArray[np.float64]:
        """Local rotations (T, 22, 3, 3) of the fitted motion, joint 0 in the world."""
        return self.posed().rotations

    def save(self, path: str | os.PathLike[str], *, raw: bool = False, **options: Any) -> None:
        """Write the motion in the format of the ending of `path`; `options` are those of `ExportOptions`.

        Endings: .npy (the model's own features), .npz, .amass.npz, .bvh, .glb, .vrma, .csv, .usda, .mp4, .gif, .webp,
        .html.
        """
        from hftrainer.render.export import ExportOptions, check_formats, format_of, write, write_features

        if Path(path).suffix.lower() == ".npy":
            if options or raw:
                raise FileError(f"{path}: .npy holds the model's own features, which options cannot change")
            write_features(path, self.motion)
            return
        kind = format_of(path)
        chosen = ExportOptions(**options)
        check_formats((kind,), chosen)
        write(path, [chosen.apply(self.posed(raw=raw), raw=raw)], chosen, titles=[self.prompt], kind=kind, raw=raw)

    def page(self) -> str:
        """The HTML page that plays the motion."""
        from hftrainer.render.viewer import clips_of, viewer_html

        return viewer_html(clips_of([self.posed()], [self.prompt]), title=self.prompt)

    def show(self, *, height: int = 480) -> Any:
        """The page in a notebook's output; outside a notebook, in the browser."""
        try:
            from IPython import get_ipython
            from IPython.display import HTML
        except ImportError:
            get_ipython, HTML = None, None
        if get_ipython is not None and get_ipython() is not None:
            return HTML(self._repr_html_(height=height))
        with tempfile.NamedTemporaryFile("w", suffix=".html", delete=False, encoding="utf-8") as stream:
            stream.write(self.page())
        webbrowser.open(Path(stream.name).as_uri())
        return None

    def _repr_html_(self, *, height: int = 480) -> str:
        """What a notebook shows of it."""
        return (
            f'<iframe srcdoc="{html.escape(self.page(), quote=True)}" style="width:100%;height:{height}px;border:0" '
            f'title="{html.escape(self.prompt, quote=True)}"></iframe>'
        )
