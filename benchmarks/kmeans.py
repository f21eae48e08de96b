"""Clusters: training against faiss alone, and assignment by rows per second and memory.

* train: `Clusters.fit` on 100,000 unit vectors of 512 numbers, 1,000 clusters, 25 iterations, and `faiss.Kmeans`
  (spherical, the same start, seed and iterations) on the same vectors, each in a process of its own, in turns. Target:
  ratio of the medians ≤ 1.1;
* assign: the callable of `Clusters` over 1,000,000 vectors of 512 numbers in float16 and 1,000 centroids, in the
  stage's batches of 1,024 rows, as an actor calls it: rows/s, and the process's peak memory beyond the vectors
  themselves. Beside it faiss's own search (k = 1, float32) in the same batches.

    .venv/bin/python benchmarks/kmeans.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from common import machine, peak_gib, report, spread, verdict

TARGET = 1.1
CLUSTERS, DIMENSIONS, ITERATIONS, BATCH = 1_000, 512, 25, 1_024
WORK = ("train ours", "train faiss", "assign ours", "assign faiss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=100_000, help="vectors to train on (default %(default)s)")
    parser.add_argument("--assign", type=int, default=1_000_000, help="vectors to assign (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=WORK, help="do this once in this process, and print JSON")
    args = parser.parse_args()
    if args.only:
        what, _, who = args.only.partition(" ")
        results = train(who, args.train) if what == "train" else assign(who, args.assign)
        print(json.dumps(results))
        return
    results = {"machine": machine(), "train": args.train, "assign": args.assign}
    for _ in range(args.repeat):
        for what in WORK:
            for name, value in child(what, "--train", str(args.train), "--assign", str(args.assign)).items():
                results.setdefault(what, {}).setdefault(name, []).append(value)
    rows = []
    for what in WORK:
        seconds = results[what]["seconds"]
        count = args.train if what.startswith("train") else args.assign
        memory = spread(results[what]["gib"]) if "gib" in results[what] else ""
        rows.append((what, spread(seconds), f"{count / statistics.median(seconds):,.0f}", memory, ""))
    ratio = statistics.median(results["train ours"]["seconds"]) / statistics.median(results["train faiss"]["seconds"])
    results["ratio"] = ratio
    rows.append(("train, ours / faiss", f"{ratio:.2f}", "", "", verdict(ratio, TARGET)))
    report(results, ("what", "seconds (min to max)", "rows/s", "GiB beyond the vectors", "target"), rows, args.json)


def child(what: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--only", what, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    results: dict[str, float] = json.loads(done.stdout)
    return results


def train(who: str, rows: int) -> dict[str, float]:
    """Train once; the making of the vectors is not timed."""
    import faiss
    import numpy as np

    from clustering.kmeans import Clusters

    table = vectors(rows)
    stage = Clusters(clusters=CLUSTERS, iterations=ITERATIONS)
    begin = time.perf_counter()
    if who == "ours":
        stage.fit(table)
        return {"seconds": time.perf_counter() - begin}
    matrix = np.ascontiguousarray(flat(table).astype(np.float32))
    begin = time.perf_counter()
    start = faiss.ClusteringInitMethod_AFK_MC2
    faiss.Kmeans(DIMENSIONS, CLUSTERS, niter=ITERATIONS, spherical=True, seed=1, init_method=start).train(matrix)
    return {"seconds": time.perf_counter() - begin}


def assign(who: str, rows: int) -> dict[str, float]:
    """Assign once, batch by batch; centroids are some of the vectors."""
    import faiss
    import numpy as np
    import pyarrow as pa

    from clustering.kmeans import FITTED, Clusters

    table = vectors(rows)
    centroids = flat(table)[:CLUSTERS].astype(np.float32)
    zeros = np.zeros(CLUSTERS, np.int64)
    columns = {"level": zeros + 1, "cluster": np.arange(CLUSTERS), "points": zeros, "centroid": list(centroids)}
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(CLUSTERS, f.type) for f in FITTED]
    read = {"image_embedding": table.schema.field("image_embedding")}
    ours = Clusters(clusters=CLUSTERS).load_fitted(pa.table(arrays, schema=FITTED), read)
    index = faiss.IndexFlatIP(DIMENSIONS)
    index.add(centroids)
    before = peak_gib()
    begin = time.perf_counter()
    for start in range(0, rows, BATCH):
        batch = table.slice(start, BATCH)
        if who == "ours":
            ours(batch)
        else:
            index.search(flat(batch).astype(np.float32), 1)
    return {"seconds": time.perf_counter() - begin, "gib": peak_gib() - before}


def vectors(rows: int) -> Any:
    """Random directions loosely around a thousand centres (k-means does not settle early), as the stage reads them."""
    import numpy as np
    import pyarrow as pa

    dice = np.random.default_rng(0)
    centres = dice.standard_normal((1000, DIMENSIONS), np.float32)
    parts = []
    for start in range(0, rows, 65_536):
        count = min(65_536, rows - start)
        part = centres[dice.integers(0, 1000, count)] + 4 * dice.standard_normal((count, DIMENSIONS), np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        values = pa.array(part.astype(np.float16).ravel())
        parts.append(pa.FixedSizeListArray.from_arrays(values, DIMENSIONS))
    return pa.table({"image_embedding": pa.chunked_array(parts)})


def flat(table: Any) -> Any:
    """The vectors as they are stored, (rows, dimensions)."""
    column = table["image_embedding"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, DIMENSIONS)


if __name__ == "__main__":
    main()
