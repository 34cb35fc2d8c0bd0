"""The files of the web page: that they belong together, load nothing from elsewhere and make no HTML from strings."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hftrainer.serve import page
from hftrainer.serve.page import HEADERS, page_file

FOLDER = Path(page.__file__).parent
VIEWER = Path(__file__).parents[2] / "tools" / "web" / "src"
SCRIPTS = sorted(FOLDER.glob("*.js"))


class Elements(HTMLParser):
    """All elements of a page: their tags and attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def index() -> str:
    found = page_file("index.html")
    assert found is not None
    return found.body.decode()


@pytest.fixture(scope="module")
def elements(index) -> list[tuple[str, dict[str, str | None]]]:
    return Elements(index).all


def test_everything_that_the_page_names_is_served(elements):
    named = [value for _, attrs in elements for name, value in attrs.items() if name in ("src", "href")]
    for address in named:
        assert address is not None
        assert address.startswith(("/page/", "#")), address
        if address.startswith("/page/"):
            assert page_file(address.removeprefix("/page/")) is not None, address
    for script in SCRIPTS:
        for imported in re.findall(r'from "([^"]+)"', script.read_text()):
            assert page_file(imported.removeprefix("./")) is not None, f"{script.name}: {imported}"


def test_nothing_is_inline_that_the_policy_forbids(index, elements):
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)[^>]*>", index)
    for tag, attrs in elements:
        assert not [name for name in attrs if name == "style" or name.startswith("on")], (tag, attrs)


def test_nothing_is_loaded_from_elsewhere():
    for path in FOLDER.iterdir():
        if path.suffix in (".js", ".css", ".html"):
            addresses = set(re.findall(r"https?://[^\"'`\s)]+", path.read_text()))
            assert addresses <= {"http://www.w3.org/2000/svg"}, path.name  # a namespace, not a place


@pytest.mark.parametrize("script", [*SCRIPTS, *sorted(VIEWER.glob("*.js"))], ids=lambda path: path.name)
def test_texts_never_become_html(script):
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", script.read_text()
    )


def test_elements_that_scripts_look_for_exist(elements):
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for script in SCRIPTS:
        wanted = re.findall(r'byId\("([\w-]+)"\)', script.read_text())
        assert set(wanted) <= set(ids), script.name
    referring = ("for", "aria-controls", "aria-labelledby", "aria-describedby")
    for _, attrs in elements:
        assert {attrs[name] for name in referring if name in attrs} <= set(ids)


def test_fields_and_buttons_have_names(index, elements):
    labelled = {attrs.get("for") for tag, attrs in elements if tag == "label"}
    inside_labels = set(
        re.findall(r"<label[^>]*>(?:(?!</label>).)*<(?:input|select)[^>]* id=\"([\w-]+)\"", index, re.DOTALL)
    )
    inside_labels |= set(
        re.findall(r"<label[^>]*>(?:(?!</label>).)*<(?:input|select) id=\"([\w-]+)\"", index, re.DOTALL)
    )
    for tag, attrs in elements:
        if tag in ("input", "select", "textarea", "progress"):
            assert "aria-label" in attrs or {attrs.get("id")} & (labelled | inside_labels), attrs


@pytest.mark.parametrize(
    "name", ["", ".", "__init__.py", "../__init__.py", "..%2f__init__.py", "/etc/passwd", "index.html/"]
)
def test_other_files_are_not_served(name):
    assert page_file(name) is None


def test_a_change_has_another_tag():
    tags = [
        found.etag for name in ("index.html", "main.js", "viewer.css", "viewer.bundle.js") if (found := page_file(name))
    ]
    assert len(set(tags)) == 4


def run_node(program: str) -> Any:
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    command = ["node", "--input-type=module"]
    done = subprocess.run(command, input=program, capture_output=True, check=True, text=True, timeout=60, cwd=FOLDER)
    return json.loads(done.stdout)


def test_events_are_read_however_they_are_cut():
    text = 'event: start\ndata: {"prompt": "a 日本語"}\n\n: still here\n\nevent: frames\r\ndata: {"start": 0}\r\n\r\n'
    pieces = [list(text.encode()[start : start + 3]) for start in range(0, len(text.encode()), 3)]
    program = f"""
        import {{ readEvents }} from "./events.js";
        const pieces = {json.dumps(pieces)}.map((bytes) => Uint8Array.from(bytes));
        const taken = [];
        await readEvents(ReadableStream.from(pieces), (...event) => taken.push(event));
        console.log(JSON.stringify(taken));
        """
    assert run_node(program) == [["start", {"prompt": "a 日本語"}], ["frames", {"start": 0}]]


def test_verbs_become_sentences():
    words = ["walk", "wave", "catch", "carry", "play", "pick up", "walks", "a person sits", "press"]
    program = f"""
        import {{ sentence }} from "./words.js";
        console.log(JSON.stringify({json.dumps(words)}.map(sentence)));
        """
    assert run_node(program) == [
        "a person walks", "a person waves", "a person catches", "a person carries", "a person plays",
        "a person picks up", "a person walks", "a person sits", "a person presses",
    ]  # fmt: skip
