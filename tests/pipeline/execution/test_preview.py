"""What a run would do, before it does it: the numbers are those of the run, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from pipeline.execution.preview import preview
from pipeline.recipe import Recipe, parse_recipe
from tests.conftest import jpeg
from tests.runs import run_here

MakeImages = Callable[..., Path]


def _recipe(pool: Path, *stages: dict[str, Any]) -> dict[str, Any]:
    return {"name": "t", "pool": {"images": str(pool)}, "stages": list(stages)}


def _parsed(pool: Path, *stages: dict[str, Any]) -> Recipe:
    return parse_recipe(_recipe(pool, *stages), "t")


ASPECT = {"stage": "aspect_ratio", "keep": {"max": 1.5}}
QUALITY = {"stage": "quality", "keep": {"top": 0.5}}
HASHES = {"stage": "hashes"}
PLAIN = {"stage": "quality"}


def test_new_run_has_all_rows_to_compute_and_no_folder(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 20)
    (pool / "page.jpg").write_text("<html>")
    plan, _ = preview(_parsed(pool, ASPECT, QUALITY, HASHES), str(tmp_path / "run"))
    assert (plan.pool.shards, plan.pool.unread, plan.pool.indexed) == (21, 21, 0)
    assert (plan.pool.new, plan.pool.usable) == (21, 20)
    assert plan.pool.image_bytes == sum(file.stat().st_size for file in pool.iterdir()) - len("<html>")
    assert [(s.to_compute, s.at_most, s.stored) for s in plan.stages] == [(20, False, 0), (20, True, 0), (10, True, 0)]
    assert plan.fact_bytes == sum(s.row_bytes * (s.to_compute or 0) for s in plan.stages)
    assert not (tmp_path / "run").exists()


def test_numbers_are_those_of_the_next_run(tmp_path: Path, make_images: MakeImages, here: None) -> None:
    pool, url = make_images(tmp_path / "pool", 60), tmp_path / "run"
    run_here(_recipe(pool, ASPECT, HASHES, PLAIN), url)
    plan, _ = preview(_parsed(pool, ASPECT, HASHES, PLAIN), str(url))
    assert [s.to_compute for s in plan.stages] == [0, 0, 0]
    assert plan.stages[0].stored == 60

    looser = {"stage": "aspect_ratio", "keep": {"max": 1.8}}
    plan, _ = preview(_parsed(pool, looser, HASHES, PLAIN), str(url))
    make_images(pool, 10, start=60)
    grown, _ = preview(_parsed(pool, looser, HASHES, PLAIN), str(url))
    _, jobs = run_here(_recipe(pool, looser, HASHES, PLAIN), url)
    assert (plan.stages[0].to_compute, plan.stages[0].at_most) == (0, False)
    assert 0 < (plan.stages[1].to_compute or 0) < jobs["hashes"].computed <= (grown.stages[1].to_compute or 0)
    assert (grown.pool.new, grown.stages[0].to_compute, grown.stages[0].at_most) == (10, 10, False)
    assert jobs["aspect_ratio"].computed == 10
    assert grown.stages[1].to_compute == (plan.stages[1].to_compute or 0) + 10
    assert grown.stages[1].at_most
    assert plan.stages[2].to_compute == plan.stages[1].to_compute, "what hashes has to compute may reach it"
    assert (plan.stages[1].at_most, plan.stages[2].at_most) == (False, True)


def test_other_pool_of_a_run_is_refused_as_by_run(tmp_path: Path, make_images: MakeImages, here: None) -> None:
    url = tmp_path / "run"
    run_here(_recipe(make_images(tmp_path / "pool", 3), ASPECT), url)
    with pytest.raises(UserError, match="was made from the pool"):
        preview(_parsed(make_images(tmp_path / "other", 3), ASPECT), str(url))
    with pytest.raises(UserError, match="No such file or directory"):
        preview(_parsed(tmp_path / "none", ASPECT), str(tmp_path / "new"))


def test_changed_shards_count_once(tmp_path: Path, make_images: MakeImages, here: None) -> None:
    pool, lists = make_images(tmp_path / "pool", 6), tmp_path / "l.csv"
    lists.write_text("url\n" + "".join(f"https://a.example/{n}\n" for n in range(4)))
    urls = {"name": "t", "pool": {"urls": str(lists)}, "stages": [ASPECT]}
    run_here(_recipe(pool, ASPECT), tmp_path / "run")
    run_here(urls, tmp_path / "other")
    (pool / sorted(file.name for file in pool.iterdir())[0]).write_bytes(jpeg(300, 290))
    lists.write_text("url\n" + "".join(f"https://a.example/{n}\n" for n in range(7)))
    for recipe, run, usable, new in ((_recipe(pool, ASPECT), "run", 6, 1), (urls, "other", 7, 3)):
        plan, _ = preview(parse_recipe(recipe, "t"), str(tmp_path / run))
        assert (plan.pool.unread, plan.pool.usable, plan.stages[0].to_compute) == (1, usable, new)
        _, jobs = run_here(recipe, tmp_path / run)
        assert jobs["aspect_ratio"].computed == new


def test_two_images_with_one_id_are_refused_as_by_run(tmp_path: Path, here: None) -> None:
    pq.write_table(pa.table({"image": [jpeg(9, 9), jpeg(9, 8)], "number": [1, 1]}), tmp_path / "0.parquet")
    recipe = {"name": "t", "pool": {"parquet": f"{tmp_path}/0.parquet", "id": "number"}, "stages": [ASPECT]}
    with pytest.raises(UserError) as refused:
        run_here(recipe, tmp_path / "run")
    with pytest.raises(UserError, match="1 ids are used twice") as foretold:
        preview(parse_recipe(recipe, "t"), str(tmp_path / "run"))
    assert str(foretold.value) == str(refused.value)


def test_run_below_a_file_is_refused_as_by_run(tmp_path: Path, make_images: MakeImages, here: None) -> None:
    pool = make_images(tmp_path / "pool", 1)
    (tmp_path / "file").write_text("mine")
    for url in (tmp_path / "file", tmp_path / "file" / "deep" / "run"):
        with pytest.raises(UserError, match="file is not a folder; choose another run directory"):
            preview(_parsed(pool, ASPECT), str(url))
        with pytest.raises(UserError, match="file is not a folder; choose another run directory"):
            run_here(_recipe(pool, ASPECT), url)


def test_missing_model_is_an_error_with_its_licence_and_size(
    tmp_path: Path, make_images: MakeImages, tiny_blip: Path
) -> None:
    pool = make_images(tmp_path / "pool", 2)
    here_, missing = ({"stage": "coarse_caption", "model": str(model)} for model in (tiny_blip, tmp_path / "none"))
    plan, _ = preview(_parsed(pool, here_), str(tmp_path / "run"))
    assert plan.errors == ()
    assert plan.stages[0].models[0].bytes == sum(file.stat().st_size for file in tiny_blip.rglob("*"))
    plan, _ = preview(_parsed(pool, missing), str(tmp_path / "run"))
    assert plan.stages[0].models[0].bytes is None
    assert "is not a model folder" in plan.errors[0] or "neither a folder" in plan.errors[0]


def test_rows_of_a_large_pool_are_unknown_until_its_index(
    tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tarfile

    pool = make_images(tmp_path / "pool", 5)
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.add(pool, "pool")
    recipe = parse_recipe({"name": "t", "pool": {"tars": str(tmp_path / "0.tar")}, "stages": [ASPECT]}, "t")
    assert preview(recipe, str(tmp_path / "run"))[0].pool.new == 5
    monkeypatch.setattr("pipeline.execution.pool_preview._FEW_BYTES", 100)
    plan, _ = preview(recipe, str(tmp_path / "run"))
    assert (plan.pool.new, plan.pool.usable, plan.stages[0].to_compute, plan.fact_bytes) == (None, None, None, None)
