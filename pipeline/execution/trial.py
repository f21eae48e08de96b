"""Measure a recipe on a sample of its pool, in a temporary run directory, and estimate the time of the whole run.

The stages run as in every run: the same workers, the same callables, the same tables. They run twice, on a quarter of
the sample and then on the rest, so that the time of a row can be told from the time of a start. Every row goes through
every stage; what the rules would drop is counted afterwards, from the stored facts.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from core.errors import UserError
from core.stages import GroupedStage
from manifests.funnel import funnel
from manifests.priorities import priority
from manifests.run import Run, index_table, open_run, step_name
from manifests.storage import Folder
from pipeline.execution.estimates import Trial, estimate_index, estimate_stages
from pipeline.execution.index import unread
from pipeline.execution.job_result import JobResult
from pipeline.execution.local_workers import LocalWorkers
from pipeline.execution.part_writer import Store
from pipeline.execution.placement import place_locally
from pipeline.execution.preview import Preview
from pipeline.execution.runner import run_stages, write_recipe
from pipeline.pools import Listing, Pool
from pipeline.recipe import Recipe, Step, parse_recipe
from pipeline.stages.download.stage import Download

SAMPLE = 64
"""Images of a trial."""

_SHARDS = 16  # that are read for a sample, at most, if each holds many images
_CLUSTERS = 4  # that are trained on a sample


@dataclass(frozen=True)
class _Sample:
    """Index rows of the sample, and the seconds that reading the header of a row takes; None: none was read."""

    rows: pa.Table
    row_seconds: float | None


def try_out(recipe: Recipe, plan: Preview, listing: Listing, url: str, images: int = SAMPLE) -> Trial:
    """Run a sample of the pool through the recipe's stages, beside the run directory `url`; leave nothing behind.

    A stage `download` fetches the sample's images, and a caption engine is asked about them.

    Raises:
        UserError: No image of the sample can be used.
    """
    beside = Folder.at(url)
    sample = _sample(recipe, listing, beside, images)
    where = f"{beside.path if beside.local else url.rstrip('/')}.trial-{uuid.uuid4().hex[:8]}"
    folder = Folder.at(where)
    with _temporary(folder):
        run = write_recipe(_reduced(recipe, sample.rows.num_rows), folder, where)
        jobs, stopped = _jobs(run, sample)
        run, reached = _with_rules(recipe, run)
        done = [] if sample.row_seconds is None else [estimate_index(plan, sample.rows.num_rows, sample.row_seconds)]
        done += estimate_stages(recipe, plan, run, jobs, reached, sample.rows.num_rows)
    return Trial.of(sample.rows.num_rows, done, stopped)


@contextmanager
def _temporary(folder: Folder) -> Iterator[None]:
    """Delete a new folder afterwards, and the folders above it that were made for it."""
    new = [parent for parent in Path(folder.path).parents if folder.local and not parent.exists()]
    try:
        yield
    finally:
        if folder.files(recursive=True) or (folder.local and Path(folder.path).exists()):
            folder.filesystem.delete_dir(folder.path)
        for parent in new:
            with suppress(OSError):  # something else has been put there meanwhile
                parent.rmdir()


def _sample(recipe: Recipe, listing: Listing, run: Folder, images: int) -> _Sample:
    """Return index rows of images chosen by a hash: of the run's index, else of some shards.

    Some shards that are not indexed yet are read in any case, to measure the time.
    """
    schema = recipe.pool.index_schema
    index = index_table(run, schema)
    fine = pl.col("error").is_null()
    begin = time.perf_counter()
    read = _read(recipe.pool, listing, unread(index, listing, recipe.pool).shards, images)
    seconds = (time.perf_counter() - begin) / read.num_rows if read.num_rows else None
    ids = index.scan(["id", "error"]).filter(fine).select("id").collect(engine="streaming")
    if ids.height:
        chosen = _first(ids, images)
        rows = index.scan().join(chosen.lazy(), on="id").collect(engine="streaming")
        return _Sample(_index_rows(rows, schema), seconds)
    usable = pl.DataFrame(read).filter(fine)
    if not usable.height:
        stored = index.scan(["error"]).drop_nulls().head(1).collect()["error"]
        reason = next((text for text in (*read["error"].to_pylist(), *stored) if text), "there is none")
        raise UserError(f"no image of the sample can be used: {reason}")
    return _Sample(_index_rows(usable.join(_first(usable.select("id"), images), on="id"), schema), seconds)


def _read(pool: Pool, listing: Listing, shards: pa.Table, images: int) -> pa.Table:
    """Return the index rows of some shards, chosen by a hash, until there are enough images."""
    chosen = pl.DataFrame(shards)
    chosen = chosen.sort(pl.col("path").hash(0)).head(2 * images if pool.shard_is_image else _SHARDS)
    step = max(chosen.height, 1) if pool.shard_is_image or not pool.bytes_are_work else 1
    tables, usable = [pool.index_schema.empty_table()], 0
    for start in range(0, chosen.height, step):
        chunk = chosen.slice(start, step).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(shards.schema)
        tables.append(pool.index(listing.root, chunk))
        usable += tables[-1]["error"].null_count
        if usable >= images:
            break
    return pa.concat_tables(tables)


def _first(ids: pl.DataFrame, count: int) -> pl.DataFrame:
    """Return columns `id` and `order` of `count` ids, chosen and ordered by a hash."""
    return ids.with_columns(order=priority(ids["id"].to_numpy(), 0)).sort("order").head(count)


def _index_rows(rows: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    ordered = rows.sort("order").select(schema.names)
    return ordered.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)


def _reduced(recipe: Recipe, images: int) -> dict[str, Any]:
    """Return the resolved recipe for a sample: without rules, with few clusters, and downloads into its own run."""
    written = recipe.resolved()
    for entry, step in zip(written["stages"], recipe.steps, strict=True):
        entry["keep"] = {}
        if isinstance(step.stage, Download):
            entry["images"] = None
        if "clusters" in entry:
            entry |= {"clusters": min(entry["clusters"], _CLUSTERS, max(1, images // 8)), "levels": []}
        if "fitted" in entry:
            entry["fitted"] = None
        if not isinstance(step.stage, GroupedStage) and (rows := _part_rows(step, images)):
            entry["resources"] = {**entry.get("resources", {}), "part_rows": rows}
    return parse_recipe(written, recipe.name).resolved()


def _part_rows(step: Step, images: int) -> int | None:
    """Return the rows of a part, so that each worker of this machine gets one; None if the recipe asks for more."""
    try:
        workers = place_locally(step.resources, step.stage, images).workers
    except UserError:
        return None
    return max(1, math.ceil(images * 3 / 4 / workers))


def _jobs(run: Run, sample: _Sample) -> tuple[dict[str, list[JobResult]], str | None]:
    """Run the stages on a quarter of the sample, then on the rest.

    Returns:
        The jobs by stage, and why the trial ended early, or None.
    """
    table, checked = run.index, parse_recipe(dict(run.recipe), run.url)
    store = Store(table, table.next_writer(), {"stage": "index"})
    quarter = max(1, sample.rows.num_rows // 4)
    jobs: dict[str, list[JobResult]] = {}
    try:
        with LocalWorkers() as local:
            for part in (sample.rows.slice(0, quarter), sample.rows.slice(quarter)):
                if part.num_rows:
                    store(part)
                    for job in run_stages(run, checked, local=local):
                        jobs.setdefault(job.stage, []).append(job)
    except UserError as error:
        return jobs, str(error)
    return jobs, None


def _with_rules(recipe: Recipe, run: Run) -> tuple[Run, dict[str, int]]:
    """Return the trial's run with the rules of the recipe, and how many rows of the sample reach each stage."""
    rules = {step_name(entry): entry["keep"] for entry in recipe.resolved()["stages"]}
    written = dict(open_run(run.url).recipe)
    for entry in written["stages"]:
        entry["keep"] = rules[step_name(entry)]
    run = write_recipe(written, run.folder, run.url)
    return run, {stage.stage: stage.seen for stage in funnel(run).stages}
