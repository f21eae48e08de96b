"""How fast near-duplicates are found: rows/s and peak memory of `duplicates` on random unit vectors, and hashes/s.

`duplicates` runs in a process of its own, so that the peak is that of the stage. The hashes run on one core.

    .venv/bin/python benchmarks/duplicates_speed.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from common import jpegs, machine, peak_gib, report, spread

from clustering.duplicates import Duplicates
from core.images import decode
from filters.hashes import Hashes
from manifests.embeddings import from_matrix

METHODS = ("semantic", "perceptual", "both")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="random vectors (default %(default)s)")
    parser.add_argument("--group", type=int, default=1_000, help="their rows per group (default %(default)s)")
    parser.add_argument("--dimensions", type=int, default=512, help="of a vector (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--once", action="store_true", help="run `duplicates` once in this process, and print JSON")
    args = parser.parse_args()
    if args.once:
        print(json.dumps(speed(args.rows, args.group, args.dimensions)))
        return
    shape = {"rows": args.rows, "group": args.group, "dimensions": args.dimensions}
    command = [sys.executable, __file__, "--once", *(f"--{name}={value}" for name, value in shape.items())]
    runs = [json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout) for _ in range(args.repeat)]
    results: dict[str, Any] = {"machine": machine(), **shape, **hashing(args.repeat)}
    results |= {name: [run[name] for run in runs] for name in runs[0]}
    report(results, ("", "median (min to max)"), table(results), args.json)


def table(results: dict[str, Any]) -> Iterable[tuple[str, str]]:
    size = f"{results['rows']:,} × {results['dimensions']} in groups of {results['group']:,}"
    for method in METHODS:
        rates = [results["rows"] / seconds for seconds in results[f"{method}_s"]]
        yield f"{method}, {size}: rows/s", f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
    yield "GiB with the table", spread(results["table_gib"])
    yield "GiB at most", spread(results["peak_gib"])
    yield "hashes, one core: ms per image", spread(results["hash_ms"])
    yield "decoding and hashes: ms per image", spread(results["decode_and_hash_ms"])


def speed(rows: int, group: int, dimensions: int) -> dict[str, float]:
    """Seconds of `duplicates` on random unit vectors, and the memory of this process before and at most, GiB."""
    dice = np.random.default_rng(0)
    numbers = {name: dice.integers(1, 2_000, rows) for name in ("width", "height", "bytes")}
    clusters = pa.array(dice.integers(0, max(1, rows // group), rows), pa.int32())
    hashes = dice.integers(-(2**63), 2**63 - 1, rows)
    columns = {"id": dice.permutation(rows), **numbers, "cluster": clusters, "phash": hashes}
    table = pa.table({**columns, "image_embedding": unit_vectors(dice, rows, dimensions)})
    results = {"table_gib": peak_gib()}
    stages = {"semantic": Duplicates(by=("semantic",)), "perceptual": Duplicates(by=("perceptual",))}
    for name, stage in {**stages, "both": Duplicates()}.items():
        begin = time.perf_counter()
        stage(table.select(list(stage.reads)))
        results[f"{name}_s"] = time.perf_counter() - begin
    return {**results, "peak_gib": peak_gib()}


def unit_vectors(dice: np.random.Generator, rows: int, dimensions: int) -> pa.ChunkedArray:
    """Random ones, in chunks, table one at a time so that making them does not set the peak."""
    sizes = [min(4_096, rows - start) for start in range(0, rows, 4_096)]
    return pa.chunked_array(
        [from_matrix(dice.standard_normal((size, dimensions), np.float32))[0] for size in sizes],
        pa.list_(pa.float16(), dimensions),
    )


def hashing(repeat: int) -> dict[str, list[float]]:
    """Milliseconds per image of about 640 × 480 on one core: both hashes, and decoding with both."""
    hasher = Hashes().load()
    encoded = jpegs(200, lambda line: print(line, file=sys.stderr))
    results: dict[str, list[float]] = {"hash_ms": [], "decode_and_hash_ms": []}
    for _ in range(repeat):
        begin = time.perf_counter()
        decoded = [decode(data, hasher.side) for data in encoded]
        between = time.perf_counter()
        for image, data in zip(decoded, encoded, strict=True):
            hasher.prepare(image, data)
        end = time.perf_counter()
        results["hash_ms"].append((end - between) * 1e3 / len(encoded))
        results["decode_and_hash_ms"].append((end - begin) * 1e3 / len(encoded))
    return results


if __name__ == "__main__":
    main()
