"""The review page in a real browser: its buttons work, it asks for nothing, and what it saves can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import open_run
from manifests.review_marks import parse_marks
from manifests.storage import Folder
from pipeline.reporting.page import write
from pipeline.reporting.review import review
from tests.browser.conftest import Chromium
from tests.pages import HOSTILE_NAMES, HOSTILE_TEXT, page_run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    page_run(folder, HOSTILE_NAMES, HOSTILE_TEXT)
    drawn = review(open_run(str(folder / "run")), Folder.at(folder / "none"), 1000)
    write(str(folder / "review.html"), drawn.page())
    return folder / "review.html"


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_marks_are_saved_as_they_were_given(chromium: Chromium, page: Path, tmp_path: Path, kind: str) -> None:
    visit = chromium.open(page)
    rows = visit.tab.locator("li[data-id]")
    ids = [int(rows.nth(number).get_attribute("data-id") or 0) for number in range(3)]
    visit.tab.fill("#reviewer", 'Ä "b", c')
    for number, mark in enumerate(("good", "wrong", "unsure")):
        rows.nth(number).locator(f"button[data-mark={mark}]").click()
    rows.nth(1).locator("input").fill('=no "hat",\u00e4')
    rows.nth(2).locator("button[data-mark=unsure]").click()  # taken back
    assert visit.tab.inner_text("#marked").startswith("2 of ")
    with visit.tab.expect_download() as download:
        visit.tab.click(f"#save-{kind}")
    download.value.save_as(tmp_path / "marks")
    read = parse_marks((tmp_path / "marks").read_bytes(), "marks")
    assert [(mark.id, mark.mark, mark.note, mark.reviewer) for mark in read] == [
        (ids[0], "good", "", 'Ä "b", c'),
        (ids[1], "wrong", '=no "hat",ä', 'Ä "b", c'),
    ]
    assert (visit.messages, visit.requests, visit.dialogs) == ([], [], [])


def test_policy_stops_another_script(chromium: Chromium, page: Path, tmp_path: Path) -> None:
    attack = '<script>alert(1)</script><img src="http://127.0.0.1:9/x.png" onerror="alert(2)"></main>'
    attacked = tmp_path / "attacked.html"
    attacked.write_text(page.read_text().replace("</main>", attack))
    visit = chromium.open(attacked)
    visit.tab.locator("li[data-id]").first.locator("button").first.click()
    assert visit.tab.inner_text("#marked").startswith("1 of ")
    assert visit.dialogs == []
    assert len(visit.messages) >= 2, "the browser tells of the violations"
    assert all("Content Security Policy" in message for message in visit.messages)
