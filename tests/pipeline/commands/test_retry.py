"""`vl3syn retry`: failed rows are computed again by the next run; no other row is, and none is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from manifests import Run, funnel, open_run
from manifests.compaction import compact
from manifests.journal import Journal
from manifests.run import index_table, stage_folder
from manifests.schemas import INDEX
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.failed import mark
from pipeline.execution.planner import unstored
from pipeline.execution.runner import recipe_of
from tests.chat_server import ChatServer, chat_server
from tests.conftest import jpeg
from tests.runs import run

MakeImages = Callable[..., Path]
Call = Callable[..., subprocess.CompletedProcess[str]]


def captions(pool: Path, server: ChatServer) -> dict[str, Any]:
    engine = {"kind": "server", "url": server.url, "pause": 0.01, "tries": 1, "concurrency": 4}
    stage = {"stage": "short_caption", "model": "m", "engine": engine}
    return {"name": "t", "pool": {"images": str(pool)}, "stages": [stage, {"stage": "hashes"}]}


def facts(url: Path, stage: str = "short_caption") -> pl.DataFrame:
    return open_run(url).facts(stage).sort("id").collect()


@pytest.mark.usefixtures("here")
def test_failed_rows_are_computed_again_after_the_command(
    tmp_path: Path, make_images: MakeImages, vl3syn: Call
) -> None:
    pool, url = make_images(tmp_path / "pool", 40), tmp_path / "run"
    path = tmp_path / "recipe.yaml"
    with chat_server(faults=("400",), share=0.5, refusal="context of 4096 tokens, request has {n}") as server:
        path.write_text(yaml.safe_dump(captions(pool, server)))
        assert vl3syn("run", path, "--run", url).returncode == 0
        before = facts(url)
        failed = before["error"].count()
        assert 8 < failed < 32
        server.share = 0.0
        assert vl3syn("run", path, "--run", url).returncode == 0
        assert facts(url).equals(before), "what a server refuses is not asked again by itself"

        done = vl3syn("retry", url, "short_caption", "--where", "error like '%context%'", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {
            "stage": "short_caption",
            "marked": failed,
            "already": 0,
            "errors": {"server: 400 context of … tokens, request has …": failed},
        }
        assert facts(url).drop("retry").equals(before.drop("retry"))
        answered = Counter(server.answered)
        again = vl3syn("run", path, "--run", url, "--json")
        assert again.returncode == 0, again.stderr
        jobs = {job["stage"]: job for job in json.loads(again.stdout)["jobs"]}
        assert (jobs["short_caption"]["computed"], jobs["short_caption"]["stored"]) == (failed, 40 - failed)
        assert jobs["hashes"]["computed"] == failed, "what comes behind it sees these images for the first time"
        assert (server.answered - answered).total() == failed
        assert set(server.answered.values()) == {1}
    assert json.loads(again.stdout)["funnel"]["survivors"] == 40
    good = before.filter(pl.col("error").is_null())
    assert good.height == 40 - failed
    assert facts(url).filter(pl.col("id").is_in(good["id"].implode())).equals(good)


def test_retry_command_reports_the_rows_to_retry(tmp_path: Path, make_images: MakeImages, vl3syn: Call) -> None:
    stored_run(tmp_path / "run", {0: None, 1: "server: 400 of 17 tokens", 2: "server: 400 of 18 tokens", 3: "empty"})
    done = vl3syn("retry", tmp_path / "run", "short_caption", "--where", "error like 'server: 400%'")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "short_caption: the next run tries 2 failed rows again"
    assert "2   server: 400 of … tokens" in done.stdout
    more = vl3syn("retry", tmp_path / "run", "short_caption")
    assert more.stdout.splitlines()[0] == "short_caption: the next run tries 1 failed row again; 2 more it tries anyway"
    done = vl3syn("retry", tmp_path / "run", "short_caption")
    assert (done.returncode, done.stdout) == (
        0,
        "short_caption: the next run tries the 3 failed rows again anyway\n",
    )
    for wrong, said in (
        (("nsfw",), "has no stage 'nsfw'; valid are index, short_caption"),
        (("short_captoin",), "has no stage 'short_captoin'; did you mean 'short_caption'?"),
        (("index",), "index has no failed rows"),
        (("short_caption", "--where", "error like '%413%'"), "of 3 failed rows of short_caption none fits"),
        (("short_caption", "--where", "errror like '%413%'"), "no column 'errror'; did you mean 'error'?"),
        (("short_caption", "--where", "error like"), "is no SQL expression: "),
        (("short_caption", "--where", "id + 1"), "--where 'id + 1': gives Int64, not true or false"),
        (("short_caption", "--where", "error_like_\udcff"), "is no SQL expression: it is not UTF-8"),
    ):
        refused = vl3syn("retry", tmp_path / "run", *wrong)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1), refused.stderr
        assert said in refused.stderr


def test_condition_may_read_all_columns_of_the_manifest(tmp_path: Path) -> None:
    """And `error` is that of the stage, not of the index."""
    opened = stored_run(tmp_path / "run", {0: None, 1: "server: 400 a", 2: "server: 413 b", 3: "server: 400 c"})
    condition = (
        "status = 'error' and drop_reason like '%400%' and error like '%400%' and short_words is null and width = 9"
    )
    assert mark(opened, "short_caption", f"{condition} and width = 9").marked == 2
    with pytest.raises(UserError, match="none fits"):
        mark(opened, "short_caption", "status = 'kept'")


def stored_run(url: Path, errors: dict[int, str | None], stage: str = "short_caption") -> Run:
    """A run with rows of a stage, stored as any job stores them; an image's id is its number."""
    folder = Folder.at(url)
    keys = [f"{id_ % 3}/{id_}.jpg" for id_ in errors]
    columns: dict[str, Any] = {"id": list(errors), "shard": [key[0] for key in keys], "key": keys}
    columns |= {"width": [9] * len(keys), "retry": [False] * len(keys)}
    index = [pa.array(columns.get(f.name, [None] * len(keys)), f.type) for f in INDEX]
    index_table(folder).append(pa.table(index, schema=INDEX), "000001-a", {"reader": 2})
    recipe = {"vl3syn": "x", "name": "x", "pool": {"images": "/nowhere"}, "stages": [{"stage": stage, "table": "x"}]}
    folder.write("recipe.yaml", yaml.safe_dump(recipe).encode())
    step = recipe_of(open_run(str(url))).steps[0]
    recipe["stages"] = [{"stage": stage, "table": step.table}]
    folder.write("recipe.yaml", yaml.safe_dump(recipe).encode())
    table = Table.stored(stage_folder(folder, step.table))
    table = Table(
        table.folder,
        pa.schema([*([f for f in table.schema if f.name == "id"]), *step.stage.writes, *list(table.schema)[-2:]]),
    )
    for start, writer in ((0, "000001-a"), (1, "000002-b")):  # by two jobs
        ids = list(errors)[start::2]
        if ids:
            table.append(rows_of(table, {id_: errors[id_] for id_ in ids}), writer, {"weights": "abc"})
    return open_run(str(url))


def rows_of(table: Table, errors: dict[int, str | None]) -> pa.Table:
    columns = {
        "id": list(errors),
        "short_caption": [None if error else f"number {id_}" for id_, error in errors.items()],
        "error": list(errors.values()),
        "retry": [False] * len(errors),
    }
    return pa.table(
        [pa.array(columns.get(f.name, [None] * len(errors)), f.type) for f in table.schema], schema=table.schema
    )


def test_errors_that_differ_in_ids_are_one_line(tmp_path: Path) -> None:
    errors = {n: f"E{n}: no GPU left" for n in range(5)}
    errors |= {n: f"server: {n} of img_{n}f failed (id: a1-{n}b-c)" for n in range(400, 403)}
    errors |= {500 + n: f"server: 500 at {n},000.5 tokens" for n in range(2)}
    assert mark(stored_run(tmp_path / "run", dict(errors)), "short_caption").errors == {
        "…: no GPU left": 5,
        "server: 500 at … tokens": 2,
        **{f"server: {n} of … failed (id: …)": 1 for n in range(400, 403)},
    }


def test_funnel_groups_errors_that_start_with_numbers(tmp_path: Path) -> None:
    errors = {n: f"image {n}: no GPU left" for n in range(30)} | {90: "empty caption: cut"}
    assert funnel(stored_run(tmp_path / "run", dict(errors))).stages[1].reasons == {"image …": 30, "empty caption": 1}


@settings(max_examples=15)
@given(
    errors=st.dictionaries(
        st.integers(0, 60), st.sampled_from([None, "server: 400 a", "server: 413 b", "empty: c"]), min_size=1
    ),
    conditions=st.lists(
        st.sampled_from(["error like '%400%'", "error like 'empty%'", "id < 30", "shard = '1'", "width > 9", None]),
        max_size=4,
    ),
)
def test_retry_marks_only_matching_rows_and_loses_none(
    tmp_path_factory: pytest.TempPathFactory, errors: dict[int, str | None], conditions: list[str | None]
) -> None:
    fits: dict[str | None, Callable[[int, str], bool]] = {
        "error like '%400%'": lambda id_, error: "400" in error,
        "error like 'empty%'": lambda id_, error: error.startswith("empty"),
        "id < 30": lambda id_, error: id_ < 30,
        "shard = '1'": lambda id_, error: id_ % 3 == 1,
        "width > 9": lambda id_, error: False,
        None: lambda id_, error: True,
    }
    opened = stored_run(tmp_path_factory.mktemp("r"), errors)
    before, counted = opened.facts("short_caption").sort("id").collect(), funnel(opened)
    tried: set[int] = set()
    for condition in conditions:
        fitting = {id_ for id_, error in errors.items() if error and fits[condition](id_, error)}
        if not fitting:
            with pytest.raises(UserError, match=r"no failed rows|none fits"):
                mark(opened, "short_caption", condition)
            continue
        done = mark(opened, "short_caption", condition)
        assert (done.marked, done.already) == (len(fitting - tried), len(fitting & tried))
        assert sum(done.errors.values()) == done.marked
        tried |= fitting
    now = opened.facts("short_caption").sort("id").collect()
    assert now.drop("retry").equals(before.drop("retry"))
    assert set(now.filter("retry")["id"]) == tried
    assert funnel(opened) == counted
    table = opened.stages[0].table
    assert set(unstored(table, pl.DataFrame({"id": sorted(errors)})).frame()["id"]) == tried
    assert table.provenance() == {"weights": "abc"}


@pytest.mark.thorough
def test_retry_killed_at_any_part_is_completed_later(tmp_path: Path) -> None:
    opened = stored_run(tmp_path / "run", {0: None})
    table = opened.stages[0].table
    for number in range(1, 60):
        ids = range(number * 10, number * 10 + 10)
        errors = {id_: "server: 400 a" if id_ % 2 else None for id_ in ids}
        table.append(rows_of(table, errors), table.next_writer(), {"weights": "abc"})
    before = opened.facts("short_caption").sort("id").collect()
    marked, kills = 0, 0
    while True:
        command = subprocess.Popen([sys.executable, "-m", "pipeline", "retry", str(tmp_path / "run"), "short_caption"])
        parts = len(table.parts())
        while len(table.parts()) < parts + 20 and command.poll() is None:
            time.sleep(0.001)
        command.kill()
        now = opened.facts("short_caption").sort("id").collect()
        assert now.drop("retry").equals(before.drop("retry"))
        assert now.filter("retry")["error"].is_not_null().all()
        assert marked < now["retry"].sum()
        marked = now["retry"].sum()
        if command.wait() == 0:
            break
        kills += 1
    assert kills > 0
    assert marked == 59 * 5


def test_rows_of_a_compacted_table_are_marked(tmp_path: Path) -> None:
    opened = stored_run(tmp_path / "run", {id_: "server: 400 a" if id_ % 3 else None for id_ in range(20)})
    table = opened.stages[0].table
    table.append(rows_of(table, {1: None, 2: "server: 413 b"}), table.next_writer(), {"weights": "new"})
    assert compact(table).files_after == 1
    before = opened.facts("short_caption").sort("id").collect()
    failed = sorted(id_ for id_ in range(2, 20) if id_ % 3)
    assert mark(opened, "short_caption").marked == len(failed)
    now = opened.facts("short_caption").sort("id").collect()
    assert now.drop("retry").equals(before.drop("retry"))
    assert now.filter("retry")["id"].to_list() == failed
    computed_by = {id_: table.provenance(table.part_of(id_))["weights"] for id_ in range(20)}
    assert computed_by == {id_: "new" if id_ in (1, 2) else "abc" for id_ in range(20)}


def test_rows_of_a_journal_are_marked_for_retry(tmp_path: Path) -> None:
    opened = stored_run(tmp_path / "run", {0: None})
    stored = opened.stages[0].table
    table = Table(stored.folder, stored.schema.remove_metadata())
    for part in table.parts():
        table.folder.delete(part)  # it was killed before its first part
    journal = Journal(table, pa.chunked_array([pa.array([0, 1, 2])]), {})
    journal.append(rows_of(table, {0: None, 1: "server: 400 a"}))
    assert mark(opened, "short_caption").marked == 1
    rows = {
        id_: (text, retry)
        for id_, text, retry in opened.facts("short_caption", ["id", "short_caption", "retry"]).collect().iter_rows()
    }
    assert rows == {0: ("number 0", False), 1: (None, True)}


@pytest.mark.usefixtures("here")
def test_repaired_file_of_the_same_length_is_indexed_again(tmp_path: Path) -> None:
    """In a tar: its shard is read again as a whole, and the ids of its images stay, also after it has changed once."""
    import tarfile

    pool, url = tmp_path / "pool", tmp_path / "run"
    pool.mkdir()

    def write(shard: str, *broken: int) -> None:
        with tarfile.open(pool / shard, "w") as tar:
            for number in range(4):
                image = jpeg(20 + number, 20, number)
                (tmp_path / f"{number}.jpg").write_bytes(b"\0" * len(image) if number in broken else image)
                tar.add(tmp_path / f"{number}.jpg", f"{number}.jpg")

    recipe = {"name": "t", "pool": {"tars": f"{pool}/*.tar"}, "stages": [{"stage": "hashes"}]}
    write("a.tar", 1, 2)
    write("b.tar")
    (pool / "a.tar").write_bytes((pool / "a.tar").read_bytes() + bytes(10240))
    run(recipe, url)
    write("a.tar", 1, 2)
    run(recipe, url)  # it has another length: its images have new ids
    before = open_run(url).index.scan().sort("id").collect()
    assert before["error"].count() == 2
    write("a.tar", 2)
    _, jobs = run(recipe, url)
    assert jobs["index"].computed == 0, "it has the length that it had"
    assert mark(open_run(url), "index", "key = '1.jpg'").marked == 1
    assert open_run(url).index.scan().sort("id").collect().drop("retry").equals(before.drop("retry"))
    _, jobs = run(recipe, url)
    after = open_run(url).index.scan().sort("id").collect()
    assert after["id"].equals(before["id"])
    assert after.filter(pl.col("error").is_not_null())["key"].to_list() == ["2.jpg"]
    assert (jobs["index"].computed, jobs["hashes"].computed) == (4, 1)


@pytest.mark.usefixtures("here")
def test_retried_row_of_duplicates_compares_its_group_again(
    tmp_path: Path, photographs: list[Path], tiny_clip: Path
) -> None:
    """And rows with embeddings can be marked: `clip`, `clusters` and `duplicates` in one run."""
    pool, url = tmp_path / "pool", tmp_path / "run"
    pool.mkdir()
    for photograph in photographs[:6]:
        shutil.copy(photograph, pool)
    clip = {"stage": "clip", "encoder": str(tiny_clip), "precision": "float32"}
    stages = [clip, {"stage": "hashes"}, {"stage": "clusters", "clusters": 1}, {"stage": "duplicates"}]
    opened, _ = run({"name": "t", "pool": {"images": str(pool)}, "stages": stages}, url)
    for name in ("clip", "duplicates"):
        table = next(stage.table for stage in opened.stages if stage.name == name)
        rows = table.read(table.parts()[-1], table.schema.names).slice(0, 1)
        nulls = [pa.nulls(1, field.type) for field in table.writes]
        failed = [rows["id"], *nulls, pa.array(["server: 400 x"]), pa.array([False])]
        table.append(pa.table(failed, schema=table.schema), table.next_writer(), table.provenance())
        assert mark(open_run(url), name).marked == 1
    opened, jobs = run({"name": "t", "pool": {"images": str(pool)}, "stages": stages}, url)
    assert (jobs["clip"].computed, jobs["duplicates"].computed) == (1, 6)
    assert facts(url, "clip").null_count().sum_horizontal().item() == 6, "only the errors"
    assert facts(url, "duplicates")["error"].null_count() == 6
    assert funnel(opened).survivors == 6
