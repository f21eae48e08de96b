"""The report shows the run's own numbers, for complete runs and for parts of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import UserError
from manifests import Run, funnel
from manifests.sweep import sweep
from pipeline.reporting import page
from pipeline.reporting.report import report
from pipeline.reporting.scores import scores
from tests.film_files import film
from tests.pages import HOSTILE_NAMES, HOSTILE_TEXT, Page, page_run
from tests.runs import run_here
from tests.stored_facts import ids_of, store_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return page_run(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def shown(run: Run) -> Page:
    return Page(report(run))


def test_funnel_on_the_page_has_the_numbers_of_the_funnel(run: Run, shown: Page) -> None:
    counted = funnel(run)
    assert {stage.stage for stage in counted.stages} == {"index", "aspect_ratio", "short_caption"}
    for stage in counted.stages:
        parts = [(stage.dropped, "dropped"), (stage.errors, "errors"), (stage.pending, "pending")]
        lost = "".join(f" , {rows} {what}" for rows, what in parts if rows).replace(" ,", ",")
        assert f"{stage.stage} {stage.kept} of {stage.seen}{lost}" in shown.text.replace(" ,", ",")
        for reason, rows in stage.reasons.items():
            assert f"{rows} {reason}" in shown.text


def test_neighbours_keep_what_the_sweep_says(run: Run) -> None:
    seen = [score for score in scores(run, run.verdict()) if score.rule]
    assert [score.rule.name for score in seen if score.rule] == ["max_aspect_ratio", "min_side", "per_group_format"]
    for score in seen:
        assert score.rule
        thresholds = [near.threshold for near in score.neighbours]
        assert len(thresholds) > 2
        counted = sweep(run, {f"aspect_ratio.{score.rule.name}": thresholds})
        assert [(near.kept, near.to_compute) for near in score.neighbours] == counted.select(
            "kept", "to_compute"
        ).rows()
        assert [near.threshold for near in score.neighbours if near.now] == [score.rule.threshold]


def test_scores_are_split_as_the_funnel_counts(run: Run) -> None:
    counted = funnel(run).stages[1]
    ruled = [score for score in scores(run, run.verdict()) if score.rule]
    assert ruled[0].kept + ruled[0].lost == counted.seen
    assert {str(score.rule): score.lost for score in ruled if score.lost} == counted.reasons
    assert len(ruled[0].passed) == ruled[0].kept
    assert max(ruled[0].passed) <= 1.5 < min(ruled[0].dropped)


def test_page_has_a_section_for_all_that_the_run_has(shown: Page) -> None:
    sections = {value for tag, name, value in shown.attributes if (tag, name) == ("section", "id")}
    assert sections == {"funnel", "rules", "scores", "groups", "captions", "errors", "speed", "provenance"}
    assert "c0ffee" * 8 in shown.text, "the hash of the weights"
    assert "max_aspect_ratio: 1.5" in shown.text, "the recipe"
    pictures = [value for tag, name, value in shown.attributes if (tag, name) == ("img", "src")]
    assert pictures
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in pictures)
    assert all(value for tag, name, value in shown.attributes if (tag, name) == ("img", "alt"))


def test_run_of_an_index_only_has_a_report(tmp_path: Path, make_images) -> None:  # type: ignore[no-untyped-def]
    recipe = {"pool": {"images": str(make_images(tmp_path / "pool", 3))}, "stages": []}
    shown = Page(report(store_run(tmp_path / "run", recipe, {})))
    assert "index 3 of 3" in shown.text
    sections = {value for tag, name, value in shown.attributes if (tag, name) == ("section", "id")}
    assert sections == {"funnel", "provenance"}


def test_report_of_films_speaks_of_films(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    for number in range(3):
        film(tmp_path / f"pool/{number}.mp4", 2)
    recipe = {"pool": {"videos": str(tmp_path / "pool")}, "stages": [{"stage": "aspect_ratio", "keep": {"max": 2.5}}]}
    text = Page(report(run_here(recipe, tmp_path / "run")[0])).text
    assert "3 films reach it" in text
    assert "films/s" in text
    assert "images" not in text


def test_hostile_names_and_captions_are_bounded_text(tmp_path: Path, shown: Page) -> None:
    opened = page_run(tmp_path, HOSTILE_NAMES, HOSTILE_TEXT * 1000)
    html = report(opened)
    hostile = Page(html)
    assert hostile.tags <= shown.tags
    assert not hostile.tags & {"script", "iframe", "link", "object", "embed", "base", "form"}
    names = {name for _, name, _ in hostile.attributes}
    assert not [name for name in names if name.startswith("on")]
    targets = {value[:5] for _, name, value in hostile.attributes if name in ("src", "href", "xlink:href")}
    assert all(target == "data:" or target.startswith("#") for target in targets)
    assert "@import" not in hostile.style
    assert "url(" not in hostile.style
    assert not {"\x1b", "\u202e", "\u200b"} & set(html)
    assert "</style></script><script>alert(1)</script>" in hostile.text
    assert any(name in hostile.text for name in HOSTILE_NAMES[:1])
    assert max(map(len, hostile.texts)) < 3000
    assert len(html) < 3_000_000


def test_policy_of_the_page_forbids_scripts_and_loads(shown: Page) -> None:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert ("meta", "content", policy) in shown.attributes


@pytest.mark.parametrize("package", ["jinja2", "matplotlib.figure"])
def test_missing_package_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    page.environment.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"is not installed, which pages need: pip install 'vl3syn\[report\]'"):
        report(run)
    page.environment.cache_clear()


def test_damaged_records_of_jobs_are_named(tmp_path: Path) -> None:
    opened = page_run(tmp_path)
    contents = (b"", b"[]", b'{"stage": "index"}', b'{"stage": ', b"\xff")
    broken = [tmp_path / "run" / "jobs" / f"{9 - number}-broken.json" for number in range(len(contents))]
    for file, content in zip(broken, contents, strict=True):
        file.write_bytes(content)
    said: list[str] = []
    page = report(opened, said.append)
    assert sorted(said) == [
        f"{file}: the record of a job is damaged and not counted: delete it" for file in sorted(broken)
    ]
    for file in broken:
        file.unlink()
    assert report(opened) == page


def test_code_that_a_run_names_is_not_run(
    run: Run, shown: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    size, caption = run.recipe["stages"]
    stages = [{**size, "class": "evil:Evil"}, {**caption, "engine": {"kind": "evil:Engine"}}]
    page = Page(report(replace(run, recipe={**run.recipe, "pool": {"kind": "evil:Pool"}, "stages": stages})))
    assert not (tmp_path / "canary").exists()
    assert "the pool is of the class evil:Pool, whose code is not run" in page.text
    assert page.text.count("not known") == shown.text.count("not known") + 2, "models"


def test_many_kinds_of_errors_are_counted_not_listed(tmp_path: Path, make_images) -> None:  # type: ignore[no-untyped-def]
    recipe = {"pool": {"images": str(make_images(tmp_path / "pool", 35))}, "stages": [{"stage": "aspect_ratio"}]}
    keys = ids_of(store_run(tmp_path / "index", recipe, {}))
    kinds = {key: f"kind {'x' * number}: {key}" for number, key in enumerate(keys)}
    page = Page(report(store_run(tmp_path / "run", recipe, {"aspect_ratio": kinds})))
    assert "and 5 rarer reasons" in page.text
    assert len([text for text in page.texts if text.startswith("kind") and ":" not in text]) == 30, "cells of the table"
