"""Headless Chromium for tests of pages, and axe-core, which looks for faults that shut readers out.

These tests need `apt-get install chromium`, the extra `browser` (Playwright, which drives it) and axe-core, a file of
JavaScript (`npm pack axe-core`); `make test-browser` says more. What is missing fails them: they never skip.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

_SECONDS = 120.0  # for one step of the browser: the machine may be busy


@dataclass
class Visit:
    """A page that is open in a browser.

    Attributes:
        tab: The browser's page.
        messages: What the console printed.
        requests: URLs that were asked for, beside the page's own file and data URIs.
        dialogs: Messages of `alert` and its like.
    """

    tab: Tab
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Chromium:
    """A running browser."""

    browser: Browser

    def open(self, file: Path, width: int = 1280, scheme: Any = "light", scripts: bool = True) -> Visit:
        """Open a page in a new window of that width, in light or dark colours."""
        context = self.browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
        )
        context.set_default_timeout(_SECONDS * 1000)
        visit = Visit(context.new_page())
        own = file.as_uri()
        visit.tab.on("console", lambda message: visit.messages.append(f"{message.type}: {message.text}"))
        visit.tab.on("pageerror", lambda error: visit.messages.append(f"error: {error}"))
        visit.tab.on("dialog", lambda dialog: (visit.dialogs.append(dialog.message), dialog.dismiss()))
        visit.tab.on(
            "request", lambda asked: None if asked.url.startswith(("data:", own)) else visit.requests.append(asked.url)
        )
        visit.tab.goto(own)
        return visit


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """A headless browser: VL3SYN_CHROMIUM, or `chromium` of the path."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("VL3SYN_CHROMIUM") or shutil.which("chromium")
    if not program:
        pytest.fail("chromium is missing: `apt-get install chromium`, or name another one in VL3SYN_CHROMIUM")
    with sync_playwright() as playwright:
        # Without a sandbox: containers do not allow one, and the pages are our own files without scripts.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=_SECONDS * 1000)
        yield Chromium(browser)
        browser.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The code of axe-core: VL3SYN_AXE, or node_modules of the repository."""
    file = Path(os.environ.get("VL3SYN_AXE") or Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js")
    if not file.exists():
        pytest.fail(f"{file} is missing: `npm install --no-save axe-core`, or name axe.min.js in VL3SYN_AXE")
    return file.read_text()
