"""One name for every metric: in code, in JSON, in tables and in a logger. Older names are read for one more release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# name -> which way is better: "→" is closer to the real clips, "" neither
ARROWS = {
    "FID": "↓", "FID-unit": "↓", "R@1": "↑", "R@2": "↑", "R@3": "↑", "MM-Dist": "↓", "Diversity": "→",
    "Diversity-unit-L1": "→", "MultiModality": "", "MultiModality-all-pairs": "", "ties": "",
    "Slide": "↓", "Float": "↓", "Jitter": "↓", "Dynamic": "→", "Penet": "↓", "contact_percent": "→",
    "skate_m_per_s": "↓", "skate_percent": "↓", "penetration_mm": "↓", "penetration_percent": "↓",
    "floating_percent": "↓", "speed_m_per_s": "→", "acceleration_m_per_s2": "→", "jerk_m_per_s3": "→",
}  # fmt: skip
_UNITS = {
    "Slide": "mm/frame", "Float": "%", "Jitter": "mm/frame²", "Dynamic": "mm/frame", "Penet": "mm",
    "contact_percent": "%", "skate_m_per_s": "m/s", "skate_percent": "%", "penetration_mm": "mm",
    "penetration_percent": "%", "floating_percent": "%", "speed_m_per_s": "m/s", "acceleration_m_per_s2": "m/s²",
    "jerk_m_per_s3": "m/s³",
}  # fmt: skip
_WORDS = {"acceleration_m_per_s2": "acceleration", "jerk_m_per_s3": "jerk"}

# what reports, callbacks and configurations of earlier versions say
ALIASES = {
    "fid_raw": "FID", "fid": "FID", "fid_l2_normalized": "FID-unit", "fid_normalized": "FID-unit",
    "FID of unit vectors": "FID-unit", "matching_distance": "MM-Dist", "matching": "MM-Dist",
    "diversity_l2": "Diversity", "diversity": "Diversity", "diversity_unit_l1": "Diversity-unit-L1",
    "multimodality": "MultiModality", "multimodality_all_pairs": "MultiModality-all-pairs", "tie_share": "ties",
    **{f"r_precision_{k}": f"R@{k}" for k in (1, 2, 3)}, **{f"r{k}": f"R@{k}" for k in (1, 2, 3)},
    **{name.lower(): name for name in ("Slide", "Float", "Jitter", "Dynamic", "Penet")},
}  # fmt: skip
_WITH_REFERENCE = ("fid_l2_normalized_", "fid_raw_")  # "fid_raw_refk" is "FID-refk"


def current_name(name: str) -> str:
    """Today's name of a metric that an earlier version called `name`; a name of today is its own.

    A logger's path keeps its parts: ``val/fid`` is ``val/FID``, ``val/real_r1`` is ``val/real/R@1``.
    """
    path, _, last = name.rpartition("/")
    real = last.removeprefix("real_")
    if path and real != last and real in ALIASES:
        path, last = f"{path}/real", real
    for prefix in _WITH_REFERENCE:
        if last.startswith(prefix):
            last = f"{ALIASES[prefix.rstrip('_')]}-{last.removeprefix(prefix)}"
    last = ALIASES.get(last, last)
    return f"{path}/{last}" if path else last


def current_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """A report.json of any version in today's names."""
    out = dict(result)
    out["rows"] = {
        row: {current_name(name): value for name, value in values.items()}
        for row, values in result.get("rows", {}).items()
    }
    if isinstance(result.get("protocol"), Mapping):
        out["protocol"] = current_protocol(result["protocol"])
    return out


def current_protocol(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol's fields of any version: ``metrics.fid`` and ``metrics.diversity`` were two lists of kinds, and "full"
    crops were called "whole"."""
    out = dict(fields)
    for section, key in (("crop", "length"), ("prediction", "crop")):
        if isinstance(out.get(section), Mapping) and out[section].get(key) == "whole":
            out[section] = {**out[section], key: "full"}
    metrics = fields.get("metrics")
    if not isinstance(metrics, Mapping) or not {"fid", "diversity"} & metrics.keys():
        return out
    kinds = {"raw": "FID", "l2_normalized": "FID-unit", "l2": "Diversity", "unit_l1": "Diversity-unit-L1"}
    old = [*_listed(metrics.get("diversity", ["l2"])), *_listed(metrics.get("fid", ["raw"]))]
    kept = {key: value for key, value in metrics.items() if key not in ("fid", "diversity")}
    out["metrics"] = {**kept, "use": ["R@k", "MM-Dist", *(kinds.get(kind, kind) for kind in old)]}
    return out


def label_of(name: str) -> str:
    """A metric's name in tables: with its unit and an arrow that says which way is better."""
    words = _WORDS.get(name) or name
    unit = _UNITS.get(name)
    if unit is not None:
        words = words.partition("_")[0] if name[0].islower() else words
        words = f"{words}, {unit}"
    return f"{words} {arrow_of(name)}".rstrip()


def arrow_of(name: str) -> str:
    """ "↓", "↑", "→" (closer to real) or nothing; "FID-refk" is a FID."""
    return ARROWS.get(_base(name), "")


def in_order(names: Iterable[str]) -> list[str]:
    """Names of metrics as tables have them: retrieval, distances, physics; those with a reference beside their own."""
    known = list(ARROWS)

    def place(name: str) -> tuple[int, str]:
        base = _base(name)
        return (known.index(base) if base in ARROWS else len(known), name)

    return sorted(names, key=place)


def _base(name: str) -> str:
    while name not in ARROWS and "-" in name:
        name = name.rpartition("-")[0]
    return name


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
