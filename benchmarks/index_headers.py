"""Index and aspect ratio over 50,000 JPEGs in webdataset tars, against a bare loop that reads the same headers.

Measured, one after the other in each repetition (A B C A B C …), with the pool in the page cache:

* bare loop: one process opens each tar with `tarfile` and each JPEG with `PIL.Image.open`, reads its size and EXIF
  orientation, and writes one Parquet file of key, width, height, ratio;
* bare loop in as many processes as the machine has cores, since the pipeline uses them all, too;
* pipeline: `prepare`, `build_index` and `run_stages` into a new run directory. It stores more (byte offset, format,
  length, an error for each broken image), survives a crash, and looks for what was stored before.

The start of Ray, a first small job and the start of the processes are not counted. Before the times are printed the
sizes that the loop and the pipeline found are compared. Target: pipeline ≤ 1.5 × the bare loop, wall time, medians.

The pool is made once, in one to two minutes: about 300 distinct JPEGs of 20 to 60 kB under 50,000 names, 2 GB.

    .venv/bin/python benchmarks/index_headers.py
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl
from common import SCRATCH, jpegs, machine, report, spread, verdict
from PIL import Image

TARGET = 1.5
DISTINCT = 300
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, help="folder for the tars, kept (default build/bench/tars-TARS-PER_TAR)")
    parser.add_argument("--tars", type=int, default=50, help="tars in the pool (default %(default)s)")
    parser.add_argument("--per-tar", type=int, default=1_000, help="JPEGs per tar (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()

    results: dict[str, Any] = {"machine": machine(), "rows": args.tars * args.per_tar, "cores": os.cpu_count()}
    pool = make_pool(args.pool or SCRATCH / f"tars-{args.tars}-{args.per_tar}", args.tars, args.per_tar)
    tars = sorted(str(tar) for tar in pool.glob("*.tar"))
    results["pool_bytes"] = sum(Path(tar).stat().st_size for tar in tars)

    from pipeline.execution.ray_session import start_ray

    start_ray()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with (
        multiprocessing.get_context("spawn").Pool(os.cpu_count()) as processes,
        tempfile.TemporaryDirectory(dir=SCRATCH) as scratch,
    ):
        bare(tars, f"{scratch}/bare.parquet", map)  # into the page cache
        bare(tars[:2], f"{scratch}/warm.parquet", processes.imap)
        pipeline(tars[0], f"{scratch}/warm")
        alone, together, piped = [], [], []
        for number in range(args.repeat):
            alone.append(bare(tars, f"{scratch}/bare.parquet", map))
            together.append(bare(tars, f"{scratch}/bare.parquet", processes.imap))
            piped.append(pipeline(f"{pool}/*.tar", f"{scratch}/run-{number}"))
        compare(f"{scratch}/bare.parquet", f"{scratch}/run-0")

    results |= {"bare_s": alone, "bare_processes_s": together}
    results |= {f"{part}_s": [times[part] for times in piped] for part in ("pipeline", "index", "aspect_ratio")}
    report(results, ("what", "seconds (min to max)", "rows/s", "× bare loop", "target"), table(results), args.json)


def table(results: dict[str, Any]) -> Iterable[tuple[object, ...]]:
    """One line per thing measured."""
    names = {
        "bare_s": "bare loop, 1 process",
        "bare_processes_s": f"bare loop, {results['cores']} processes",
        "pipeline_s": "pipeline",
        "index_s": "  index",
        "aspect_ratio_s": "  aspect_ratio",
    }
    for key, name in names.items():
        seconds = statistics.median(results[key])
        ratio = seconds / statistics.median(results["bare_s"])
        target = verdict(ratio, TARGET) if key == "pipeline_s" else ""
        yield name, spread(results[key]), f"{results['rows'] / seconds:,.0f}", f"{ratio:.2f}", target


def make_pool(pool: Path, tars: int, per_tar: int) -> Path:
    """The tars, unless they are there already; the folder appears whole or not at all."""
    if pool.is_dir():
        return pool
    print(f"making {pool}", file=sys.stderr)
    encoded = jpegs(DISTINCT, lambda text: print(text, file=sys.stderr))
    aside = pool.with_name(pool.name + ".aside")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    rng = random.Random(1)
    for shard in range(tars):
        with tarfile.open(aside / f"{shard:05d}.tar", "w") as archive:
            for number in range(per_tar):
                data = rng.choice(encoded)
                member = tarfile.TarInfo(f"{shard:05d}{number:04d}.jpg")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    aside.rename(pool)
    return pool


def bare(tars: list[str], target: str, each: Callable[..., Iterable[list[tuple[str, int, int]]]]) -> float:
    """Seconds of the bare loop; `each` is `map` or that of a pool of processes."""
    begin = time.perf_counter()
    rows = [row for part in each(sizes, tars) for row in part]
    frame = pl.DataFrame(rows, schema=["key", "width", "height"], orient="row")
    ratio = pl.max_horizontal("width", "height") / pl.min_horizontal("width", "height")
    frame.with_columns(ratio=ratio).write_parquet(target)
    return time.perf_counter() - begin


def sizes(tar: str) -> list[tuple[str, int, int]]:
    """Key, displayed width and height of each JPEG of a tar."""
    sizes = []
    with tarfile.open(tar) as archive:
        for member in archive:
            with Image.open(archive.extractfile(member)) as image:  # type: ignore[arg-type]
                width, height = image.size
                if image.getexif().get(ORIENTATION) in TURNED:
                    width, height = height, width
            sizes.append((member.name, width, height))
    return sizes


def pipeline(tars: str, url: str) -> dict[str, float]:
    """Seconds of the pipeline in all, and as its two jobs report them."""
    from pipeline.execution.index import open_pool
    from pipeline.execution.index_job import build_index
    from pipeline.execution.runner import prepare, run_stages
    from pipeline.recipe import parse_recipe

    recipe = parse_recipe({"name": "bench", "pool": {"tars": tars}, "stages": [{"stage": "aspect_ratio"}]}, "bench")
    begin = time.perf_counter()
    run = prepare(recipe, url)
    done = [build_index(run, recipe.pool, open_pool(recipe.pool, url), print), *run_stages(run, recipe)]
    seconds = time.perf_counter() - begin
    return {"pipeline": seconds} | {job.stage: job.seconds for job in done}


def compare(loop: str, url: str) -> None:
    """Stop if the loop and the pipeline do not tell the same of the same images."""
    from manifests import open_run

    columns = ("key", "width", "height", pl.col("aspect_ratio").cast(pl.Float32))
    bare = pl.scan_parquet(loop).rename({"ratio": "aspect_ratio"}).select(*columns).sort("key").collect()
    piped = open_run(url).manifest().select(*columns).sort("key").collect()
    if not bare.equals(piped.cast(dict(zip(bare.columns, bare.dtypes, strict=True)))):
        sys.exit("the bare loop and the pipeline found different sizes")


if __name__ == "__main__":
    main()
