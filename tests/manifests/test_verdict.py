"""Over random facts and rules: no row is lost, every verdict is the one that a plain loop over rows would give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manifests import Run, funnel, open_run
from manifests.priorities import name_priority, priority
from manifests.rules import BALANCE, KINDS
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
VALUE_RULES = st.dictionaries(
    st.sampled_from(["min_{}", "max_{}", "top_{}", "min_{}_count", "max_{}_count"]),
    st.sampled_from([0.1, 0.25, 0.5, 0.7, 1.0]),
    max_size=3,
)
# a_count at a later stage is a column of an earlier one
BALANCE_RULES = st.dictionaries(
    st.sampled_from(["per_group_{}_count", "total_{}_count", "per_group_a_count", "total_a_count"]),
    st.integers(1, 8),
    min_size=1,
    max_size=2,
)
ORDERS = st.sampled_from([{}, {"order": "lowest_{}"}, {"order": "highest_a"}, {"seed": 7}])


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    """The `keep` of a stage called `{}`."""
    value_rules = draw(VALUE_RULES)
    if draw(st.booleans()):
        return value_rules
    return value_rules | draw(BALANCE_RULES) | draw(ORDERS)


def named(keep: dict[str, Any], stage: str) -> dict[str, Any]:
    return {k.format(stage): v.format(stage) if isinstance(v, str) else v for k, v in keep.items()}


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """An index, three stages of facts (absent, failed, or two values) and their rules."""
    rows = draw(st.integers(1, 40))
    return {
        "bad": draw(st.lists(st.booleans(), min_size=rows, max_size=rows)),
        "facts": {s: draw(st.lists(FACT, min_size=rows, max_size=rows)) for s in STAGES},
        "rules": {s: named(draw(rules()), s) for s in STAGES},
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


def stored(world: dict[str, Any], row: int, column: str) -> Any:
    return world["facts"][column[0]][row][column.endswith("_count")]


def balanced(
    world: dict[str, Any], keep: dict[str, Any], kind: str, edge: int, group: dict[int, int], ids: list[int]
) -> set[int]:
    """The rows that a balance rule keeps, one row at a time."""
    order, seed = keep.get("order", "random"), keep.get("seed", 0)
    hashes = priority(np.array(ids, np.int64), seed)

    def sort_key(row: int) -> tuple[Any, ...]:
        way, _, column = order.partition("_")
        by = stored(world, row, column) if column else 0.0
        missing = by is None or math.isnan(by)
        return (missing, 0.0 if missing else -by if way == "highest" else by, hashes[row])

    names = sorted(set(group.values()))
    waiting = {n: sorted((i for i in group if group[i] == n), key=sort_key) for n in names}
    first = dict(zip(names, name_priority(pl.Series(names, dtype=pl.Int64), seed), strict=True))
    stay: set[int] = set()
    for turn in range(len(group)):  # every group gives one row a turn, the one whose hash is lowest first
        for name in sorted((n for n in names if len(waiting[n]) > turn), key=lambda n: first[n]):
            if turn < edge if kind == "per_group" else len(stay) < edge:
                stay.add(waiting[name][turn])
    return stay


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
        keep = world["rules"][stage]
        for name, edge in keep.items():
            if name in ("order", "seed"):
                continue
            kind = next(k for k in KINDS if name.startswith(k))
            col = name.removeprefix(f"{kind}_")
            reach = [i for i in range(rows) if status[i] == "kept"]
            value = {i: stored(world, i, col) for i in reach}
            usable = [i for i in reach if value[i] is not None and not math.isnan(value[i])]
            if kind in BALANCE:
                stay = balanced(world, keep, kind, edge, {i: value[i] for i in usable}, ids)
                status = ["dropped" if i in reach and i not in stay else status[i] for i in range(rows)]
                continue
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


@settings(max_examples=25)
@given(world=worlds())
def test_every_row_gets_the_verdict_of_a_plain_loop(world: dict[str, Any], tmp_path_factory: Any) -> None:
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


CROWDED = {  # which rows a balance rule keeps depends on which the rule before lets through
    "bad": [False] * 12,
    "facts": {"a": [(1.0 if n % 2 else 0.25, 3) for n in range(12)], "b": [(1.0, 1)] * 12, "c": [(1.0, 1)] * 12},
    "rules": {"a": {}, "b": {}, "c": {}},
}


@settings(max_examples=15)
@example(world=CROWDED, first=0.25, second="per_group_a_count")
@example(world=CROWDED, first=0.25, second="total_c_count")
@example(world=EMPTY_BETWEEN, first=0.5, second="top_c")
@given(
    world=worlds(),
    first=st.sampled_from([0.25, 0.5, 1.0]),
    second=st.sampled_from(["min_c", "max_c", "top_c", "per_group_a_count", "total_c_count"]),
)
def test_sweep_counts_equal_a_run_with_those_thresholds(
    world: dict[str, Any], first: float, second: str, tmp_path_factory: Any
) -> None:
    if not all(any(f is not None for f in world["facts"][s]) for s in ("a", "c")):
        return  # nothing stored in a stage, nothing to sweep there
    run = build(world, tmp_path_factory.mktemp("world"))
    edges = [2, 5] if second.startswith(BALANCE) else [0.25, 0.7]
    table = sweep(run, {"a.min": [first, 0.7], f"c.{second}": edges})
    assert table.height == 4
    for a, c, kept, unknown in table.iter_rows():
        rules = {s: dict(world["rules"][s]) for s in STAGES}
        rules["a"]["min_a"], rules["c"][second] = a, c
        expected = plainly({**world, "rules": rules})
        assert (kept, unknown) == (expected.count("kept"), expected.count("pending"))


@settings(max_examples=10)
@example(world=CROWDED, stage="b")
@example(world=CROWDED | {"facts": CROWDED["facts"] | {"a": [None, *CROWDED["facts"]["a"][1:]]}}, stage="b")
@given(world=worlds(), stage=st.sampled_from(STAGES))
def test_sweep_from_a_verdict_equals_a_full_one(world: dict[str, Any], stage: str, tmp_path_factory: Any) -> None:
    if not all(any(f is not None for f in world["facts"][s]) for s in STAGES):
        return
    run = build(world, tmp_path_factory.mktemp("world"))
    axes = {f"{stage}.top": [0.25, 0.7]}
    table = sweep(run, axes, run.verdict())
    assert table.equals(sweep(run, axes))
    assert table.height == 2
    for top, kept, unknown in table.iter_rows():
        rules = {**world["rules"], stage: world["rules"][stage] | {f"top_{stage}": top}}
        expected = plainly({**world, "rules": rules})
        assert (kept, unknown) == (expected.count("kept"), expected.count("pending"))


def keys(rows: list[str]) -> list[str]:
    return [f"{i}.jpg" for i in range(len(rows))]
