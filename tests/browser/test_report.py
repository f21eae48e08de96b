"""The report in a real browser: no request, no script, no fault for readers, no scrolling sideways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.reporting.page import write
from pipeline.reporting.report import report
from tests.browser.conftest import Chromium
from tests.pages import HOSTILE_NAMES, HOSTILE_TEXT, page_run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

_SETTINGS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with hostile names and captions."""
    folder = tmp_path_factory.mktemp("hostile")
    file = folder / "report.html"
    write(str(file), report(page_run(folder, HOSTILE_NAMES, HOSTILE_TEXT * 100)))
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_is_quiet_and_fits_the_window(chromium: Chromium, hostile: Path, width: int, scheme: str) -> None:
    visit = chromium.open(hostile, width, scheme)
    assert (visit.messages, visit.requests, visit.dialogs) == ([], [], [])
    root = "document.documentElement"
    assert visit.tab.evaluate(f"{root}.scrollWidth") <= width, "the page scrolls sideways"
    images = visit.tab.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert images
    assert all(images)
    ground = visit.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(246, 247, 249)", "dark": "rgb(16, 19, 23)"}[scheme]
    drawn = """[...document.querySelectorAll('svg [style*="fill: var(--kept)"]')].map(e => getComputedStyle(e).fill)"""
    assert set(visit.tab.evaluate(drawn)) == {{"light": "rgb(11, 105, 174)", "dark": "rgb(92, 176, 245)"}[scheme]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(chromium: Chromium, hostile: Path, axe: str, scheme: str) -> None:
    visit = chromium.open(hostile, 1280, scheme)
    visit.tab.evaluate(axe)  # by the debugger, which the page's policy does not bind
    found: list[dict[str, Any]] = visit.tab.evaluate("settings => axe.run(settings)", _SETTINGS)["violations"]
    grave = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    assert [(fault["id"], [node["html"][:200] for node in fault["nodes"][:3]]) for fault in grave] == []


def test_page_is_usable_by_keyboard(chromium: Chromium, hostile: Path) -> None:
    visit = chromium.open(hostile)
    visit.tab.keyboard.press("Tab")
    assert visit.tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    visit.tab.keyboard.press("Enter")
    assert visit.tab.evaluate("document.activeElement.id") == "content"


def test_page_is_the_same_without_javascript(chromium: Chromium, hostile: Path) -> None:
    heights = [chromium.open(hostile, scripts=scripts).tab.locator("main").bounding_box() for scripts in (True, False)]
    assert heights[0] is not None
    assert heights[0] == heights[1]


def test_policy_stops_a_script_that_gets_into_the_page(chromium: Chromium, hostile: Path, tmp_path: Path) -> None:
    """Whatever escaping misses: the test adds a script and an image, and the policy stops both."""
    attack = '<script>alert(1)</script><img src="http://127.0.0.1:9/x.png" onerror="alert(2)"></main>'
    file = tmp_path / "attacked.html"
    file.write_text(hostile.read_text().replace("</main>", attack))
    visit = chromium.open(file)
    visit.tab.wait_for_timeout(300)
    assert visit.dialogs == []
    assert len(visit.messages) >= 2, "the browser tells of the violations"
    assert all("Content Security Policy" in message for message in visit.messages)
