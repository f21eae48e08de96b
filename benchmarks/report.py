"""`vl3syn report` over a million rows: seconds, bytes of the page, peak memory.

The run is synthetic and made once: the stages of `recipes/demo.yaml` with random values of the columns that they
declare, over a pool of 200 images that the rows point at. Values are spread over the range of their column, captions
have 70 to 900 characters. Embeddings and lists are null: pages do not read them.

Measured in a new process: from the opened run to the written page; CPU seconds are those of the whole process, and tell
more on a machine that is busy with other work. Targets: ≤ 60 s and ≤ 10 MB.

    .venv/bin/python benchmarks/report.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import SCRATCH, jpegs, machine, peak_gib, report, verdict

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

TARGET_S, TARGET_MB = 60.0, 10.0
LARGEST = {"side": 20_000, "pixels": 45_000_000}
IMAGES, CLUSTERS, PART = 200, 2_000, 65_536
BALANCE = {"per_group_cluster": 350, "order": "spread", "seed": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the index (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="repetitions (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=("make", "report"), help="do this once in this process, and print JSON")
    args = parser.parse_args()
    folder = SCRATCH / f"report-{args.rows}"
    if args.only:
        print(json.dumps(make(folder, args.rows) if args.only == "make" else measure(folder)))
        return
    # The peak memory of a child is at least its parent's at the fork, so this process stays small: it makes nothing.
    if not folder.exists():
        print(f"making {folder}", file=sys.stderr)
        child("make", args.rows)
    measured = [child("report", args.rows) for _ in range(args.repeat)]
    results: dict[str, Any] = {"machine": machine(), "rows": args.rows, "measured": measured}
    lines = [
        (f"{m['seconds']:.1f}", f"{m['cpu']:.1f}", f"{m['mb']:.2f}", f"{m['peak_gib']:.2f}", m["pictures"],
         verdict(m["seconds"], TARGET_S), verdict(m["mb"], TARGET_MB))
        for m in measured
    ]  # fmt: skip
    report(results, ("seconds", "CPU seconds", "MB", "peak GiB", "pictures", "seconds", "MB"), lines, args.json)


def child(what: str, rows: int) -> dict[str, Any]:
    """Do one piece of work in a new process."""
    command = [sys.executable, __file__, "--only", what, "--rows", str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(folder: Path) -> dict[str, Any]:
    """Make the report."""
    from manifests import open_run
    from pipeline.reporting.page import write
    from pipeline.reporting.report import report as page_of

    begin = time.perf_counter()
    page = page_of(open_run(str(folder / "run")))
    length = write(str(folder / "report.html"), page)
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "cpu": time.process_time(),
        "mb": length / 1e6,
        "peak_gib": peak_gib(),
        "pictures": page.count("<img "),
    }


def make(target: Path, rows: int) -> dict[str, Any]:
    """Write pool and run; the folder appears whole or not at all."""
    import numpy as np
    import yaml

    from core.yaml_text import load_yaml
    from manifests.run import index_table, stage_folder
    from manifests.schemas import table_schema
    from manifests.storage import Folder
    from manifests.tables import Table
    from manifests.verdict import StoredStage, advance, valid_ids
    from pipeline.recipe import parse_recipe

    rng = np.random.default_rng(0)
    aside = target.with_name(target.name + ".aside")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "pool").mkdir(parents=True)
    images = jpegs(IMAGES, lambda text: print(text, file=sys.stderr))
    for number, data in enumerate(images):
        (aside / "pool" / f"{number:03d}.jpg").write_bytes(data)
    recipe = load_yaml(Path("recipes/demo.yaml").read_bytes(), "recipes/demo.yaml")
    recipe["pool"] = {"images": str((target / "pool").resolve())}
    for entry in recipe["stages"]:
        if "per_group_cluster" in entry.get("keep", {}):
            entry["keep"] |= BALANCE
    checked = parse_recipe(recipe, "benchmark")
    resolved = checked.resolved()
    run = Folder.at(aside / "run")
    index = index_table(run)
    writer = index.next_writer()
    ids = rng.permutation(rows).astype(np.int64)
    for start in range(0, rows, PART):
        index.append(indexed(ids[start : start + PART], images, rng), writer, {"stage": "index"})
    alive = valid_ids(index)
    earlier = {field.name: index for field in index.schema}
    for step, entry in zip(checked.steps, resolved["stages"], strict=True):
        table = Table(stage_folder(run, entry["table"]), table_schema(step.stage.writes))
        writer = table.next_writer()
        reached = alive["id"].to_numpy()
        for start in range(0, len(reached), PART):
            part = reached[start : start + PART]
            table.append(facts(table.schema, part, rng), writer, {"stage": step.stage.name, "weights": "0" * 64})
        alive = advance(alive, StoredStage(step.name, table, step.rules, dict(earlier))).alive
        earlier |= {field.name: table for field in table.writes}
    run.write("recipe.yaml", yaml.safe_dump(resolved, sort_keys=False).encode())
    aside.rename(target)
    return {"rows": rows, "survivors": alive.height}


def indexed(ids: np.ndarray, images: list[bytes], rng: np.random.Generator) -> pa.Table:
    """Rows of the index that point at the images; one in 200 could not be read."""
    import numpy as np
    import pyarrow as pa

    from manifests.schemas import INDEX

    numbers = ids % len(images)
    failed = rng.random(len(ids)) < 0.005
    names = np.array([f"{number:03d}.jpg" for number in range(len(images))])[numbers]
    lengths = np.array([len(data) for data in images])[numbers]
    columns = {
        "id": ids,
        "shard": names,
        "key": names,
        "offset": np.zeros(len(ids), np.int64),
        "width": pa.array(rng.integers(100, 2_000, len(ids)), pa.int32(), mask=failed),
        "height": pa.array(rng.integers(100, 2_000, len(ids)), pa.int32(), mask=failed),
        "format": pa.array(np.where(failed, None, "JPEG"), pa.string()),
        "bytes": lengths,
        "shard_bytes": lengths,
        "error": pa.array(np.where(failed, "broken header: JPEG, cut off or damaged", None), pa.string()),
        "retry": np.zeros(len(ids), bool),
    }
    return pa.table([columns.get(f.name, pa.nulls(len(ids), f.type)) for f in INDEX], names=INDEX.names)


def facts(schema: pa.Schema, ids: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """Facts of one part; one row in 500 failed."""
    import numpy as np
    import pyarrow as pa

    failed = rng.random(len(ids)) < 0.002
    columns = {
        "id": pa.array(ids),
        "error": pa.array(np.where(failed, "cannot decode: OSError image file is truncated", None), pa.string()),
        "retry": pa.array(np.zeros(len(ids), bool)),
    }
    for field in schema:
        if field.name not in columns:
            columns[field.name] = values(field, ids, rng).cast(field.type)
    return pa.table([columns[field.name] for field in schema], schema=schema)


def values(field: pa.Field, ids: np.ndarray, rng: np.random.Generator) -> pa.Array:
    """Random values of a column, within its range."""
    import numpy as np
    import pyarrow as pa

    from manifests.schemas import bounds, is_amount

    if pa.types.is_nested(field.type):
        return pa.nulls(len(ids), field.type)
    if pa.types.is_boolean(field.type):
        return pa.array(rng.random(len(ids)) < 0.1)
    if field.name == "cluster" or field.name == "second_cluster":
        return pa.array((CLUSTERS * rng.random(len(ids)) ** 3).astype(np.int64))
    if field.name.endswith("_of"):  # of duplicates: the other image
        return pa.array(np.roll(ids, 1), mask=rng.random(len(ids)) > 0.1)
    if pa.types.is_string(field.type):
        lengths = rng.integers(10, 150, 1_000)
        texts = [" ".join(["a picture of", *(["many things"] * int(n // 2))]) for n in lengths]
        return pa.array(np.array(texts, object)[rng.integers(0, 1_000, len(ids))])
    if pa.types.is_integer(field.type) and not is_amount(field):  # a hash
        return pa.array(rng.integers(0, 2**62, len(ids)))
    low, high = bounds(field)
    if pa.types.is_integer(field.type):
        most = LARGEST.get(field.name, min(high, 100))
        return pa.array((most * rng.random(len(ids)) ** 2).astype(np.int64))
    low, high = max(low, -1.0), min(high, 3.0)
    return pa.array(low + (high - low) * rng.beta(2, 3, len(ids)))


if __name__ == "__main__":
    main()
