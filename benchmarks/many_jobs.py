"""A table by many jobs: reading it, and compacting it, in CPU seconds and memory.

The table is synthetic: each job has written one part of `--rows` rows, and one row in twenty replaces that of an
earlier job. Measured, each in a new process that imports first: a scan of all columns (the first one compares the
checksums, so it is the slowest); `locate`, by which jobs are planned; and the same two after `vl3syn compact`, for
which the table is copied. Target: a scan of 400 jobs in ≤ 0.5 CPU seconds.

`--other DIR` reads the table with another checkout as well, such as `git worktree add DIR 45c3446`.

    .venv/bin/python benchmarks/many_jobs.py
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

TARGET_S, TARGET_JOBS = 0.5, 400
HERE = Path(__file__).parents[1]
READINGS = ("scan", "locate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 400, 1600], help="numbers of jobs")
    parser.add_argument("--rows", type=int, default=100, help="rows per job (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--other", type=Path, help="another checkout to read the table with")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=("make", "compact", *READINGS), help="do this once in this process")
    parser.add_argument("--table", help="for --only: the table")
    parser.add_argument("--checkout", help="for --only: the code to use")
    args = parser.parse_args()
    if args.only:
        sys.path.insert(0, args.checkout)
        print(json.dumps(make(args.table, *args.jobs, args.rows) if args.only == "make" else work(args)))
        return

    results: dict[str, Any] = {"machine": machine(), "rows": args.rows, "measured": {}}
    for jobs in args.jobs:
        table = SCRATCH / f"many-jobs-{jobs}-{args.rows}"
        compacted = table.with_name(f"{table.name}-compacted")
        if not table.exists():
            child("make", table, HERE, "--jobs", str(jobs), "--rows", str(args.rows))
        measured: dict[str, dict[str, list[float]]] = {}
        for _ in range(args.repeat):
            shutil.rmtree(compacted, ignore_errors=True)
            shutil.copytree(table, compacted)
            readings = [(what, table, HERE, what) for what in READINGS]
            readings += [("compact", compacted, HERE, "compact")]
            readings += [(what, compacted, HERE, f"{what}, compacted") for what in READINGS]
            readings += [(what, table, args.other, f"{what}, other") for what in READINGS if args.other]
            for what, of, checkout, name in readings:
                for unit, value in child(what, of, checkout).items():
                    measured.setdefault(name, {}).setdefault(unit, []).append(value)
        results["measured"][jobs] = measured
    columns = ("jobs", "what", "CPU seconds (min to max)", "peak MiB beyond imports", "CPU seconds")
    report(results, columns, table_of(results), args.json)


def table_of(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One line per thing measured."""
    for jobs, measured in results["measured"].items():
        for name, values in measured.items():
            target = jobs == TARGET_JOBS and name == "scan"
            met = verdict(statistics.median(values["cpu"]), TARGET_S) if target else ""
            yield f"{jobs:,}", name, spread(values["cpu"]), f"{statistics.median(values['peak_mib']):.0f}", met


def child(what: str, table: Path, checkout: Path, *arguments: str) -> dict[str, float]:
    """Do one piece of work in a new process, with the code of a checkout."""
    where = ("--table", str(table.absolute()), "--checkout", str(checkout.absolute()))
    done = subprocess.run(
        [sys.executable, __file__, "--only", what, *where, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    results: dict[str, float] = json.loads(done.stdout)
    return results


def work(args: argparse.Namespace) -> dict[str, float]:
    """Do it, and say what it took."""
    import polars  # noqa: F401

    from manifests.storage import Folder
    from manifests.tables import Table

    table = Table(Folder.at(args.table), schema())
    before, begin = peak_gib(), time.process_time()
    if args.only == "scan":
        table.scan().collect(engine="streaming")
    elif args.only == "locate":
        table.locate()[0].collect(engine="streaming")
    else:
        from manifests.compaction import compact

        compact(table)
    return {"cpu": time.process_time() - begin, "peak_mib": (peak_gib() - before) * 1024}


def schema() -> Any:
    import pyarrow as pa

    from manifests.schemas import column, table_schema

    return table_schema(pa.schema([column("score", pa.float32(), "a score"), column("text", pa.string(), "a text")]))


def make(url: str, jobs: int, rows: int) -> dict[str, float]:
    """Write the table; the folder appears whole or not at all."""
    import numpy as np
    import pyarrow as pa

    from manifests.storage import Folder
    from manifests.tables import Table

    rng, aside = np.random.default_rng(0), Path(f"{url}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    table = Table(Folder.at(aside), schema())
    ids = rng.integers(0, 2**63, jobs * rows)
    for job in range(jobs):
        mine = ids[job * rows : (job + 1) * rows]
        again = rows // 20 if job else 0
        mine[:again] = rng.choice(ids[: job * rows], again, replace=False) if again else mine[:again]
        columns = {"id": np.sort(mine), "score": rng.random(rows, np.float32), "text": [f"row {n}" for n in mine]}
        part = pa.table({**columns, "error": pa.nulls(rows, pa.string()), "retry": np.zeros(rows, bool)})
        table.append(part, f"{job + 1:06d}-{job:08x}", {"stage": "s", "version": 1})
    aside.rename(url)
    return {"rows": len(ids)}


if __name__ == "__main__":
    main()
