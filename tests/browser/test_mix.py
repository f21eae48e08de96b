"""The page of `vl3syn mix` in a real browser: no request, no script, no fault for readers, no scrolling sideways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.commands.app import app
from tests.browser.conftest import Chromium
from tests.model import clips
from tests.model.training import training_data
from tests.pages import HOSTILE_NAMES, HOSTILE_TEXT

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

_SETTINGS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of images, a film, hostile texts, a long word, and a bad sample; source names are hostile."""
    folder = tmp_path_factory.mktemp("mix")
    written = training_data.recipe(folder, visual_tokens=100, max_frames=3, tokens=2048, lanes=1)
    (folder / "qa" / "6.png").unlink()
    clips.write(folder / "qa" / "clip.mp4", [k / 2 for k in range(8)])
    with (folder / "qa" / "qa.jsonl").open("w") as file:
        for answer in (HOSTILE_TEXT, "א ב " + HOSTILE_TEXT[:80], "x" * 900, *HOSTILE_NAMES):
            turns = [{"from": "human", "value": "<video>\n" + answer}, {"from": "gpt", "value": answer}]
            file.write(json.dumps({"video": "clip.mp4", "conversations": turns}) + "\n")
        turns = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "!"}]
        file.write(json.dumps({"image": "6.png", "conversations": turns}) + "\n")
    captions, qa = written["sources"].values()
    names = [HOSTILE_NAMES[0], "n" * 300]
    written["sources"] = dict(zip(names, (captions, {**qa, "held_out": 0}), strict=True))
    written["name"] = HOSTILE_NAMES[1]
    written["stages"] = [{**written["stages"][0], "mixture": dict.fromkeys(names, 1.0), "epochs": 1, "steps": None}]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(written))
    file = folder / "mix.html"
    result = CliRunner().invoke(app, ["mix", str(folder / "recipe.yaml"), "--page", str(file)])
    assert result.exit_code == 0, result.exception
    return file


@pytest.mark.parametrize("width", [1280, 360])
def test_page_is_quiet_and_fits_the_window(chromium: Chromium, page: Path, width: int) -> None:
    visit = chromium.open(page, width)
    assert (visit.messages, visit.requests, visit.dialogs) == ([], [], [])
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    images = visit.tab.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert len(images) >= 20
    assert all(images)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(chromium: Chromium, page: Path, axe: str, scheme: str) -> None:
    visit = chromium.open(page, 1280, scheme)
    visit.tab.evaluate(axe)
    found: list[dict[str, Any]] = visit.tab.evaluate("settings => axe.run(settings)", _SETTINGS)["violations"]
    grave = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    assert [(fault["id"], [node["html"][:200] for node in fault["nodes"][:3]]) for fault in grave] == []
