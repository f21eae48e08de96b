"""`images` and `show`: what a notebook shows of any frame with ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.errors import UserError
from manifests import Run
from pipeline.notebook import images, show
from tests.stored_facts import ids_of, store_run

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def run(tmp_path: Path, make_images: Callable[..., Path]) -> Run:
    pool = make_images(tmp_path / "pool", 6)
    facts = {f"{number:06d}.jpg": {"quality": number / 10} for number in range(6)}
    recipe = {"name": "t", "pool": {"images": str(pool)}, "stages": [{"stage": "quality", "keep": {"min": 0.25}}]}
    return store_run(tmp_path / "run", recipe, {"quality": facts})


def test_images_of_a_frame_are_the_bytes_of_the_pool(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pool" / "000004.jpg").unlink()
    keys = {id_: key for key, id_ in ids_of(run).items()}
    kept = run.manifest().filter(pl.col("status") == "kept")
    read = {keys[image.id]: image for image in images(run.url, kept)}
    assert sorted(read) == ["000003.jpg", "000004.jpg", "000005.jpg"]
    assert read["000003.jpg"].data == (tmp_path / "pool" / "000003.jpg").read_bytes()
    assert read["000004.jpg"].data is None
    assert "No such file" in read["000004.jpg"].error


def test_show_has_the_frames_order_columns_and_values(run: Run) -> None:
    frame = run.facts("quality").select("id", "quality", note=pl.lit(HOSTILE)).sort("quality", descending=True)
    shown = show(run, frame, limit=4)
    assert [dict(tile.values)["quality"] for tile in shown.tiles] == ["0.5", "0.4", "0.3", "0.2"]
    assert [tile.status for tile in shown.tiles] == ["kept", "kept", "kept", "dropped"]
    assert repr(shown) == "4 images of more, 0 of them without a picture"
    html = shown._repr_html_()
    assert html.count("<img ") == 4
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "http" not in html
    assert [tile.values for tile in show(run, frame.collect(), columns=["note"], limit=1).tiles] == [
        (("note", HOSTILE),)
    ]


def test_frame_may_repeat_a_row_and_replace_its_columns(run: Run) -> None:
    ids = sorted(ids_of(run).values())
    frame = pl.DataFrame({"id": [ids[0], ids[1], ids[0]], "key": ["x", "y", "z"]})
    shown = show(run, frame)
    assert [tile.key for tile in shown.tiles] == ["x", "y", "z"]
    assert shown.tiles[0].thumbnail == shown.tiles[2].thumbnail
    assert not shown.more


@pytest.mark.parametrize(
    ("frame", "options", "said"),
    [
        ({"key": ["a"]}, {}, "the frame has no column 'id'"),
        ({"id": ["a"]}, {}, "'id' must hold an integer in every row"),
        ({"id": [None, 1]}, {}, "'id' must hold an integer in every row"),
        ({"id": [17]}, {}, "has no image with the id 17"),
        ({"id": [17], "quality": [0.5]}, {"columns": ["qualty"]}, "no column 'qualty'; did you mean 'quality'"),
        ({"id": [17]}, {"limit": 0}, "limit must be from 1"),
    ],
)
def test_frames_that_cannot_be_shown_are_refused(
    run: Run, frame: dict[str, list[Any]], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        show(run, pl.DataFrame(frame), **options)
    if not options:
        with pytest.raises(UserError, match=said):
            list(images(run, pl.DataFrame(frame)))
