"""The page on which people mark captions: the right images, foreign text as text, one script and no connection."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from core.errors import UserError
from manifests.removals import Removals, Takedown, add_takedown
from manifests.storage import Folder
from pipeline.reporting.review import Review, review
from tests.pages import HOSTILE_NAMES, HOSTILE_TEXT, page_run


def drawn(folder: Path, count: int = 5, seed: int = 0) -> Review:
    from manifests import open_run

    return review(open_run(str(folder / "run")), Folder.at(folder / "none"), count, seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("review")
    page_run(path, HOSTILE_NAMES, HOSTILE_TEXT)
    return path


def test_same_seed_draws_the_same_images_and_another_others(folder: Path) -> None:
    ids = {seed: [row.id for row in drawn(folder, seed=seed).rows] for seed in (0, 1)}
    assert ids[0] == [row.id for row in drawn(folder, seed=0).rows]
    assert ids[0] != ids[1]
    assert [row.id for row in drawn(folder, 3).rows] == ids[0][:3]


def test_every_kept_image_is_drawn_with_its_whole_caption(folder: Path) -> None:
    from manifests import open_run

    kept = open_run(str(folder / "run")).verdict().alive["id"].to_list()
    result = drawn(folder, 1000)
    assert sorted(row.id for row in result.rows) == sorted(kept)
    assert result.drawn_from == len(kept)
    assert all(dict(row.texts)["short_caption"].startswith("</style></script>") for row in result.rows)
    assert all(row.thumbnail.uri for row in result.rows)


def test_removed_images_are_not_drawn(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    removed = min(row.id for row in drawn(folder, 1000).rows)
    add_takedown(Folder.at(tmp_path / "run/removed"), Takedown(Removals(frozenset({removed})), finished=True))
    result = drawn(tmp_path, 1000)
    assert removed not in {row.id for row in result.rows}
    assert result.drawn_from == drawn(folder).drawn_from - 1


def test_page_has_one_script_which_its_policy_names(folder: Path) -> None:
    page = drawn(folder, 1000).page()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert page.count("<script") == 1


def test_page_says_that_it_has_a_script(folder: Path) -> None:
    page = drawn(folder).page()
    assert "runs no script" not in page
    assert page.count("<li data-id=") == 5


def test_styles_of_the_page_change_none_of_all_pages() -> None:
    """A class of both would get the height of a histogram's bar, and the buttons that save were cut off."""
    templates = files("pipeline.reporting").joinpath("templates")
    own, common = (
        set(
            re.findall(r"\.([a-z][\w-]*)[^{}]*\{", templates.joinpath(name).read_text("utf-8").partition("</style>")[0])
        )
        for name in ("review.html", "style.css")
    )
    assert own
    assert own.isdisjoint(common)


def test_run_without_captions_is_refused(tmp_path: Path) -> None:
    page_run(tmp_path, captions=0)
    with pytest.raises(UserError, match=r"has no captions to review: `vl3syn caption` first$"):
        drawn(tmp_path)
