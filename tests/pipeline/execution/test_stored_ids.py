"""Lists of URLs that change after they were indexed: what stays the same row keeps its id, and so its facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import Run, open_run
from pipeline.execution.failed import mark
from pipeline.execution.runner import prepare, run_stages
from pipeline.recipe import parse_recipe
from tests.runs import jobs_here, run_here

pytestmark = pytest.mark.usefixtures("here")
FORMS = ("csv", "parquet")


def row(number: int, **other: Any) -> dict[str, Any]:
    sized = {"width": 400 + number, "height": 300} if number % 3 else {"width": None, "height": None}
    return {"uid": number, "url": f"http://x/{number}.jpg", "text": f"text {number}", **sized, **other}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        pl.DataFrame(rows, infer_schema_length=None).write_csv(path)


def run(folder: Path, form: str, **pool: str) -> tuple[Run, int]:
    """The run of the list, and how many rows `aspect_ratio` computed."""
    recipe = {
        "name": "t",
        "pool": {"urls": str(folder / f"list.{form}"), **pool},
        "stages": [{"stage": "aspect_ratio", "keep": {"max": 1.5, "min_side": 200}}],
    }
    opened, jobs = run_here(recipe, folder / "run")
    return opened, jobs["aspect_ratio"].computed


def ids(opened: Run) -> dict[str, int]:
    rows = opened.index.scan(["url", "text_encoding", "id"]).collect()
    return dict(rows.select("url", "id").iter_rows())


@pytest.mark.parametrize("form", FORMS)
def test_list_that_grows_computes_only_its_new_rows(tmp_path: Path, form: str) -> None:
    rows = [row(number) for number in range(20)]
    write(tmp_path / f"list.{form}", rows)
    opened, computed = run(tmp_path, form)
    before = ids(opened)
    assert (len(before), computed) == (20, 20)
    write(tmp_path / f"list.{form}", [*rows, row(20), row(21)])
    opened, computed = run(tmp_path, form)
    assert computed == 2
    assert {url: id_ for url, id_ in ids(opened).items() if url in before} == before
    assert opened.manifest().select(pl.len()).collect().item() == 22


@pytest.mark.parametrize("form", FORMS)
def test_list_in_another_order_computes_nothing_again(tmp_path: Path, form: str) -> None:
    rows = [row(number) for number in range(20)]
    write(tmp_path / f"list.{form}", [*rows, rows[3]])
    before, _ = run(tmp_path, form)
    stored = set(before.index.scan(["id"]).collect()["id"])
    write(tmp_path / f"list.{form}", [row(99), *rows[::-1], rows[3]])
    opened, computed = run(tmp_path, form)
    assert computed == 1
    assert len(stored) == 21
    assert stored < set(opened.index.scan(["id"]).collect()["id"])


@pytest.mark.parametrize("form", FORMS)
def test_last_of_two_equal_rows_keeps_its_id(tmp_path: Path, form: str) -> None:
    twice = row(1)
    write(tmp_path / f"list.{form}", [twice, twice])
    run(tmp_path, form)
    lists = [[*(row(n) for n in range(2, 5)), twice], [row(7), *(row(n) for n in range(2, 5)), twice]]
    seen = []
    for rows in lists:
        write(tmp_path / f"list.{form}", rows)
        seen.append(ids(run(tmp_path, form)[0])["http://x/1.jpg"])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("form", FORMS)
def test_row_that_says_something_else_has_a_new_id_for_good(tmp_path: Path, form: str) -> None:
    first, other = row(1), row(1, url="http://x/another.jpg")
    seen: dict[str, set[int]] = {}
    for number, changed in enumerate((first, other, row(1, url="http://x/a/third.jpg"), first, row(1, text="new"))):
        write(tmp_path / f"list.{form}", [changed, *(row(n) for n in range(2, 4 + number))])
        opened, _ = run(tmp_path, form)
        rows = opened.index.scan(["id", "url", "alt_text"]).collect()
        for id_, url, text in rows.iter_rows():
            seen.setdefault(f"{url} {text}", set()).add(id_)
    assert {len(of_row) for of_row in seen.values()} == {1}
    assert len(set.union(*seen.values())) == len(seen) == 4 + 6


@pytest.mark.parametrize("form", FORMS)
def test_ids_of_the_source_may_move_and_grow(tmp_path: Path, form: str) -> None:
    rows = [row(number) for number in range(20)]
    write(tmp_path / f"list.{form}", rows)
    run(tmp_path, form, id="uid")
    write(tmp_path / f"list.{form}", [row(20), *rows[::-1]])
    opened, computed = run(tmp_path, form, id="uid")
    assert computed == 1
    assert ids(opened) == {f"http://x/{number}.jpg": number for number in range(21)}


@pytest.mark.parametrize("form", FORMS)
def test_id_of_the_source_with_another_url_is_refused(tmp_path: Path, form: str) -> None:
    rows = [row(number) for number in range(5)]
    write(tmp_path / f"list.{form}", rows)
    run(tmp_path, form, id="uid")
    for changed, what in {
        "http://x/longer/4.jpg": r"such as 4 \(http://x/4\.jpg → http://x/longer/4\.jpg\)",
        "http://x/4.jpg": r"such as 4 \(http://x/4\.jpg, with another text or size\)",
    }.items():
        write(tmp_path / f"list.{form}", [*rows[:4], row(4, url=changed, text="another text")])
        with pytest.raises(ValueError, match=rf"^list\.{form}: 1 ids in 'uid' were those of other rows .*{what}"):
            run(tmp_path, form, id="uid")
    write(tmp_path / f"list.{form}", [*rows, row(5)])
    assert run(tmp_path, form, id="uid")[1] == 1


def test_id_that_moves_to_a_new_shard_is_compared(tmp_path: Path) -> None:
    write(tmp_path / "pool" / "a.csv", [row(1), row(2)])
    recipe = {"name": "t", "pool": {"urls": f"{tmp_path}/pool/*.csv", "id": "uid"}, "stages": []}
    run_here(recipe, tmp_path / "run")
    write(tmp_path / "pool" / "a.csv", [row(1)])
    run_here(recipe, tmp_path / "run")
    write(tmp_path / "pool" / "b.csv", [row(2, url="http://x/another.jpg")])
    with pytest.raises(ValueError, match=r"^b\.csv: 1 ids in 'uid' were those of other rows"):
        run_here(recipe, tmp_path / "run")
    write(tmp_path / "pool" / "b.csv", [row(2), row(3)])
    opened, _ = run_here(recipe, tmp_path / "run")
    assert ids(opened) == {f"http://x/{number}.jpg": number for number in (1, 2, 3)}


def test_list_with_ids_that_is_renamed_keeps_its_facts(tmp_path: Path) -> None:
    rows = [row(number) for number in range(1, 4)]
    write(tmp_path / "pool" / "a.csv", rows)
    recipe = {"name": "t", "pool": {"urls": f"{tmp_path}/pool", "id": "uid"}, "stages": [{"stage": "aspect_ratio"}]}
    run_here(recipe, tmp_path / "run")
    (tmp_path / "pool" / "a.csv").rename(tmp_path / "pool" / "b.csv")
    with pytest.raises(ValueError, match=r"leave an empty file in the place of the old one$"):
        run_here(recipe, tmp_path / "run")
    (tmp_path / "pool" / "a.csv").touch()
    opened, jobs = run_here(recipe, tmp_path / "run")
    assert (jobs["aspect_ratio"].computed, jobs["aspect_ratio"].stored) == (0, 3)
    kept = opened.manifest().filter(status="kept").select("id", "shard").collect()
    assert kept.rows() == [(number, "b.csv") for number in (1, 2, 3)]


def test_sizeless_rows_of_earlier_versions_can_be_retried(tmp_path: Path) -> None:
    write(tmp_path / "list.parquet", [row(number) for number in range(4)])
    before, _ = run(tmp_path, "parquet")
    rows = before.index.scan().collect()
    error = pl.when(pl.col("width").is_null()).then(
        pl.lit("no size: the metadata has no width and height for this row")
    )
    old = rows.with_columns(error=error).to_arrow(compat_level=pl.CompatLevel.oldest())
    before.index.append(old, before.index.next_writer(), {})
    opened, computed = run(tmp_path, "parquet")
    assert (computed, opened.manifest().collect()["status"].value_counts(sort=True).rows()) == (
        0,
        [("error", 2), ("kept", 2)],
    )
    assert mark(open_run(str(tmp_path / "run")), "index", "error like 'no size%'").marked == 2
    opened, _ = run(tmp_path, "parquet")
    assert ids(opened) == dict(rows.select("url", "id").iter_rows())
    assert opened.manifest().collect()["status"].to_list() == ["kept"] * 4


def test_rows_of_unknown_size_pass_the_first_cut(tmp_path: Path) -> None:
    rows = [row(number) for number in range(3)]
    write(tmp_path / "list.csv", [*rows, row(4, width=900), row(5, height=100, width=100), row(6, width="", height=9)])
    opened, _ = run(tmp_path, "csv")
    manifest = opened.manifest().sort("url").collect()
    assert manifest.select("width", "aspect_ratio", "side", "status", "drop_reason").rows() == [
        (None, None, None, "kept", None),
        (401, pytest.approx(401 / 300), 300, "kept", None),
        (402, pytest.approx(402 / 300), 300, "kept", None),
        (900, 3.0, 300, "dropped", "aspect_ratio 3 > 1.5"),
        (100, 1.0, 100, "dropped", "side 100 < 200"),
        (None, None, None, "kept", None),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_columns_of_a_list_that_changed_are_refused(tmp_path: Path, form: str) -> None:
    rows = [row(number, num_faces=number) for number in range(4)]
    recipe = {"name": "t", "pool": {"urls": f"{tmp_path}/list.{form}"}, "stages": [{"stage": "coyo"}]}
    write(tmp_path / f"list.{form}", rows)
    run_here({**recipe, "stages": []}, tmp_path / "run")
    write(tmp_path / f"list.{form}", [row(9, num_faces=9), *rows])
    opened, checked = prepare(parse_recipe(recipe, "t"), str(tmp_path / "run")), parse_recipe(recipe, "t")
    said = rf"list\.{form} has .* when it was indexed: index the pool again"
    with jobs_here(), pytest.raises(ValueError, match=said):
        list(run_stages(opened, checked))
    opened, _ = run_here(recipe, tmp_path / "run")
    stored = opened.manifest().select("url", "coyo_faces").collect()
    assert dict(stored.iter_rows()) == {f"http://x/{number}.jpg": number for number in (0, 1, 2, 3, 9)}
