"""A balanced choice among a hundred million rows: time and memory of the rules `per_group` and `total`, and `select`.

The rows are synthetic: random ids, 20,000 clusters with a heavy tail, random distances, or, for `spread`, one of 12
neighbours as the second cluster; 16 bytes each, in memory as the verdict has them. Each rule is judged in a process
of its own, and the peak is that of the whole process, the rows included. `select` alone is measured on what is
hardest for it: orders that leave its 64-bit keys no room for the hash, so that all rows tie, and as many groups as
rows. Targets: ≤ 60 s and ≤ 8 GiB.

    .venv/bin/python benchmarks/balance_100m.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from common import machine, peak_gib, report, spread, verdict

if TYPE_CHECKING:
    import numpy as np

TARGET_S, TARGET_GIB = 60.0, 8.0
CLUSTERS = 20_000
RULES = (
    ("per_group", 350, "closest"),
    ("per_group", 350, "random"),
    ("per_group", 350, "spread"),
    ("total", 7_000_000, "closest"),
    ("total", 7_000_000, "random"),
)
HARD = (  # order, groups (none: one a row), rows that a group keeps
    ("float64, all equal but one NaN", CLUSTERS, 350),
    ("int64, 0 to 2 but one 2⁶²", CLUSTERS, 350),
    ("float32, as many groups as rows", None, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000, help="rows (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", type=int, help="do this case once in this process, and print JSON")
    args = parser.parse_args()
    if args.only is not None:
        easy = args.only < len(RULES)
        done = judge(args.rows, *RULES[args.only]) if easy else hard(args.rows, *HARD[args.only - len(RULES)])
        print(json.dumps(done))
        return
    results = {"machine": machine(), "rows": args.rows}
    rows = []
    names = [f"{kind}: {threshold:,}, order: {order}" for kind, threshold, order in RULES]
    names += [f"select: {each}, order: {order}" for order, _, each in HARD]
    for number, name in enumerate(names):
        runs = [child("--only", str(number), "--rows", str(args.rows)) for _ in range(args.repeat)]
        seconds, gib = [r["seconds"] for r in runs], [r["gib"] for r in runs]
        results[name] = {"seconds": seconds, "gib": gib, "kept": runs[0]["kept"]}
        met = verdict(statistics.median(seconds), TARGET_S), verdict(statistics.median(gib), TARGET_GIB)
        rows.append((name, f"{runs[0]['kept']:,}", spread(seconds), spread(gib), *met))
    report(results, ("rule or case", "kept", "seconds (min to max)", "peak GiB", "seconds", "GiB"), rows, args.json)


def child(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    results: dict[str, float] = json.loads(done.stdout)
    return results


def judge(count: int, kind: str, threshold: int, order: str) -> dict[str, float]:
    import numpy as np
    import polars as pl

    from manifests.rules import Rule

    dice = np.random.default_rng(0)
    cluster = heavy_tailed(count, dice)
    columns = {"id": dice.integers(0, 2**63, count, np.int64), "cluster": cluster}
    if order == "spread":
        second = dice.integers(1, 13, count, np.int32)
        second += cluster
        second %= CLUSTERS
        columns["second_cluster"] = second
        del second
    else:
        columns["distance"] = dice.random(count, np.float32)
    rows = pl.DataFrame(columns)
    del cluster, columns
    begin = time.perf_counter()
    kept = Rule(kind, "cluster", float(threshold), order).passes(rows).sum()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "gib": peak_gib(), "kept": int(kept or 0)}


def hard(count: int, name: str, groups: int | None, each: int) -> dict[str, float]:
    import numpy as np

    from manifests.balance import select

    dice = np.random.default_rng(0)
    ids = dice.integers(0, 2**63, count, np.int64)
    cluster = heavy_tailed(count, dice) if groups else dice.integers(0, count, count, np.int32)
    order: np.ndarray[Any, Any] = dice.random(count, np.float32)
    if name.startswith("float64"):
        order = np.zeros(count)
        order[0] = np.nan
    elif name.startswith("int64"):
        order = dice.integers(0, 3, count, np.int64)
        order[0] = 2**62
    begin = time.perf_counter()
    kept = select(cluster, order, ids, np.full(groups or count, each, np.int64)).sum()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "gib": peak_gib(), "kept": int(kept)}


def heavy_tailed(count: int, dice: np.random.Generator) -> np.ndarray[Any, Any]:
    """Clusters whose share falls as 1 / (c + 100): the largest holds a hundredth or so, the median one 5,000 rows."""
    import numpy as np

    share = np.cumsum(1 / np.arange(100, CLUSTERS + 100))
    cluster = np.empty(count, np.int32)
    for start in range(0, count, 1 << 22):
        part = slice(start, min(start + (1 << 22), count))
        cluster[part] = np.searchsorted(share, dice.random(part.stop - part.start) * share[-1])
    return cluster


if __name__ == "__main__":
    main()
