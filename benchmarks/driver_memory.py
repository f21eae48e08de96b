"""The memory of the driver while it plans a stage and feeds its blocks, in bytes per row.

The runs are synthetic and made once: an index with the addresses of images, a table of captions in the order of the
pool, a table of scores sorted by id, the contents table, and a tenth of the stage `pictures`. Ids are random.

Measured, each in a new process that first loads the ids that are alive (8 bytes a row, not counted):

* alive: the evaluation of the rules of two stages, which returns the ids that are alive;
* numbers: the plan of a stage that reads the columns of numbers of two tables;
* texts: of one that reads captions and scores;
* pictures: of one that reads images, captions and scores, of which a tenth is stored;
* groups: of one that compares the rows of groups of about 5,000.

A plan is the rows to compute, where they are, and all blocks, one after another. The peak is that of anonymous memory,
sampled every 5 ms: pages of files do not count, as the system takes them back when it needs them.
Target: ≤ 16 bytes per row, without 32 MiB, for parts and blocks, that do not grow with the rows.

    .venv/bin/python benchmarks/driver_memory.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from common import SCRATCH, machine, report, spread, verdict

from core.stages import GroupedStage, ImageStage, Stage
from manifests.schemas import column

TARGET, FIXED = 16, 32 << 20
PART_ROWS, PER_SHARD, PER_GROUP = 65_536, 10_000, 5_000
WORK = ("alive", "numbers", "texts", "pictures", "groups")
HERE = Path(__file__).stem


class Captions(Stage):
    name: ClassVar = "captions"
    reads: ClassVar = ("width",)
    writes: ClassVar = pa.schema(
        [column("caption", pa.string(), "a text"), column("group", pa.int32(), "a cluster", 0)]
    )


class Scores(Stage):
    name: ClassVar = "scores"
    reads: ClassVar = ("width",)
    writes: ClassVar = pa.schema([column("score", pa.float32(), "a score", 0, 1)])


class Numbers(Stage):
    name: ClassVar = "numbers"
    reads: ClassVar = ("width", "height", "score")
    writes: ClassVar = pa.schema([column("sum", pa.float32(), "a number")])


class Texts(Stage):
    name: ClassVar = "texts"
    reads: ClassVar = ("caption", "score")
    writes: ClassVar = pa.schema([column("length", pa.int32(), "a length")])


class Pictures(ImageStage):
    name: ClassVar = "pictures"
    reads: ClassVar = ("image", "caption", "score")
    writes: ClassVar = pa.schema([column("quality", pa.float32(), "a number")])


class Groups(GroupedStage):
    name: ClassVar = "groups"
    reads: ClassVar = ("caption", "group")
    writes: ClassVar = pa.schema([column("copies", pa.int32(), "a number")])
    group_by: ClassVar = "group"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000, 20_000_000], help="rows of runs")
    parser.add_argument("--repeat", type=int, default=1, help="repetitions (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=("make", *WORK), help="do this once in this process, and print JSON")
    args = parser.parse_args()
    if args.only:
        run = SCRATCH / f"driver-{args.rows[0]}"
        print(json.dumps(make(run, args.rows[0]) if args.only == "make" else work(run, args.only)))
        return
    results: dict[str, Any] = {"machine": machine(), "measured": {}}
    for rows in args.rows:
        if not (SCRATCH / f"driver-{rows}").exists():
            print(f"making a run of {rows:,} rows", file=sys.stderr)
            child("make", rows)
        for what in WORK * args.repeat:
            for name, value in child(what, rows).items():
                of_work = results["measured"].setdefault(rows, {}).setdefault(what, {})
                of_work.setdefault(name, []).append(value)
    columns = ("rows", "what", "CPU seconds", "bytes per row beyond the ids", f"without {FIXED >> 20} MiB")
    report(results, columns, table(results), args.json)


def table(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One line per thing measured."""
    for rows, measured in results["measured"].items():
        for what, values in measured.items():
            per_row = max(0.0, statistics.median(values["bytes"]) - FIXED / rows)
            met = "" if what == "alive" else verdict(per_row, TARGET)
            yield f"{rows:,}", what, spread(values["seconds"]), spread(values["bytes"]), met


def child(what: str, rows: int) -> dict[str, float]:
    """Do one piece of work in a new process."""
    command = [sys.executable, __file__, "--only", what, "--rows", str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    results: dict[str, float] = json.loads(done.stdout)
    return results


def work(where: Path, what: str) -> dict[str, float]:
    """Do it, and say how many CPU seconds it took and how much memory it needed at most, in bytes per row."""
    import polars as pl

    from manifests.run import open_run
    from manifests.verdict import advance, valid_ids
    from pipeline.execution.runner import recipe_of, stored_stage

    run = open_run(where)
    recipe = recipe_of(run)
    if what == "alive":
        steps = [stored_stage(run, step) for step in recipe.steps[:2]]
        with measured(np.load(where / "ids.npy", mmap_mode="r").size) as result:
            alive = valid_ids(run.index)
            for stored in steps:
                alive = advance(alive, stored).alive
        return result
    alive = pl.DataFrame({"id": np.load(where / "ids.npy")})
    step = next(step for step in recipe.steps if step.name == what)
    stored = stored_stage(run, step)
    planned(run, recipe, step, stored, alive.head(10))  # imports
    with measured(alive.height) as result:
        planned(run, recipe, step, stored, alive)
    return result


def planned(run: Any, recipe: Any, step: Any, stored: Any, alive: Any) -> None:
    """Plan a stage and cut all its blocks."""
    from pipeline.execution.grouping import cut, group_column
    from pipeline.execution.job_columns import columns_of
    from pipeline.execution.planner import plan
    from pipeline.execution.stage_job import part_size, read_groups, rows_to_compute

    groups = read_groups(run, step, alive) if group_column(step) else None
    rows = rows_to_compute(step, stored, alive, groups)
    whole, _ = plan(run, recipe, columns_of(step), rows, grouped=groups is not None)
    for block in cut(whole, part_size(len(whole), step), groups):
        assert block.num_rows


def rss() -> int:
    """Bytes of anonymous memory of this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


@contextmanager
def measured(rows: int) -> Iterator[dict[str, float]]:
    """Yield a mapping that gets the CPU seconds, and the bytes per row beyond those that are held at the start."""
    before, most, done = rss(), 0, threading.Event()

    def sample() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, rss())

    sampler = threading.Thread(target=sample)
    sampler.start()
    begin, result = time.process_time(), {}
    try:
        yield result
    finally:
        done.set()
        sampler.join()
    result |= {"seconds": time.process_time() - begin, "bytes": (most - before) / rows}


def make(target: Path, rows: int) -> dict[str, float]:
    """Write the synthetic run; the folder appears whole or not at all."""
    from manifests.contents import contents_table
    from manifests.run import index_table, stage_folder
    from manifests.schemas import table_schema
    from manifests.storage import Folder
    from manifests.tables import Table
    from pipeline.execution.runner import write_recipe
    from pipeline.recipe import parse_recipe

    rng, aside = np.random.default_rng(0), target.with_name(f"{target.name}.aside").absolute()
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "pool").mkdir(parents=True)
    folder = Folder.at(aside)
    stages = [{"stage": f"{HERE}:{kind.__name__}"} for kind in (Captions, Scores, Numbers, Texts, Pictures, Groups)]
    recipe = parse_recipe({"pool": {"tars": f"{target.absolute()}/pool/*.tar"}, "stages": stages}, "benchmark")
    write_recipe(recipe.resolved(), folder, str(aside))
    tables = {
        step.name: Table(stage_folder(folder, step.table), table_schema(step.stage.writes)) for step in recipe.steps
    }
    tables |= {"index": index_table(folder), "contents": contents_table(folder)}
    writers = {name: of_name.next_writer() for name, of_name in tables.items()}

    def append(name: str, columns: dict[str, Any]) -> None:
        count, schema = len(columns["id"]), tables[name].schema
        empty = {field.name: pa.nulls(count, field.type) for field in schema if field.name not in columns}
        part = pa.table({"retry": np.zeros(count, bool), **columns} | {n: v for n, v in empty.items() if n != "retry"})
        tables[name].append(part, writers[name], {"stage": name})

    ids = rng.permutation(rows).astype(np.int64) * (2**62 // rows) + rng.integers(0, 2**62 // rows, rows)
    for start in range(0, rows, PART_ROWS):
        part = ids[start : start + PART_ROWS]
        numbers = np.arange(start, start + len(part))
        texts = pc.cast(pa.array(numbers), pa.string())
        shards = pc.binary_join_element_wise(pc.cast(pa.array(numbers // PER_SHARD), pa.string()), ".tar", "")
        sides = {side: pa.array(rng.integers(200, 2_000, len(part)), pa.int32()) for side in ("width", "height")}
        offsets = {"offset": numbers % PER_SHARD * 41_472, "bytes": rng.integers(20_000, 60_000, len(part))}
        append("index", {"id": part, "shard": shards, "key": texts, **sides, **offsets})
        groups = pa.array(rng.integers(0, max(1, rows // PER_GROUP), len(part)), pa.int32())
        append("captions", {"id": part, "caption": texts, "group": groups})
        append("contents", {"id": part, "seen_bytes": offsets["bytes"], "seen_sha256": pa.array([b"sha"] * len(part))})
        if start % (10 * PART_ROWS) == 0:
            append("pictures", {"id": part, "quality": rng.random(len(part), np.float32)})
    ids.sort()
    for start in range(0, rows, PART_ROWS):
        part = ids[start : start + PART_ROWS]
        append("scores", {"id": part, "score": rng.random(len(part), np.float32)})
    np.save(aside / "ids.npy", ids)
    aside.rename(target)
    return {"rows": rows}


if __name__ == "__main__":
    main()
