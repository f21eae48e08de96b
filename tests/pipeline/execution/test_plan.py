"""Plans are made part by part. They have the rows that a plain join of the tables has, in the order of the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.stages import GroupedStage, ImageStage, Stage
from manifests import Run, open_run
from manifests.contents import LENGTH, contents_table
from manifests.run import index_table, stage_folder
from manifests.schemas import column, table_schema
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.grouping import cut, group_column
from pipeline.execution.job_columns import columns_of
from pipeline.execution.plan import PlannedBlocks
from pipeline.execution.planner import plan
from pipeline.execution.runner import recipe_of, stored_stage, write_recipe
from pipeline.execution.stage_job import read_groups, rows_to_compute
from pipeline.recipe import Step, parse_recipe


class Captions(Stage):
    name: ClassVar = "captions"
    reads: ClassVar = ("width",)
    writes: ClassVar = pa.schema([column("caption", pa.string(), ""), column("group", pa.int32(), "", 0)])


class Scores(Stage):
    name: ClassVar = "scores"
    reads: ClassVar = ("width",)
    writes: ClassVar = pa.schema(
        [column("score", pa.float32(), ""), column("big", pa.int64(), ""), column("good", pa.bool_(), "")]
    )


class Numbers(Stage):
    name: ClassVar = "numbers"
    reads: ClassVar = ("width", "good", "score")
    writes: ClassVar = pa.schema([column("number", pa.int32(), "")])


class ManyNumbers(Stage):
    name: ClassVar = "many_numbers"
    reads: ClassVar = ("width", "height", "bytes", "big", "score")
    writes: ClassVar = pa.schema([column("many", pa.int32(), "")])


class Texts(Stage):
    name: ClassVar = "texts"
    reads: ClassVar = ("score", "caption", "group")
    writes: ClassVar = pa.schema([column("text", pa.string(), "")])


class Pictures(ImageStage):
    name: ClassVar = "pictures"
    reads: ClassVar = ("image", "score", "caption", "width")
    writes: ClassVar = pa.schema([column("picture", pa.int32(), "")])


class Compared(GroupedStage):
    name: ClassVar = "compared"
    reads: ClassVar = ("group", "caption")
    writes: ClassVar = pa.schema([column("compared", pa.int32(), "")])
    group_by: ClassVar = "group"


READERS = (Numbers, ManyNumbers, Texts, Pictures, Compared)
KINDS = (Captions, Scores, *READERS)


def append(table: Table, rows: pl.DataFrame, sizes: list[int], writer: str) -> None:
    """Store rows in parts of about these sizes."""
    start = 0
    for size in [*sizes, rows.height]:
        part = rows.slice(start, size)
        columns = {name: part[name].to_arrow() for name in part.columns}
        nulls = {f.name: pa.nulls(part.height, f.type) for f in table.schema if f.name not in columns}
        retry = nulls.get("retry") is not None
        nulls |= {"retry": pa.array([False] * part.height)} if retry else {}
        if part.height:
            table.append(pa.table({**columns, **nulls}).select(table.schema.names).cast(table.schema), writer, {})
        start += size


def synthetic(folder: Path, seed: int, rows: int, sizes: list[int]) -> tuple[Run, pl.DataFrame]:
    """A run with some rows stored twice, and the ids that are alive."""
    rng, at = np.random.default_rng(seed), Folder.at(folder)
    (folder / "pool").mkdir(parents=True)
    stages = [{"stage": f"{__name__}:{kind.__name__}"} for kind in KINDS]
    recipe = parse_recipe({"pool": {"tars": f"{folder}/pool/*.tar"}, "stages": stages}, "test")
    write_recipe(recipe.resolved(), at, str(folder))
    tables = {s.name: Table(stage_folder(at, s.table), table_schema(s.stage.writes)) for s in recipe.steps}
    ids = rng.choice(10_000, rows, replace=False).astype(np.int64) * 2**40 - 7
    numbers = np.arange(rows)

    def some(values: Any) -> pl.Series:
        return pl.Series(values).set(pl.Series(rng.random(rows) < 0.2), None)

    index = pl.DataFrame({"id": ids, "shard": [f"{n // 5}.tar" for n in numbers], "key": [str(n) for n in numbers]})
    sides = {name: some(rng.integers(1, 999, rows)).cast(pl.Int32) for name in ("width", "height")}
    index = index.with_columns(**sides, offset=pl.Series(numbers * 512), bytes=some(rng.integers(1, 2**40, rows)))
    table = index_table(at)
    append(table, index, sizes, table.next_writer())
    everything = {
        "captions": {"caption": some([f"text {n}" for n in numbers]), "group": some(rng.integers(0, 15, rows))},
        "scores": {
            "score": some(rng.random(rows)),
            "big": some(rng.integers(2**60, 2**62, rows)),
            "good": some(rng.random(rows) < 0.5),
        },
        "numbers": {"number": pl.Series(numbers)},
        "pictures": {"picture": pl.Series(numbers)},
        "compared": {"compared": pl.Series(numbers)},
        "contents": {"seen_bytes": some(rng.integers(1, 2**40, rows))},
    }
    for name, columns in everything.items():
        table = contents_table(at) if name == "contents" else tables[name]
        for job in range(int(rng.integers(1, 4))):
            few = name == "compared"  # most groups are whole, and of one job
            facts = pl.DataFrame({"id": ids, **columns, "retry": rng.random(rows) < (0.02 if few else 0.2)})
            first = {"captions": 1.0, "compared": 0.98}.get(name, rng.random())
            fraction = rng.random() * (0.1 if few else 1.0) if job else first
            facts = facts.filter(pl.Series(rng.random(rows) < fraction))
            order = facts.sort("id") if name == "scores" else facts
            append(table, order, sizes, f"{job + 1:06d}-{job:08x}")
    alive = np.sort(ids[rng.random(rows) < 0.8])
    return open_run(folder), pl.DataFrame({"id": alive})


def joined(run: Run, step: Step, ids: pl.DataFrame) -> pl.DataFrame:
    """What workers must see of these rows: the columns that the step reads, by joins of whole tables, in pool order."""
    rows = run.index.scan(["id"]).collect().join(ids, on="id", how="semi", maintain_order="left")
    addresses = ["shard", "offset"] if isinstance(step.stage, ImageStage) else []
    for name in [*(n for n in step.stage.reads if n != "image"), *addresses]:
        table = Table.stored(stage_folder(run.folder, step.inputs[name])) if name in step.inputs else run.index
        values = table.scan(["id", name]).collect()
        rows = rows.join(values, on="id", how="left", maintain_order="left")
    if addresses:
        seen = contents_table(run.folder).scan(["id", LENGTH]).collect()
        rows = rows.join(seen, on="id", how="left", maintain_order="left")
    return rows


def missing(run: Run, step: Step, alive: pl.DataFrame) -> pl.DataFrame:
    """The rows of `alive` that a step must compute: without facts, or in a group of such rows or of several jobs."""
    table = stored_stage(run, step).table
    stored = table.scan(["id", "retry"]).collect()
    rows = alive.join(stored.filter(~pl.col("retry")), on="id", how="anti")
    if (name := group_column(step)) is None:
        return rows
    groups = Table.stored(stage_folder(run.folder, step.inputs[name])).scan(["id", name]).collect()
    groups = groups.join(alive, on="id", how="semi")
    located, parts = table.locate()
    jobs = located.collect().with_columns(job=pl.col("part").map_elements(lambda n: parts[n][5:11], pl.String))
    counts = groups.join(jobs, on="id").group_by(name).agg(pl.col("job").n_unique())
    changed = pl.concat([groups.join(rows, on="id").select(name), counts.filter(pl.col("job") > 1).select(name)])
    return groups.join(changed.unique(), on=name, how="semi", nulls_equal=True).select("id").sort("id")


def assert_planned_as_joined(folder: Path, seed: int, rows: int, sizes: list[int]) -> None:
    run, alive = synthetic(folder, seed, rows, sizes)
    if not alive.height:
        return
    recipe = recipe_of(run)
    for step in recipe.steps[2:]:
        groups = read_groups(run, step, alive) if group_column(step) else None
        chosen = rows_to_compute(step, stored_stage(run, step), alive, groups)
        expected = missing(run, step, alive)
        assert chosen.frame().equals(expected)
        planned, inputs = plan(run, recipe, columns_of(step), chosen, grouped=groups is not None)
        blocks = cut(planned, 7, groups)
        columns = joined(run, step, expected)
        got = [pl.DataFrame(inputs.complete(block)).select(columns.columns) for block in blocks]
        assert sum(block.height for block in got) == expected.height
        if groups is not None:
            assert_whole_groups(got, columns)
        elif step.name == "numbers":
            assert pl.concat([columns.clear(), *got]).equals(columns.sort("id"))
        else:
            assert pl.concat([columns.clear(), *got]).equals(columns)
        assert all(again.equals(block) for again, block in zip(blocks, list(blocks), strict=True))


def assert_whole_groups(blocks: list[pl.DataFrame], expected: pl.DataFrame) -> None:
    """Each group is in the block in which its first row falls, in order; within a block the rows are in pool order."""
    sizes = expected.group_by("group").len().sort("group")
    sizes = sizes.with_columns(block=(pl.col("len").cum_sum() - pl.col("len")) // 7)
    placed = expected.join(sizes, on="group", nulls_equal=True, maintain_order="left")
    wanted = [placed.filter(block=n).select(expected.columns) for n in placed["block"].unique().sort()]
    assert [block.rows() for block in blocks] == [block.rows() for block in wanted]


@pytest.mark.parametrize("seed", [1, 2])
def test_plans_of_all_kinds_have_the_rows_of_joins(tmp_path: Path, seed: int) -> None:
    assert_planned_as_joined(tmp_path / "run", seed, 60, [20, 7])


@pytest.mark.slow
@given(seed=st.integers(0, 2**31), rows=st.integers(0, 60), sizes=st.lists(st.integers(1, 20), max_size=5))
@settings(max_examples=60)
def test_plan_by_parts_has_the_rows_of_a_join(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, sizes: list[int]
) -> None:
    assert_planned_as_joined(tmp_path_factory.mktemp("r"), seed, rows, sizes)


def test_block_that_is_cut_again_has_the_same_rows(tmp_path: Path) -> None:
    run, alive = synthetic(tmp_path, 0, 60, [20, 20])
    recipe = recipe_of(run)
    step = next(step for step in recipe.steps if step.name == "pictures")
    planned, _ = plan(run, recipe, columns_of(step), rows_to_compute(step, stored_stage(run, step), alive, None))
    blocks = cut(planned, 8)
    assert isinstance(blocks, PlannedBlocks)
    before = blocks[0]
    count, table = before.num_rows, contents_table(run.folder)
    length = pl.DataFrame({"id": pl.Series(before["id"]), LENGTH: [5] * count})
    append(table, length, [], table.next_writer())
    assert table.scan([LENGTH]).filter(pl.col(LENGTH) == 5).collect().height == count
    assert blocks[0].equals(before), "it is read from the parts that were there when the job was planned"
