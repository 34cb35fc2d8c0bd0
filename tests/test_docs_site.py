"""The documentation as a site: it builds without a warning, and asks no other server for anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="needs the extra `docs`")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return out


def test_nothing_is_loaded_from_another_server(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "unpkg.com" not in text, page.name
        assert not re.findall(r"""<(?:script|img|iframe|source)[^>]*\ssrc=["'](?:https?:)?//[^"']*""", text), page.name
        assert not re.findall(
            r"""<link[^>]*rel=["'](?:stylesheet|preconnect|icon)["'][^>]*href=["'](?:https?:)?//""", text
        )
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?(?:https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet.name


def test_links_between_pages_and_files_lead_somewhere(site):
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue  # served from anywhere, with addresses from the root
        for target in re.findall(r"""(?:href|src)=["']?([^"'\s>#?]+)""", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:|//", target):
                assert (page.parent / target).exists(), f"{page.relative_to(site)} leads to {target}"


def test_the_reference_has_signatures_and_docstrings(site):
    text = (site / "api" / "index.html").read_text(encoding="utf-8")
    assert "load_pipeline" in text
    assert "num_motions" in (site / "api" / "pipelines.html").read_text(encoding="utf-8")
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert "timeline" in index  # search works from disk


def test_search_works_from_disk(site):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]
    page = subprocess.run([*command, f"{(site / 'index.html').as_uri()}?q=blender"], capture_output=True, text=True)
    assert re.search(r"[1-9]\d* matching documents", page.stdout)
