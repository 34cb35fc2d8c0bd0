"""The web page of `hftrainer serve`: plain HTML, CSS and ES modules, served as they are.

The figures are drawn by the viewer of the offline page (hftrainer/render/viewer.py): its elements are put into
`index.html`, its style and its program are served beside this folder's files. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hftrainer.render.viewer import viewer_asset

# Sent with every file here: only files of this server, no inline script or style, no HTML made from strings, no frames.
HEADERS = {
    "Content-Security-Policy": "; ".join([
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:",
        "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        "require-trusted-types-for 'script'", "trusted-types 'none'",
    ]),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}  # fmt: skip

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_VIEWER = ("viewer.css", "viewer.bundle.js")


@dataclass(frozen=True)
class PageFile:
    """What a browser gets: `etag` changes with the content."""

    body: bytes
    media_type: str
    etag: str


def page_file(name: str) -> PageFile | None:
    """The file of that name, or None. Names are looked up in the list of files, so none leads out of it."""
    return _files().get(name)


@cache
def _files() -> dict[str, PageFile]:
    here = {
        path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parent.iterdir() if path.suffix in _TYPES
    }
    texts = here | {name: viewer_asset(name) for name in _VIEWER}
    texts["index.html"] = texts["index.html"].replace("{{stage}}", viewer_asset("viewer_stage.html"))
    return {name: _file(name, text.encode("utf-8")) for name, text in texts.items()}


def _file(name: str, body: bytes) -> PageFile:
    kind = _TYPES[Path(name).suffix]
    return PageFile(body, f"{kind}; charset=utf-8", f'"{hashlib.sha256(body).hexdigest()[:20]}"')
