"""Every package of the lock file has a licence that may be brought along, and docs/licences.md says which."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(REPOSITORY / "scripts" / "licences.py"))


def test_the_page_lists_every_locked_package():
    page = (REPOSITORY / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([a-z0-9-]+) \| (.+?) \|", page, re.M))
    assert set(rows) - {"package", "---"} == set(SCRIPT["locked"]())
    bad = {name: said for name, said in rows.items() if name not in ("package", "---")}
    assert {name: said for name, said in bad.items() if not SCRIPT["judged"](name, said)[0]} == {}


@pytest.mark.parametrize(
    "said",
    ["GPL-3.0-only", "AGPL-3.0-or-later", "GNU Affero General Public License v3", "SSPL-1.0", "CC-BY-NonCommercial",
     "LicenseRef-Proprietary", "MIT AND GPL-2.0-only", "unknown", ""],
)  # fmt: skip
def test_what_is_not_allowed(said):
    assert not SCRIPT["judged"]("a-package", said)[0]
    assert SCRIPT["judged"]("a-package", "MIT")[0]


def test_ffmpeg_is_named():
    """imageio-ffmpeg's licence is BSD, but the program in its wheel is under the GPL."""
    assert "GPL" in SCRIPT["judged"]("imageio-ffmpeg", "BSD-2-Clause")[1]
    assert "--enable-gpl" in (REPOSITORY / "NOTICE").read_text(encoding="utf-8")
