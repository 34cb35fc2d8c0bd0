"""A hook of mkdocs: what pages link to outside of docs/ becomes part of the site, below repository/.

On a git server ``../configs/gotozero/README.md`` leads to that file. The site holds only docs/, so the hook adds each
linked file (and what that links to, if it is Markdown), and points the link at it. Links to the README lead to the
site's start, links to a folder to its README.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "repository/"
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.M | re.S)
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#\s])")


def on_files(files: Any, *, config: Any, **_: Any) -> Any:
    """Add the files outside of docs/ that pages lead to, and those that the navigation names."""
    todo = [place for place in re.findall(rf"{PREFIX}([\w./-]+)", str(config.nav))]
    todo += [
        target
        for page in files.documentation_pages()
        for target in targets(f"docs/{page.src_uri}", page.content_string)
    ]
    seen: set[str] = set()
    while todo:
        place = todo.pop()
        if place in seen or place.startswith("docs/") or place == "README.md":
            continue
        seen.add(place)
        if not (ROOT / place).is_file():
            continue  # mkdocs reports the link
        file = File.generated(config, site_path(place), abs_src_path=str(ROOT / place))
        files.append(file)
        if place.endswith(".md"):
            todo += targets(place, file.content_string)
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Point links at where the files are on the site."""
    place = repository_path(page.file.src_uri)
    folder = posixpath.dirname(page.file.src_uri)

    def changed(match: re.Match[str]) -> str:
        target = resolved(place, match[1])
        return match[1] if target is None else posixpath.relpath(site_path(target), folder or ".")

    return outside_code(markdown, lambda text: LINK.sub(changed, text))


def targets(place: str, markdown: str) -> list[str]:
    """Files of the repository that a page links to; `place`: its own path there."""
    found = [resolved(place, link) for link in LINK.findall(FENCE.sub("", markdown))]
    return [target for target in found if target is not None]


def resolved(place: str, link: str) -> str | None:
    """The path in the repository of what `place` links to; None for what does not lead there."""
    if link.startswith("/"):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
    if path.startswith(".."):
        return None
    return f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path


def site_path(place: str) -> str:
    """Where a file of the repository is on the site."""
    if place == "README.md":
        return "index.md"
    return place.removeprefix("docs/") if place.startswith("docs/") else PREFIX + place


def repository_path(src_uri: str) -> str:
    """Where a file of the site is in the repository."""
    return src_uri.removeprefix(PREFIX) if src_uri.startswith(PREFIX) else f"docs/{src_uri}"


def outside_code(markdown: str, change: Any) -> str:
    """Apply `change` to the text between blocks of code."""
    out, end = [], 0
    for block in FENCE.finditer(markdown):
        out += [change(markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*out, change(markdown[end:])])
