"""Motion files into other files: what ``hftrainer export`` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hftrainer.motion.body import Body, BodyMotion
from hftrainer.motion.io.read_body import read_motions
from hftrainer.pipelines.folder import PAGE, existing
from hftrainer.readers import FileError
from hftrainer.render.export import ENDINGS, ExportOptions, describe_loop, write
from hftrainer.render.viewer import clips_of, write_viewer
from hftrainer.shown import visible


def export_files(
    sources: Sequence[Path],
    out: Path,
    formats: Sequence[str],
    options: ExportOptions,
    *,
    body: Body | None = None,
    skeleton_map: str | None = None,
    raw: bool = False,
    together: str | None = None,
    tell: Callable[[str], None] = print,
) -> tuple[int, dict[Path, str]]:
    """Write the motions of `sources` into the folder `out`; how many there were, and why others could not be used.

    With `together` all motions go into that one file instead. `tell` gets a line for each loop.
    """
    shown: list[tuple[str, BodyMotion]] = []
    failed: dict[Path, str] = {}
    taken = {path.resolve() for path in sources}  # no output may replace what is still to be read
    if together is not None and (out / together).resolve() in taken:
        raise ValueError(f"{out / together} is one of the motions to export; give --together another name")
    generated = _generated(out)
    page = out / (PAGE if together is None else together)
    if (together is not None or "html" in formats) and page.exists() and page.resolve() in generated:
        raise FileError(f"{page} was written by `hftrainer generate`; choose another folder with --out")
    taken |= generated
    endings = [ENDINGS[name] for name in formats if name != "html"]
    for path in sources:
        try:
            for title, motion in read_motions(path, body=body, skeleton_map=skeleton_map, raw=raw):
                if options.loop:
                    found = options.looped(motion, raw=raw)
                    tell(f"{title}: {describe_loop(found)}")
                moved = found.motion if options.loop else options.apply(motion, raw=raw)
                stem = _free(out, _stem(path) if title == path.stem else f"{_stem(path)}_{title}", endings, taken)
                for name in formats if together is None else ():
                    if name != "html":
                        target = out / f"{stem}{ENDINGS[name]}"
                        write(target, [moved], options, titles=[visible(title)], kind=name, raw=raw)
                shown.append((visible(title), moved))
        except (ValueError, OSError) as error:
            failed[path] = str(error)
    titles, motions = [title for title, _ in shown], [motion for _, motion in shown]
    if shown and together is not None:
        write(page, motions, options, titles=titles, raw=raw)
    elif shown and "html" in formats:
        write_viewer(page, clips_of(motions, titles), title=f"{len(shown)} motions")
    return len(shown), failed


def _generated(out: Path) -> set[Path]:
    """The files that `hftrainer generate` wrote into `out`, with their page."""
    try:
        manifest = existing(out)
        names = {name for item in manifest["items"] for name in item["files"]} | manifest["videos"].keys()
    except ValueError:  # the manifest of something else
        return set()
    return {(out / name).resolve() for name in (*names, PAGE)} if names else set()


def _stem(path: Path) -> str:
    """The name of a motion without its ending, which is two words in "walk.amass.npz"."""
    return path.stem.removesuffix(".amass") or path.stem if path.suffix.lower() == ".npz" else path.stem


def _free(out: Path, stem: str, endings: Sequence[str], taken: set[Path]) -> str:
    """A name in `out` whose files are neither inputs nor another motion's; its files are `taken` from now on."""
    stem = "".join("-" if letter in '/\\:*?"<>|' or not letter.isprintable() else letter for letter in stem)
    name, number = stem, 2
    while taken & (files := {(out / f"{name}{ending}").resolve() for ending in endings}):
        name, number = f"{stem}_{number}", number + 1
    taken |= files
    return name
