"""Which columns are published: every fact, but for what people wrote down while they reviewed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.execution.runner import recipe_of
from pipeline.publishing.published_columns import published_columns, stage_tables
from tests.stored_facts import store_run


def test_marks_of_people_are_no_published_columns(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    """Nor are they another recipe: the publication goes on after a review."""
    pool = make_images(tmp_path / "pool", 1)
    shape = {"aspect_ratio": 1.0, "side": 20, "pixels": 400}
    marks = {"review_wrong": 1, "review_good": 0, "review_unsure": 0, "review_note": "private"}
    stages = [{"stage": "aspect_ratio"}, {"stage": "review", "as": "people"}]
    facts = {"aspect_ratio": {"000000.jpg": shape}, "people": {"000000.jpg": marks}}
    run = store_run(tmp_path / "run", {"name": "t", "pool": {"images": str(pool)}, "stages": stages}, facts)
    recipe = recipe_of(run)
    assert run.manifest(["review_note"]).collect()["review_note"].to_list() == ["private"]
    assert list(stage_tables(run, recipe)) == ["aspect_ratio"]
    columns = published_columns(run, recipe)
    assert "aspect_ratio" in columns.names
    assert [name for name in columns.names if name.startswith("review")] == []
