"""New clips from old ones: mirror images, and pairs joined into one ("walks forward, then waves").

Both write ordinary clips into the dataset, with labels, and into a split of their own beside the clips that they were
made from, so that nothing of a test split ends up in training.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hftrainer.data.folder import Caption, DatasetFolder, parts_of
from hftrainer.data.prepare.captions import CaptionTemplates, mirrored_parts
from hftrainer.data.prepare.sides import exchange_sides
from hftrainer.data.prepare.splits import JOINED, MIRROR_PREFIX, is_original
from hftrainer.motion.blend import TRANSITION, find_passage, join_at, shorten
from hftrainer.motion.representation.base import DEFAULT
from hftrainer.readers import FileError

MAX_FRAMES = 300  # what the transformer can say: 150 codes
_THEN = (", then ", " and then ", ", after that ", ", followed by ")
Progress = Callable[[Iterable[Any]], Iterable[Any]]


def mirror_split(
    dataset: DatasetFolder, templates: CaptionTemplates, split: str, into: str, *, progress: Progress = iter
) -> tuple[list[str], dict[str, str]]:
    """Write the mirror image of every clip of `split` that has one; the new names, and why others have none.

    Labels that the templates know say whether a clip may be mirrored, and its captions are to be written again. Other
    clips get their captions with left and right exchanged, in their labels too. The split `into` gets all of `split`
    that has a motion file, what it had, and the new names.
    """
    labels, made, without = dataset.labels(), list[str](), dict[str, str]()
    names, stale = dataset.names(split), set[str]()
    known = _labelled_by(templates, names, labels)
    for name in progress(names):
        if not dataset.motion_path(name).is_file():
            without[name] = f"split {split} lists it, but it has no motion file; remove the line, or split again"
            stale.add(name)
            continue
        if not is_original(name):
            continue
        label, mirrored = labels.get(name), _mirrored_name(name)
        captions = dataset.captions(name)
        if label is not None and name in known:
            parts = mirrored_parts(parts_of(label), templates)
            if parts is None:
                without[name] = "its label has no mirror image in the templates"
                continue
            labels[mirrored] = {**label, **parts[0]}
        elif captions:
            texts = [replace(c, text=exchange_sides(c.text), tokens=exchange_sides(c.tokens)) for c in captions]
            dataset.write_captions(mirrored, texts)
            if label is not None:
                labels[mirrored] = _exchanged(label)
        else:
            without[name] = "it has neither captions nor labels known to the templates"
            continue
        dataset.write_motion(mirrored, dataset.motion_format.mirror(dataset.motion(name)))
        made.append(mirrored)
    _add(dataset, labels, split, into, made, stale)
    return made, without


def _labelled_by(templates: CaptionTemplates, names: Sequence[str], labels: Mapping[str, Any]) -> set[str]:
    """The clips whose labels are the templates': other data sets have contents of the same name ("walk")."""
    known = [
        name
        for name in names
        if name in labels and all(part.get("content") in templates.contents for part in parts_of(labels[name]))
    ]
    found = zip(known, templates.labels_of(known), strict=True)
    return {name for name, groups in found if groups is not None or name.startswith(JOINED)}


def _exchanged(value: Any) -> Any:
    """Left and right exchanged in every text of a label."""
    if isinstance(value, str):
        return exchange_sides(value)
    if isinstance(value, list):
        return [_exchanged(item) for item in value]
    return {key: _exchanged(item) for key, item in value.items()} if isinstance(value, dict) else value


@dataclass
class JoinConfig:
    """How pairs are chosen. `same_style` is the share of pairs whose two parts have one style."""

    count: int = 1000
    seed: int = 0
    same_style: float = 0.6
    max_frames: int = MAX_FRAMES
    shortest_part: int = 45
    tries: int = 4


def join_split(
    dataset: DatasetFolder,
    templates: CaptionTemplates | None,
    split: str,
    into: str,
    config: JoinConfig,
    *,
    progress: Progress = iter,
) -> list[str]:
    """Write `config.count` clips joined from two of `split`; the new names.

    The two contents differ and are drawn evenly; of `config.tries` pairs of clips that have them, the one whose poses
    meet best is taken. The split `into` gets all of `split`, what it had, and the new names. With `templates`, captions
    are to be written afterwards; without, they are made of the captions of the two clips (`joined_captions`), clips
    whose label says `single` may be cut anywhere, and contents are drawn by the square root of their clips.
    """
    if dataset.representation != DEFAULT:
        raise FileError(
            f"{dataset.root} holds {dataset.representation}; clips are joined as {DEFAULT}, which has "
            "rotations to blend. Join first, then convert the dataset"
        )
    labels, made = dataset.labels(), []
    singles = [n for n in dataset.names(split) if "content" in labels.get(n, {}) and not n.startswith(JOINED)]
    by_content: dict[str, list[str]] = {}
    for name in singles:
        if templates is not None or dataset.captions(name):
            by_content.setdefault(labels[name]["content"], []).append(name)
    if len(by_content) < 2:
        raise ValueError(
            f"split {split!r} of {dataset.root} has clips of {len(by_content)} contents; joining needs at least two"
        )

    shares = None if templates is not None else np.sqrt([len(by_content[c]) for c in sorted(by_content)])
    for number in progress(range(config.count)):
        rng = np.random.default_rng([config.seed, number])
        contents = rng.choice(
            sorted(by_content), size=2, replace=False, p=None if shares is None else shares / shares.sum()
        )
        same_style = rng.random() < config.same_style
        best: tuple[float, np.ndarray, list[str], int] | None = None
        for _ in range(config.tries):
            names = _draw_clips([by_content[c] for c in contents], labels, same_style, rng)
            candidate = _join_pair(dataset, [labels[n] for n in names], names, templates, config, rng)
            if candidate is not None and (best is None or candidate[0] < best[0]):
                best = (candidate[0], candidate[1], names, candidate[2])
        if best is None:
            continue
        name = f"{JOINED}/{split}-{config.seed}-{number:06d}"
        dataset.write_motion(name, best[1])
        parts = [{k: labels[n][k] for k in ("content", "style") if k in labels[n]} for n in best[2]]
        labels[name] = {"parts": parts, "clips": best[2], "join_frame": best[3], "content": "joined"}
        if templates is None:
            before, after = (dataset.captions(n) for n in best[2])
            dataset.write_captions(name, joined_captions(before, after, rng))
        made.append(name)
    _add(dataset, labels, split, into, made)
    return made


def joined_captions(first: list[Caption], second: list[Caption], rng: np.random.Generator) -> list[Caption]:
    """Sentences about one clip after the other ("a person walks, then someone waves"), as many as the shorter list."""
    pairs = zip(rng.permutation(len(first)), rng.permutation(len(second)), strict=False)
    texts = [(first[int(i)].text.rstrip(" ."), second[int(j)].text) for i, j in pairs]
    return [Caption(f"{a}{_THEN[int(rng.integers(len(_THEN)))]}{_decapitalized(b)}") for a, b in texts]


def _decapitalized(text: str) -> str:
    return text[:1].lower() + text[1:]


def _draw_clips(
    pools: list[list[str]], labels: dict[str, dict[str, Any]], same_style: bool, rng: np.random.Generator
) -> list[str]:
    """One clip of each pool; the second in the style of the first, if it can be and shall be."""
    first = pools[0][int(rng.integers(len(pools[0])))]
    alike = [n for n in pools[1] if labels[n].get("style") == labels[first].get("style")] if same_style else []
    pool = alike or pools[1]
    return [first, pool[int(rng.integers(len(pool)))]]


def _join_pair(
    dataset: DatasetFolder,
    labels: list[dict[str, Any]],
    names: list[str],
    templates: CaptionTemplates | None,
    config: JoinConfig,
    rng: np.random.Generator,
) -> tuple[float, np.ndarray, int] | None:
    """Distance of the poses at the passage, the joined clip and the frame of the passage; None if it cannot be."""
    room = config.max_frames // 2
    clips: list[np.ndarray] = []
    anywhere = [
        bool(label.get("single")) if templates is None else label["content"] in templates.croppable for label in labels
    ]
    for name, is_last in zip(names, (False, True), strict=True):
        clip: np.ndarray = dataset.motion(name).astype(np.float64)
        if anywhere[is_last]:
            longest = min(len(clip), room)
            frames = int(rng.integers(min(config.shortest_part + 2 * TRANSITION, longest), longest + 1))
            start = 0 if rng.random() < 0.5 else int(rng.integers(0, len(clip) - frames + 1))
            clip = clip[start : start + frames]
        elif len(clip) > room:
            try:
                clip = shorten(clip, room)
            except ValueError:
                return None
        if len(clip) < config.shortest_part + TRANSITION * (1 if is_last else 2):
            return None
        clips.append(clip)
    first, second = clips
    earliest = config.shortest_part if anywhere[0] else max(config.shortest_part, len(first) - 40)
    latest = (len(second) - config.shortest_part) // 2 if anywhere[1] else 12
    out_at, in_at, distance = find_passage(first, second, leave=(earliest, len(first)), enter=(0, max(0, latest)))
    joined = join_at(first, second, out_at, in_at)
    return (distance, joined, out_at) if len(joined) <= config.max_frames else None


def _mirrored_name(name: str) -> str:
    folder, slash, stem = name.rpartition("/")
    return f"{MIRROR_PREFIX}_{folder}{slash}{stem}" if not folder else f"{MIRROR_PREFIX}_{folder}/{stem}"


def _add(
    dataset: DatasetFolder, labels: dict[str, dict[str, Any]], split: str, into: str, names: list[str],
    stale: Collection[str] = (),
) -> None:  # fmt: skip
    dataset.write_labels(labels)
    known = dataset.names(into) if into in dataset.splits() else []
    members = dict.fromkeys([*dataset.names(split), *known, *names])
    dataset.write_split(into, [name for name in members if name not in stale])
