"""The chat page in headless Chromium: a server with a tiny model, and a record of all connections.

These tests run in an environment with gradio: `make test-page`. What is missing fails them: they never skip.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from model import Processor, VideoLLaMA3
from model.config import preset
from tests.model.clips import grey, write
from tests.model.oracles import widen

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SECONDS = 240.0  # for one step: the machine may be busy
KEY = "a key of the tests"

_AUDIT = """
import os, sys
def look(event, arguments, file=open(os.environ["CONNECTIONS"], "a", buffering=1)):
    if event in ("socket.connect", "socket.getaddrinfo"):
        file.write(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]!r}\\n")
sys.addaudithook(look)
"""


@dataclass
class Tab:
    """A page that is open in the browser.

    Attributes:
        page: The browser's page.
        foreign: URLs of other hosts that it asked for.
        faults: What its console printed as an error.
    """

    page: Page
    foreign: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, *files: Path) -> None:
        """Add files to the question."""
        shown = self.page.locator("#vl3-question .thumbnail-item")
        before = shown.count()
        self.page.set_input_files("#vl3-question input[type=file]", [str(file) for file in files])
        shown.nth(before + len(files) - 1).wait_for()

    def ask(self, question: str, *files: Path) -> None:
        """Ask, and do not wait for the answer."""
        if files:
            self.add(*files)
        self.page.fill("#vl3-question textarea", question)
        self.page.press("#vl3-question textarea", "Enter")

    def answer(self, question: str, *files: Path) -> str:
        """Ask, and return the whole answer."""
        before = self.answers()
        self.ask(question, *files)
        self.page.wait_for_function(
            "count => document.querySelectorAll('[data-testid=bot]').length >= count"
            " && document.body.innerText.includes('tokens read')",
            arg=len(before) + 1,
        )
        return self.answers()[-1]

    def answers(self) -> list[str]:
        """The answers so far."""
        texts: list[str] = self.page.locator("[data-testid=bot]").all_inner_texts()
        return texts

    def note(self) -> str:
        """What stands above the question."""
        return " ".join(self.page.locator(".vl3-note, .vl3-error").all_inner_texts())

    def error(self) -> str:
        """Wait for the line of an error."""
        self.page.locator(".vl3-error").first.wait_for()
        return str(self.page.locator(".vl3-error").first.inner_text())


@dataclass
class Site:
    """A server with the page.

    Attributes:
        url: Its address.
        process: It.
        temporary: Its folder for temporary files.
        connections: A file of its connections, and of the hosts that it looked up.
        browser: The browser.
    """

    url: str
    process: subprocess.Popen[str]
    temporary: Path
    connections: Path
    browser: Browser

    def open(self, **options: Any) -> Tab:
        """Open the page as a new visitor."""
        context = self.browser.new_context(viewport={"width": 1300, "height": 1000}, **options)
        context.set_default_timeout(SECONDS * 1000)
        tab = Tab(context.new_page())
        own = (self.url, "data:", "blob:")
        tab.page.on("request", lambda sent: None if sent.url.startswith(own) else tab.foreign.append(sent.url))
        tab.page.on("console", lambda said: tab.faults.append(said.text) if said.type == "error" else None)
        tab.page.on("pageerror", lambda error: tab.faults.append(str(error)))
        tab.page.goto(self.url)
        tab.page.wait_for_selector("#vl3-question textarea")
        return tab


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that writes on and on: it knows no end token."""
    parent = tmp_path_factory.mktemp("served")
    model = VideoLLaMA3(preset("tiny"))
    widen(model)
    model.language.generation_config.eos_token_id = None
    model.save_pretrained(parent)
    Processor.tiny().save_pretrained(parent)
    return parent


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 4 s."""
    return write(tmp_path_factory.mktemp("films") / "grey.mp4", [k / 5 for k in range(20)])


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small picture."""
    from PIL import Image

    file = tmp_path_factory.mktemp("photographs") / "photograph.png"
    Image.fromarray(grey(120)).save(file)
    return file


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium: VL3SYN_CHROMIUM, or `chromium` of the path."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("VL3SYN_CHROMIUM") or shutil.which("chromium")
    if not program:
        pytest.fail("chromium is missing: `apt-get install chromium`, or name another one in VL3SYN_CHROMIUM")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", *camera], timeout=SECONDS * 1000
        )
        yield browser
        browser.close()


@contextmanager
def serving(
    folder: Path, place: Path, browser: Browser, *options: str, key: str = "", end: int = signal.SIGINT
) -> Iterator[Site]:
    """Serve a checkpoint; temporary files and records lie in `place`. The signal `end` ends it."""
    (place / "audit").mkdir()
    (place / "audit/sitecustomize.py").write_text(_AUDIT)
    temporary, connections = place / "temporary", place / "connections"
    temporary.mkdir()
    command = [sys.executable, "-m", "pipeline", "serve", str(folder), "--port", "0", "--name", "mine", "--system", ""]
    command += ["--max-request-mb", "3", "--dtype", "float32", "--max-new-tokens", "900", *options]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(place / "audit"), "VL3SYN_API_KEY": key}
    environment |= {"CONNECTIONS": str(connections)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "the page is" in line)
        site = Site(line.split()[-1].rstrip("/"), process, temporary, connections, browser)
        urlopen(f"{site.url}/health", timeout=SECONDS).close()
        yield site
        process.send_signal(end)
        _, said = process.communicate(timeout=SECONDS)
        assert "Traceback" not in said, said
        assert list(temporary.glob("vl3syn-*")) == [], "uploads outlive the server"
    finally:
        process.kill()


@pytest.fixture(scope="module")
def site(folder: Path, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(folder, tmp_path_factory.mktemp("site"), browser) as site:
        yield site
