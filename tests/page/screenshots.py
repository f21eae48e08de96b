"""Write the two pictures of docs/serving.md: an image with its answer, and a film with what the model saw of it.

Usage, with a server of the demo's model (`vl3syn serve demo/training/5-video/model --system ''`):
.venv-web/bin/python -m tests.page.screenshots http://127.0.0.1:8000 IMAGE FILM
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs/images"
QUESTIONS = {"page-image": "Describe the scene.", "page-film": "What happens?"}


def main(url: str, *files: str) -> None:
    """Ask about each file, and write a picture of the page."""
    from playwright.sync_api import sync_playwright

    from tests.page.conftest import Tab

    program = os.environ.get("VL3SYN_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for (name, question), file in zip(QUESTIONS.items(), files, strict=True):
            tab = Tab(browser.new_page(viewport={"width": 1200, "height": 900}))
            tab.page.goto(url)
            tab.page.wait_for_selector("#vl3-question textarea")
            tab.answer(question, Path(file))
            tab.page.wait_for_timeout(1000)
            tab.page.screenshot(path=FOLDER / f"{name}.jpg", type="jpeg", quality=82)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
