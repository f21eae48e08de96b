"""The manifest of ten million rows: verdicts, funnel and a joint sweep, in time and memory.

The run is synthetic and made once (about a minute, some 700 MB): an index and six stages, written with `Table.append`
as a real run writes them. Every stage has facts only for the rows that survive the stages before, sorted by id, in
parts of 65,536 rows; 20 % are dropped and 0.5 % fail at each. Ids are random.

Measured, each in a new process that imports first and is timed after, with its peak resident memory:

* verdict: `run.verdict()`;
* funnel: `manifests.funnel(run)`, which settles the verdict itself;
* sweep: 100 joint points, 10 × 10 thresholds of the `min` rules of two stages;
* all three: one after the other in one process, the funnel from the verdict that is there. Targets: ≤ 5 s and ≤ 6 GiB;
* manifest: `run.manifest().select("status").collect()`.

    .venv/bin/python benchmarks/manifest_10m.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import SCRATCH, machine, peak_gib, report, spread, verdict

TARGET_S, TARGET_GIB = 5.0, 6.0
DROPPED, FAILED = 0.2, 0.005

# The stage and the column of its rule, whose values are spread evenly over 0 to 1.
STAGES = (
    ("aspect_ratio", "aspect_ratio"),
    ("sharpness", "sharpness"),
    ("aesthetic", "aesthetic"),
    ("similarity", "similarity"),
    ("density", "density"),
    ("caption", "caption_score"),
)
SWEPT = ("aesthetic", "similarity")
WORK = ("verdict", "funnel", "sweep", "all three", "manifest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the index (default %(default)s)")
    parser.add_argument("--part-rows", type=int, default=65_536, help="rows per part (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--run", type=Path, help="where the synthetic run is kept (default under build/bench)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=("make", *WORK), help="do this once in this process, and print JSON")
    args = parser.parse_args()
    run = args.run or SCRATCH / f"manifest-{args.rows}-{args.part_rows}"
    if args.only:
        print(json.dumps(make(run, args.rows, args.part_rows) if args.only == "make" else work(str(run), args.only)))
        return

    results: dict[str, Any] = {"machine": machine(), "rows": args.rows, "part_rows": args.part_rows}
    # The peak memory of a child is at least its parent's at the fork, so this process stays small: it makes nothing.
    same = ("--rows", str(args.rows), "--part-rows", str(args.part_rows), "--run", str(run))
    if not run.exists():
        print(f"making {run}", file=sys.stderr)
        child("make", *same)
    for _ in range(args.repeat):
        for what in WORK:
            for name, value in child(what, *same).items():
                results.setdefault(what, {}).setdefault(name, []).append(value)
    columns = ("what", "seconds (min to max)", "peak GiB (min to max)", "seconds", "GiB")
    report(results, columns, table(results), args.json)


def table(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One line per thing measured."""
    for what in WORK:
        seconds, peak = results[what]["seconds"], results[what]["peak_gib"]
        met = ("", "")
        if what == "all three":
            met = verdict(statistics.median(seconds), TARGET_S), verdict(statistics.median(peak), TARGET_GIB)
        yield (what, spread(seconds), spread(peak), *met)


def child(what: str, *arguments: str) -> dict[str, float]:
    """Do one piece of work in a new process."""
    command = [sys.executable, __file__, "--only", what, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    results: dict[str, float] = json.loads(done.stdout)
    return results


def work(url: str, what: str) -> dict[str, float]:
    """Do it, and say how long it took and how much memory this process has held at most."""
    from manifests import funnel, open_run
    from manifests.sweep import sweep

    run = open_run(url)
    axes = {f"{stage}.min": [round(0.15 + 0.05 * i, 2) for i in range(10)] for stage in SWEPT}
    begin = time.perf_counter()
    verdict = run.verdict() if what in ("verdict", "all three") else None
    if what in ("funnel", "all three"):
        funnel(run, verdict)
    if what in ("sweep", "all three"):
        sweep(run, axes)
    if what == "manifest":
        run.manifest().select("status").collect()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "peak_gib": peak_gib()}


def make(target: Path, rows: int, part_rows: int) -> dict[str, float]:
    """Write the synthetic run; the folder appears whole or not at all."""
    import numpy as np
    import pyarrow as pa
    import yaml

    from manifests.run import index_table, stage_folder
    from manifests.schemas import INDEX, column, table_schema
    from manifests.storage import Folder
    from manifests.tables import Table

    rng = np.random.default_rng(0)
    aside = target.with_name(target.name + ".aside")
    shutil.rmtree(aside, ignore_errors=True)
    folder = Folder.at(aside)

    def failing(height: int, text: str) -> tuple[Any, Any]:
        failed = rng.random(height) < FAILED
        return failed, pa.array(np.where(failed, text, None), pa.string())

    ids = rng.integers(0, 2**63, rows, np.int64)  # two alike among ten million: one chance in 200,000
    sound = []
    index = index_table(folder)
    writer = index.next_writer()
    for start in range(0, rows, part_rows):
        part = ids[start : start + part_rows]
        numbers = np.arange(start, start + len(part))
        failed, error = failing(len(part), "broken header: JPEG, cut off or damaged")
        sound.append(part[~failed])
        columns = {
            "id": part,
            "shard": [f"{n // 10_000:05d}.tar" for n in numbers],
            "key": [f"{n // 10_000:05d}{n % 10_000:04d}.jpg" for n in numbers],
            "offset": numbers % 10_000 * 41_472 + 512,
            "width": pa.array(rng.integers(200, 2_000, len(part)), pa.int32(), mask=failed),
            "height": pa.array(rng.integers(200, 2_000, len(part)), pa.int32(), mask=failed),
            "format": pa.array(np.where(failed, None, "JPEG"), pa.string()),
            "animated": pa.array(np.zeros(len(part), bool), mask=failed),
            "bytes": rng.integers(20_000, 60_000, len(part)),
            "shard_bytes": np.full(len(part), 414_730_240),
            "error": error,
            "retry": np.zeros(len(part), bool),
        }
        empty = {n: pa.nulls(len(part), INDEX.field(n).type) for n in INDEX.names if n not in columns}
        index.append(pa.table(columns | empty), writer, {"stage": "index"})

    alive = np.sort(np.concatenate(sound))  # the runner sorts what reaches a stage by id
    stages = []
    for name, first in STAGES:
        table = f"{name}-00000000"
        stages.append({"stage": name, "keep": {f"min_{first}": DROPPED}, "table": table})
        writes = pa.schema([column(first, pa.float32(), "Synthetic", 0, 1), column(f"{name}_ms", pa.float32(), "ms")])
        stored = Table(stage_folder(folder, table), table_schema(writes))
        writer = stored.next_writer()
        survivors = []
        for start in range(0, len(alive), part_rows):
            part = alive[start : start + part_rows]
            failed, error = failing(len(part), "cannot decode: OSError image file is truncated")
            score, cost = rng.random(len(part), np.float32), rng.random(len(part), np.float32)
            survivors.append(part[~failed & (score >= np.float32(DROPPED))])
            facts = [pa.array(part), pa.array(score, mask=failed), pa.array(cost, mask=failed), error]
            facts.append(pa.array(np.zeros(len(part), bool)))
            stored.append(pa.table(facts, names=stored.schema.names), writer, {"stage": name})
        alive = np.concatenate(survivors)

    recipe = {"vl3syn": "benchmark", "name": "synthetic", "pool": {"tars": "/nowhere/*.tar"}, "stages": stages}
    folder.write("recipe.yaml", yaml.safe_dump(recipe, sort_keys=False).encode())
    aside.rename(target)
    return {"rows": rows, "survivors": len(alive)}


if __name__ == "__main__":
    main()
