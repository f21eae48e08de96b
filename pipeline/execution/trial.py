"""Measure a recipe on a sample of its pool, in a temporary run directory, and estimate the time of the whole run.

The stages run as in every run: the same workers, the same callables, the same tables. They run twice, on a quarter of
the sample and then on the rest, so that the time of a row can be told from the time of a start. Every row goes through
every stage; what the rules would drop is counted afterwards, from the stored facts.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from core.errors import UserError
from core.stages import GroupedStage
from manifests.funnel import funnel
from manifests.priorities import priority
from manifests.run import Run, index_table, open_run, step_name
from manifests.schemas import INDEX
from manifests.storage import Folder
from pipeline.execution.job_result import JobResult
from pipeline.execution.local_workers import LocalWorkers
from pipeline.execution.part_writer import Store
from pipeline.execution.placement import place_locally
from pipeline.execution.preview import Preview, StagePreview
from pipeline.execution.runner import run_stages, write_recipe
from pipeline.pools import Listing
from pipeline.recipe import Recipe, Step, parse_recipe
from pipeline.stages.download.stage import Download

SAMPLE = 64
"""Images of a trial."""

_SHARDS = 16  # that are read for a sample, at most, if each holds many images
_CLUSTERS = 4  # that are trained on a sample
_NO_LIMIT = 1 << 62  # rows
_Z = 1.96  # of an interval that holds the true share in 95 % of samples


@dataclass(frozen=True)
class StageTrial:
    """What a stage did with the sample, and what that means for the run.

    Attributes:
        stage: Its name in the recipe; `index` for the index.
        rows: Rows of the longer of its two jobs; 0: none reached it.
        errors: Rows of the sample that failed.
        reached: Rows of the sample that the rules before it let through.
        start_seconds: Time before the first row: processes and models.
        row_seconds: Shortest and longest time per row, all workers of this machine together.
        row_bytes: Bytes that it stores per row, images that it downloads included.
        run_rows: Fewest and most rows that the run would compute; None: unknown.
        run_seconds: Shortest and longest time of that; None: unknown.
        note: Why it was not measured, or what the numbers leave out.
    """

    stage: str
    rows: int
    errors: int
    reached: int
    start_seconds: float
    row_seconds: tuple[float, float]
    row_bytes: float
    run_rows: tuple[int, int] | None
    run_seconds: tuple[float, float] | None
    note: str = ""


@dataclass(frozen=True)
class Trial:
    """A measured sample.

    Attributes:
        images: Images of the sample.
        stages: The index and the stages that were measured, in order.
        run_seconds: Shortest and longest time of the whole run; None: a part of it is unknown.
        stopped: Why the trial ended before the last stage; None: it did not.
    """

    images: int
    stages: tuple[StageTrial, ...]
    run_seconds: tuple[float, float] | None
    stopped: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Sample:
    """Index rows of the sample, and the seconds that reading a row's header took; None: they were in the index."""

    rows: pa.Table
    row_seconds: float | None


def try_out(recipe: Recipe, plan: Preview, listing: Listing, url: str, images: int = SAMPLE) -> Trial:
    """Run a sample of the pool through the recipe's stages, beside the run directory `url`; leave nothing behind.

    A stage `download` fetches the sample's images, and a caption engine is asked about them.

    Raises:
        UserError: No image of the sample can be used.
    """
    sample = _sample(recipe, listing, Folder.at(url), images)
    folder = Folder.at(f"{url.rstrip('/')}.trial-{uuid.uuid4().hex[:8]}")
    try:
        run = write_recipe(_reduced(recipe, sample.rows.num_rows), folder, folder.path)
        jobs, stopped = _jobs(run, sample)
        measured = list(_measured(recipe, plan, sample, run, jobs))
    finally:
        if folder.files(recursive=True):
            folder.filesystem.delete_dir(folder.path)
    times = [stage.run_seconds for stage in measured]
    complete = not stopped and all(times)
    total = (sum(t[0] for t in times if t), sum(t[1] for t in times if t)) if complete else None
    return Trial(sample.rows.num_rows, tuple(measured), total, stopped)


def _sample(recipe: Recipe, listing: Listing, run: Folder, images: int) -> _Sample:
    """Return index rows of images chosen by a hash: of the run's index, else of some shards that are read now."""
    index = index_table(run)
    fine = pl.col("error").is_null()
    ids = index.scan(["id", "error"]).filter(fine).select("id").collect(engine="streaming")
    if ids.height:
        chosen = _first(ids, images)
        rows = index.scan().join(chosen.lazy(), on="id").collect(engine="streaming")
        return _Sample(_index_rows(rows), None)
    begin = time.perf_counter()
    shards = pl.DataFrame(listing.shards)
    shards = shards.sort(pl.col("path").hash(0)).head(2 * images if recipe.pool.shard_is_image else _SHARDS)
    step = shards.height if recipe.pool.shard_is_image else 1
    tables, usable = [INDEX.empty_table()], 0
    for start in range(0, shards.height, max(step, 1)):
        chunk = shards.slice(start, step).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(listing.shards.schema)
        tables.append(recipe.pool.index(listing.root, chunk))
        usable += tables[-1]["error"].null_count
        if usable >= images:
            break
    read = pa.concat_tables(tables)
    seconds = time.perf_counter() - begin
    if not usable:
        raise UserError(f"no image of the sample can be used: {read['error'].drop_null()[0]}")
    rows = pl.DataFrame(read).filter(fine)
    rows = rows.join(_first(rows.select("id"), images), on="id")
    return _Sample(_index_rows(rows), seconds / read.num_rows)


def _first(ids: pl.DataFrame, count: int) -> pl.DataFrame:
    """Return columns `id` and `order` of `count` ids, chosen and ordered by a hash."""
    return ids.with_columns(order=priority(ids["id"].to_numpy(), 0)).sort("order").head(count)


def _index_rows(rows: pl.DataFrame) -> pa.Table:
    ordered = rows.sort("order").select(INDEX.names)
    return ordered.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(INDEX)


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
    table, checked = index_table(run.folder), parse_recipe(dict(run.recipe), run.url)
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


def _measured(
    recipe: Recipe, plan: Preview, sample: _Sample, run: Run, jobs: dict[str, list[JobResult]]
) -> Iterator[StageTrial]:
    images, pool = sample.rows.num_rows, plan.pool
    if sample.row_seconds is not None:
        new = pool.new
        seconds = None if new is None else (new * sample.row_seconds / 4, new * sample.row_seconds)
        rates = (sample.row_seconds / 4, sample.row_seconds)
        rows = None if new is None else (new, new)
        note = "one process; the run has one for each CPU"
        yield StageTrial("index", images, 0, images, 0.0, rates, 0.0, rows, seconds, note)
    run, reached = _with_rules(recipe, run)
    sizes = _sizes(run)
    bounded, limit = True, _NO_LIMIT
    for step, stage in zip(recipe.steps, plan.stages, strict=True):
        done = jobs.get(step.name, [])
        if not done:
            return
        training = jobs.get(f"{step.name} (training)")
        rows = _run_rows(stage, _interval(reached[step.name], images), limit)
        rows = rows if rows is None or bounded else (0, rows[1])
        yield _estimate(stage, done, reached[step.name], sizes.get(step.name, 0.0), rows, bool(training))
        for rule in step.rules:
            bounded = bounded and rule.kind != "per_group"  # a small sample has few images of each group
            limit = min(limit, int(rule.threshold)) if rule.kind == "total" else limit


def _estimate(
    stage: StagePreview,
    done: Sequence[JobResult],
    reached: int,
    row_bytes: float,
    rows: tuple[int, int] | None,
    trained: bool,
) -> StageTrial:
    longest = max(done, key=lambda job: job.computed)
    mean = longest.working / max(longest.computed, 1)
    slope = mean
    if len(done) > 1 and (more := done[1].computed - done[0].computed) > 0:
        slope = min(mean, max(0.0, (done[1].working - done[0].working) / more))
    start = next((job.seconds - job.working for job in done if job.computed), 0.0)
    seconds = None
    if rows is not None:
        seconds = (start + rows[0] * slope, start + rows[1] * mean) if rows[1] and longest.computed else (0.0, 0.0)
        seconds = None if rows[1] and not longest.computed else seconds
    return StageTrial(
        stage=stage.stage,
        rows=longest.computed,
        errors=sum(job.errors for job in done),
        reached=reached,
        start_seconds=start,
        row_seconds=(slope, mean),
        row_bytes=row_bytes,
        run_rows=rows,
        run_seconds=seconds,
        note="without its training" if trained else "" if longest.computed else "no image of the sample reached it",
    )


def _run_rows(stage: StagePreview, share: tuple[float, float], limit: int) -> tuple[int, int] | None:
    """Return the fewest and the most rows that the run would compute, by the share of the sample that reached it."""
    if stage.to_compute is None:
        return None
    if not stage.at_most:
        return stage.to_compute, stage.to_compute
    most = min(stage.to_compute, limit)
    return min(most, math.floor(share[0] * stage.to_compute)), min(most, math.ceil(share[1] * stage.to_compute))


def _interval(count: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (Wilson 1927, Probable inference)."""
    share, z = count / of, _Z**2 / of
    centre, half = share + z / 2, _Z * math.sqrt(share * (1 - share) / of + z / (4 * of))
    return max(0.0, (centre - half) / (1 + z)), min(1.0, (centre + half) / (1 + z))


def _with_rules(recipe: Recipe, run: Run) -> tuple[Run, dict[str, int]]:
    """Return the trial's run with the rules of the recipe, and how many rows of the sample reach each stage."""
    rules = {step_name(entry): entry["keep"] for entry in recipe.resolved()["stages"]}
    written = dict(open_run(run.url).recipe)
    for entry in written["stages"]:
        entry["keep"] = rules[step_name(entry)]
    run = write_recipe(written, run.folder, run.url)
    return run, {stage.stage: stage.seen for stage in funnel(run).stages}


def _sizes(run: Run) -> dict[str, float]:
    """Return the bytes per row that each stage stored, downloaded images included."""
    sizes = {}
    for stage in run.stages:
        rows = stage.table.scan(["id"]).select(pl.len()).collect(engine="streaming").item()
        stored = sum(file.size for file in stage.table.folder.files())
        images = "image_bytes" in stage.table.schema.names
        stored += stage.table.scan(["image_bytes"]).sum().collect().item() or 0 if images else 0
        sizes[stage.name] = stored / rows if rows else 0.0
    return sizes
