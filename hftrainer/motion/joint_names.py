"""Finding the joints that a skeleton map names in a file: in any case, behind any prefix, with alternatives."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from hftrainer.motion.io.source import MotionFileError
from hftrainer.motion.skeleton import JOINTS
from hftrainer.motion.skeleton_map import SkeletonMap, load_map, shipped_maps


@dataclass(frozen=True)
class Found:
    """A joint of the file: its number, and where on it the SMPL joint lies.

    `at` is None for the joint itself, "end" for its End Site, and a number for a share of the way to the next mapped
    joint below.
    """

    index: int
    at: str | float | None = None


def split_place(name: str) -> tuple[str, str | float | None]:
    """``LeftFoot@end`` or ``LowerBack@0.5`` to the joint's name and the place on it."""
    joint, sign, place = name.rpartition("@")
    if not sign:
        return name, None
    return joint, "end" if place == "end" else float(place)


def find_joints(names: Sequence[str], skeleton: SkeletonMap, ends: Sequence[int], source: str) -> dict[str, Found]:
    """SMPL joint to joint of the file, for all that the map names; raises `MotionFileError` when some are missing.

    Every name is looked for as it is written, then in any case and without blanks, dots, dashes and underscores. One
    prefix holds for all of them: those of the map, or the one under which most are found.
    """
    best: dict[str, Found] = {}
    best_missing: list[str] = []
    for prefix in _prefixes(names, skeleton):
        found, missing = _look(names, skeleton, prefix, set(ends), source)
        if not best or len(found) > len(best):
            best, best_missing = found, missing
        if not missing:
            return found
    near = {name: get_close_matches(name, names, n=1) for name in best_missing[:3]}
    hint = "; ".join(f"{name!r} (near: {close[0]!r})" if close else repr(name) for name, close in near.items())
    fits = {name: _fits(tuple(names), tuple(ends), name) for name in shipped_maps()}
    fitting = sorted((name for name in fits if fits[name]), key=lambda name: -fits[name])  # most of its own names first
    if len(fitting) == 1:
        better = f"; map {fitting[0]!r} has all of its joints there"
    elif fitting:
        better = f"; maps {', '.join(map(repr, fitting))} have all of their joints there, the likeliest first"
    else:
        better = ""
    raise MotionFileError(
        f"{source}: {len(best_missing)} joints of map {skeleton.name!r} are not in the file: {hint}; "
        f"the file has {', '.join(map(repr, names[:4]))}, ...{better}"
    )


@lru_cache(maxsize=256)
def _fits(names: tuple[str, ...], ends: tuple[int, ...], name: str) -> int:
    """How many joints have the first name that a shipped map gives them, if all joints of the map are there; else 0."""
    skeleton = load_map(name)
    try:
        for prefix in _prefixes(names, skeleton):
            found, missing = _look(names, skeleton, prefix, set(ends), "")
            if not missing:
                first = {joint: str(choices[0]) for joint, choices in skeleton.choices.items()}
                return 1 + sum(names[at.index] == prefix + first[joint] for joint, at in found.items())
    except MotionFileError:
        pass
    return 0


def _look(
    names: Sequence[str], skeleton: SkeletonMap, prefix: str, ends: set[int], source: str
) -> tuple[dict[str, Found], list[str]]:
    exact = _by_key(names, lambda name: name)
    loose = _by_key(names, _plain)
    found: dict[str, Found] = {}
    missing: list[str] = []
    used: set[int] = set()
    choices_of = skeleton.choices
    for joint in reversed(JOINTS):  # where a file has fewer joints, the ones further out have the first choice
        choices = choices_of[joint]
        for choice in choices:
            if choice is None:
                break
            name, at = split_place(choice)
            indices = exact.get(prefix + name) or loose.get(_plain(prefix + name), [])
            if at is None and set(indices) & used:
                continue
            twins = sorted({*indices, *loose.get(_plain(prefix + name), []), *_namespaced(names, prefix, name)})
            if indices and len(twins) > 1:
                called = " or ".join(dict.fromkeys(repr(names[index]) for index in twins))
                raise MotionFileError(
                    f"{source}: {len(twins)} joints are called {called}, which is {joint}; rename all but the right one"
                )
            if indices and (at != "end" or indices[0] in ends):
                found[joint] = Found(indices[0], at)
                used |= set(indices) if at is None else set()
                break
        else:
            missing.append(str(choices[0]))
    return {joint: found[joint] for joint in JOINTS if joint in found}, missing


def _namespaced(names: Sequence[str], prefix: str, name: str) -> list[int]:
    """Joints that a file names with a namespace where the others have none, like ``mixamorig:LeftHand``."""
    if prefix:
        return []
    return [n for n, other in enumerate(names) if re.split("[:|]", other)[-1].lower() == name.lower()]


def _prefixes(names: Sequence[str], skeleton: SkeletonMap) -> list[str]:
    """The map's own prefixes, none, and whatever stands before a name of the pelvis."""
    pelvis = [split_place(choice)[0] for choice in skeleton.choices["pelvis"] if choice is not None]
    seen = [
        name[: len(name) - len(wanted)]
        for name in names
        for wanted in pelvis
        if name.lower().endswith(wanted.lower()) and len(name) > len(wanted)
    ]
    return list(dict.fromkeys([*skeleton.prefixes, "", *seen]))


def _by_key(names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        out.setdefault(key(name), []).append(index)
    return out


def _plain(name: str) -> str:
    return re.sub(r"[\s_.\-:|]", "", name).lower()
