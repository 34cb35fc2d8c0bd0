"""A server in a process of its own and a headless browser, for tests of the page."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

FAKE = Path(__file__).parent / "fake_server.py"
PATIENCE = 60_000  # milliseconds, on a machine with other work
START = 300  # seconds in which a server starts there
# Bodies are drawn as flat figures: without a graphics card that is many times quicker, and the page does not know.
FLAGS = ["--no-sandbox", "--disable-3d-apis", "--no-first-run", "--disable-background-networking"]


def fake_server(*arguments: str) -> AbstractContextManager[str]:
    """The address of tests/serve/fake_server.py; the process ends with the context."""
    return _server(lambda port: [str(FAKE), str(port), *arguments])


def real_server(jobs: Path) -> AbstractContextManager[str]:
    """The address of `hftrainer serve` with its default model, which keeps its motions in the folder `jobs`."""
    return _server(lambda port: ["-m", "hftrainer", "serve", "--port", str(port), "--jobs", str(jobs)])


@contextmanager
def _server(program: Callable[[int], list[str]]) -> Iterator[str]:
    for module in ("fastapi", "uvicorn", "websockets"):
        pytest.importorskip(module, reason=f"{module} is not installed (pip install 'hftrainer[serve]')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, *program(port)])
    try:
        wait_for(f"http://127.0.0.1:{port}/", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=10).close()
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"the server did not answer at {address}")


@contextmanager
def chromium() -> Iterator[Any]:
    """A Playwright browser; skips where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.skip("chromium is not installed")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page that is open, what it asked for, and what went wrong in it."""

    def __init__(self, browser: Any, address: str, path: str = "/", **context: Any):
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if "Security Policy" in said.text else None)
        self.page.on("dialog", lambda dialog: self.errors.append(dialog.message) or dialog.dismiss())
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address + path, wait_until="domcontentloaded")

    def ready(self) -> Any:
        """The page, once it can be used."""
        self.page.wait_for_selector("body[data-state=ready]", state="attached")
        return self.page
