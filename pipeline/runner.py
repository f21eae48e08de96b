"""The runner: index the pool, then each stage as one Ray Data job over the rows that are alive and not stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import yaml

from manifests.run import RECIPE, Run, index_table, open_run, stage_folder
from manifests.schemas import table_schema
from manifests.storage import Folder
from manifests.tables import Table
from manifests.verdict import StoredStage, advance, sound
from manifests.version import __version__
from pipeline.engine import run_job, workers_for
from pipeline.index import check_ids, chunks, read_chunk, unread
from pipeline.pool import Listing, Pool, told
from pipeline.recipe import Recipe, Resources, Step, parse_recipe
from pipeline.store import Store
from pipeline.workers import StageActor, compute_part


@dataclass(frozen=True)
class Done:
    """What one job did.

    Attributes:
        stage: `index` or the stage's name.
        computed: Rows computed now.
        errors: Those of them that failed.
        stored: Rows that were stored before and not computed again.
        seconds: Wall time of the job, without the start of Ray.
    """

    stage: str
    computed: int
    errors: int
    stored: int
    seconds: float


def prepare(recipe: Recipe, url: str) -> Run:
    """Make the run directory, or open it anew under a changed recipe.

    Raises:
        ValueError: The directory is in use for something else, or was indexed from another pool.
    """
    folder = Folder.at(url)
    resolved = recipe.resolved()
    if folder.exists(RECIPE):
        before = open_run(url).recipe.get("pool")
        if before != resolved["pool"]:
            raise ValueError(
                f"{url} was made from the pool {_flow(before)}, not {_flow(resolved['pool'])}; "
                f"choose another run directory, or edit pool in {url}/{RECIPE} if the pool has moved"
            )
    elif folder.files():
        raise ValueError(f"{url} holds files but no {RECIPE}; choose an empty or new directory for the run")
    text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
    folder.write(RECIPE, text.encode())
    return open_run(url)


def recipe_of(run: Run) -> Recipe:
    """The run's own recipe, checked against today's stages."""
    return parse_recipe(dict(run.recipe), f"{run.url}/{RECIPE}")


def build_index(run: Run, pool: Pool, listing: Listing, say: Callable[[str], None]) -> Done:
    """Index what the pool, as listed, has and the run does not."""
    begin = time.perf_counter()
    table = index_table(run.folder)
    if listing.passed_over:
        say(f"pool: passed over files that are no images by their ending: {told(listing.passed_over)}")
    todo = unread(table, listing, pool)
    if todo.changed:
        say(f"pool: {todo.changed:,} indexed shards have another length now; their images count as new")
    if todo.vanished:
        say(f"pool: {todo.vanished:,} indexed shards are not there any more; their rows stay")
    stored = table.scan().select(pl.len()).collect().item()
    if not todo.shards:
        check_ids(table, pool)
        return Done("index", 0, 0, stored, time.perf_counter() - begin)
    made_by = {"stage": "index", "pool": pool.kind, "vl3syn": __version__}
    table.folder.sweep_aside()

    store = Store(table, table.next_writer(), made_by)

    def job(dataset: Any) -> Any:
        read = {"pool": pool, "root": listing.root, "store": store}
        return dataset.map_batches(read_chunk, fn_kwargs=read, batch_size=None, batch_format="pyarrow")

    rows, errors, seconds = run_job(chunks(todo.shards), job)
    check_ids(table, pool)
    return Done("index", rows, errors, stored, seconds)


def run_stages(run: Run, recipe: Recipe, only: str | None = None) -> Iterator[Done]:
    """Compute the recipe's stages in order (or only one of them), each over the rows that reach it."""
    check_ids(run.index, recipe.pool)
    alive = sound(run.index.scan())
    for step in recipe.steps:
        schema = table_schema(step.stage.writes)
        table = Table(stage_folder(run.folder, step.table), schema)
        if only in (None, step.stage.name):
            yield _compute(run, step, table, alive)
        if only == step.stage.name:
            return
        alive = advance(alive, StoredStage(step.stage.name, table, step.rules)).alive


def missing(run: Run, step: Step, table: Table, alive: pl.DataFrame) -> pl.DataFrame:
    """`id` and the columns that the stage reads, for the rows that are alive and not stored (or worth another try)."""
    stored = table.scan().filter(~pl.col("retry")).select("id")
    rows = alive.lazy().select("id").join(stored, on="id", how="anti")
    wanted: dict[str, list[str]] = {}
    for column in step.stage.reads:
        wanted.setdefault(step.inputs.get(column, ""), []).append(column)
    for source, columns in wanted.items():
        facts = Table.stored(stage_folder(run.folder, source)) if source else run.index
        rows = rows.join(facts.scan().select("id", *columns), on="id", how="left")
    return rows.sort("id").collect(engine="streaming")


def part_size(rows: int, resources: Resources) -> int:
    """Rows per stored part: a 64th of the work, within 256 rows and what the recipe allows to lose."""
    return min(max(rows // 64, 256), resources.part_rows)


def _compute(run: Run, step: Step, table: Table, alive: pl.DataFrame) -> Done:
    begin = time.perf_counter()
    name = step.stage.name
    # Where nothing got this far, an earlier stage may have no columns to read.
    rows = missing(run, step, table, alive) if alive.height else alive
    stored = alive.height - rows.height
    if not rows.height:
        return Done(name, 0, 0, stored, time.perf_counter() - begin)
    made_by = {
        "stage": name,
        "version": step.stage.version,
        "settings": step.stage.model_dump(mode="json"),
        "inputs": dict(step.inputs),
        "vl3syn": __version__,
    }
    table.folder.sweep_aside()
    size = part_size(rows.height, step.resources)
    blocks = (block.to_arrow(compat_level=pl.CompatLevel.oldest()) for block in rows.iter_slices(size))
    job = _stage_job(step, size, Store(table, table.next_writer(), made_by))
    done, errors, seconds = run_job(blocks, job)
    return Done(name, done, errors, stored, seconds)


def _stage_job(step: Step, size: int, store: Store) -> Callable[[Any], Any]:
    """A stage over a Ray dataset whose blocks have `size` rows."""
    part = {"stage": step.stage, "batch_size": step.resources.batch_size, "store": store}
    how = {
        "num_cpus": step.resources.num_cpus,
        "num_gpus": step.resources.num_gpus or None,
        "batch_size": size,  # one call, one block, one part
        "batch_format": "pyarrow",
    }

    def job(dataset: Any) -> Any:
        from ray.data import ActorPoolStrategy, TaskPoolStrategy

        workers = workers_for(step.resources, step.stage.name, dataset.num_blocks())
        if hasattr(step.stage, "load"):
            pool = ActorPoolStrategy(size=workers)
            return dataset.map_batches(StageActor, fn_constructor_kwargs=part, compute=pool, **how)
        return dataset.map_batches(compute_part, fn_kwargs=part, compute=TaskPoolStrategy(size=workers), **how)

    return job


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
