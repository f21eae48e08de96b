"""Over random facts and rules: no row is lost, every verdict is the one that a plain loop over rows would give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manifests import Run, funnel, open_run
from manifests.run import index_table, stage_folder
from manifests.schemas import INDEX, column, table_schema
from manifests.storage import Folder
from manifests.sweep import sweep
from manifests.tables import Table

STAGES = ("a", "b", "c")
SEVEN = float(pl.Series([0.7], dtype=pl.Float32)[0])  # 0.7 as it is stored
VALUES = st.one_of(
    st.none(), st.just(math.nan), st.sampled_from([0.0, 0.25, 0.5, SEVEN, 1.0]), st.floats(0, 1, width=32)
)
FACT = st.one_of(st.none(), st.just("error: on purpose"), st.tuples(VALUES, st.integers(0, 5)))
RULES = st.dictionaries(
    st.sampled_from(["min_{}", "max_{}", "top_{}", "min_{}_count", "max_{}_count"]),
    st.sampled_from([0.1, 0.25, 0.5, 0.7, 1.0]),
    max_size=3,
)


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """An index, three stages of facts (absent, failed, or two values) and their rules."""
    rows = draw(st.integers(1, 40))
    return {
        "bad": draw(st.lists(st.booleans(), min_size=rows, max_size=rows)),
        "facts": {s: draw(st.lists(FACT, min_size=rows, max_size=rows)) for s in STAGES},
        "rules": {s: {k.format(s): v for k, v in draw(RULES).items()} for s in STAGES},
    }


def build(world: dict[str, Any], folder: Path) -> Run:
    rows = len(world["bad"])
    ids = [(i * 7919) % 10_007 for i in range(rows)]
    base = Folder.at(folder)
    stages = [{"stage": s, "table": f"{s}-0", "keep": world["rules"][s]} for s in STAGES]
    recipe = {"vl3syn": "test", "name": "x", "pool": {}, "stages": stages}
    base.write("recipe.yaml", yaml.safe_dump(recipe, sort_keys=False).encode())  # the order of rules counts
    errors = ["broken: on purpose" if bad else None for bad in world["bad"]]
    keys = [f"{i}.jpg" for i in range(rows)]
    index = pl.DataFrame({"id": ids, "shard": keys, "key": keys, "error": errors, "retry": [False] * rows})
    full = pa.table(
        {f.name: index[f.name].to_arrow() if f.name in index.columns else pa.nulls(rows, f.type) for f in INDEX}
    )
    append(index_table(base), full)
    for stage in STAGES:
        writes = pa.schema([column(stage, pa.float32(), "", 0, 1), column(f"{stage}_count", pa.int32(), "", 0, 5)])
        stored = [(i, f) for i, f in zip(ids, world["facts"][stage], strict=True) if f is not None]
        if stored:
            values = [f if isinstance(f, tuple) else (None, None) for _, f in stored]
            columns = [
                [i for i, _ in stored],
                [v for v, _ in values],
                [n for _, n in values],
                [f if isinstance(f, str) else None for _, f in stored],
                [False] * len(stored),
            ]
            schema = table_schema(writes)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            append(Table(stage_folder(base, f"{stage}-0"), schema), pa.table(arrays, schema=schema))
    return open_run(str(folder))


def append(table: Table, rows: pa.Table) -> None:
    table.append(rows, table.next_writer(), {})


def plainly(world: dict[str, Any]) -> list[str]:
    """What a loop over rows says: `kept`, `error`, `pending` or `dropped` for each."""
    rows = len(world["bad"])
    ids = [(i * 7919) % 10_007 for i in range(rows)]
    status = ["error" if bad else "kept" for bad in world["bad"]]
    for stage in STAGES:
        for i in range(rows):
            fact = world["facts"][stage][i]
            if status[i] == "kept" and not isinstance(fact, tuple):
                status[i] = "pending" if fact is None else "error"
        for name, edge in world["rules"][stage].items():
            kind, _, col = name.partition("_")
            reach = [i for i in range(rows) if status[i] == "kept"]
            value = {i: world["facts"][stage][i][col.endswith("_count")] for i in reach}
            usable = [i for i in reach if value[i] is not None and not math.isnan(value[i])]
            limit = edge if col.endswith("_count") else float(pl.Series([edge], dtype=pl.Float32)[0])
            if kind == "top":
                best = sorted(usable, key=lambda i: (-value[i], ids[i]))
                stay = set(best[: math.ceil(round(edge * len(usable), 9))])
            else:
                stay = {i for i in usable if (value[i] >= limit if kind == "min" else value[i] <= limit)}
            for i in reach:
                if i not in stay:
                    status[i] = "dropped"
    return status


@settings(max_examples=150, deadline=None)
@given(world=worlds())
def test_every_row_is_accounted_for_and_judged_as_a_plain_loop_would(
    world: dict[str, Any], tmp_path_factory: Any
) -> None:
    run = build(world, tmp_path_factory.mktemp("world"))
    expected = plainly(world)

    manifest = run.manifest().collect()
    assert manifest.height == len(expected)
    assert manifest.sort("key")["status"].to_list() == [
        s for _, s in sorted(zip(keys(expected), expected, strict=True))
    ]

    counted = funnel(run)
    assert counted.rows == len(expected)
    assert counted.survivors == expected.count("kept")
    assert counted.rows == counted.survivors + sum(s.dropped + s.errors + s.pending for s in counted.stages)
    for stage in counted.stages:
        assert stage.seen == stage.kept + stage.dropped + stage.errors + stage.pending
        assert sum(stage.reasons.values()) == stage.dropped + stage.errors

    left = manifest.filter(pl.col("status") != "kept")
    assert left["drop_stage"].null_count() == left["drop_reason"].null_count() == 0
    stayed = manifest.filter(pl.col("status") == "kept")
    assert stayed["drop_stage"].null_count() == stayed["drop_reason"].null_count() == stayed.height


EMPTY_BETWEEN = {
    "bad": [False],
    "facts": {"a": [(1.0, 1)], "b": [None], "c": [(1.0, 1)]},
    "rules": {"a": {}, "b": {"min_b": 0.5, "top_b": 0.5}, "c": {}},
}


@settings(max_examples=60, deadline=None)
@example(world=EMPTY_BETWEEN, first=0.5, second="top")
@given(world=worlds(), first=st.sampled_from([0.25, 0.5, 1.0]), second=st.sampled_from(["min", "max", "top"]))
def test_a_sweep_point_counts_what_a_run_with_those_thresholds_keeps(
    world: dict[str, Any], first: float, second: str, tmp_path_factory: Any
) -> None:
    if not all(any(f is not None for f in world["facts"][s]) for s in ("a", "c")):
        return  # nothing stored in a stage, nothing to sweep there
    run = build(world, tmp_path_factory.mktemp("world"))
    table = sweep(run, {"a.min": [first, 0.7], f"c.{second}": [0.25, 0.7]})
    assert table.height == 4
    for a, c, kept, unknown in table.iter_rows():
        rules = {s: dict(world["rules"][s]) for s in STAGES}
        rules["a"]["min_a"], rules["c"][f"{second}_c"] = a, c
        expected = plainly({**world, "rules": rules})
        assert (kept, unknown) == (expected.count("kept"), expected.count("pending"))


def keys(rows: list[str]) -> list[str]:
    return [f"{i}.jpg" for i in range(len(rows))]
