"""The runner: index the pool, then each stage as one Ray Data job over the rows that are alive and not stored."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from manifests.run import RECIPE, Run, index_table, open_run, stage_folder
from manifests.schemas import table_schema
from manifests.storage import Folder
from manifests.tables import Table
from manifests.verdict import StoredStage, advance, sound
from manifests.version import __version__
from pipeline.index import check_ids, chunks, read_chunk, unread
from pipeline.pool import Listing, Pool, told
from pipeline.recipe import Recipe, Resources, Step, parse_recipe
from pipeline.stages import Facts, Stage
from pipeline.store import Store


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

    rows, errors, seconds = _run_job(chunks(todo.shards), job)
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


def _compute(run: Run, step: Step, table: Table, alive: pl.DataFrame) -> Done:
    begin = time.perf_counter()
    if not alive.height:  # nothing got this far, and an earlier stage may have no columns to read
        return Done(step.stage.name, 0, 0, 0, time.perf_counter() - begin)
    rows = missing(run, step, table, alive)
    stored = alive.height - rows.height
    if not rows.height:
        return Done(step.stage.name, 0, 0, stored, time.perf_counter() - begin)
    made_by = {
        "stage": step.stage.name,
        "version": step.stage.version,
        "settings": step.stage.model_dump(mode="json"),
        "inputs": dict(step.inputs),
        "vl3syn": __version__,
    }
    table.folder.sweep_aside()
    size = part_size(rows.height, step.resources)

    store = Store(table, table.next_writer(), made_by)

    part = {"stage": step.stage, "batch_size": step.resources.batch_size, "store": store}
    how = {
        "num_cpus": step.resources.num_cpus,
        "num_gpus": step.resources.num_gpus or None,
        "batch_size": size,  # one call, one block, one part
        "batch_format": "pyarrow",
    }

    def job(dataset: Any) -> Any:
        from ray.data import ActorPoolStrategy, TaskPoolStrategy

        workers = pool_size(step, dataset.num_blocks())
        if hasattr(step.stage, "load"):
            return dataset.map_batches(
                StageActor, fn_constructor_kwargs=part, compute=ActorPoolStrategy(size=workers), **how
            )
        return dataset.map_batches(compute_part, fn_kwargs=part, compute=TaskPoolStrategy(size=workers), **how)

    done, errors, seconds = _run_job(_blocks(rows, size), job)
    return Done(step.stage.name, done, errors, stored, seconds)


class StageLoadError(ValueError):
    """A stage could not load; the text is the user's line."""


class StageActor:
    """A stage that has something to load, in a Ray actor."""

    def __init__(self, stage: Any, batch_size: int, store: Store) -> None:
        self._part = {"stage": stage, "batch_size": batch_size, "store": store}
        self._refused: str | None = None
        try:
            self._facts: Facts = stage.load()
        except (
            ValueError,
            OSError,
        ) as error:  # told by the first part: of an actor that dies here Ray tells only the traceback
            self._refused = str(error)

    def __call__(self, rows: pa.Table) -> pa.Table:
        if self._refused:
            raise StageLoadError(self._refused)
        return compute_part(rows, facts=self._facts, **self._part)


def compute_part(rows: pa.Table, stage: Any, batch_size: int, store: Store, facts: Facts | None = None) -> pa.Table:
    """Compute one part in batches, store it at once, and return its receipt."""
    starts = range(0, rows.num_rows, batch_size)
    batches = [compute_batch(rows.slice(start, batch_size), stage, facts or stage) for start in starts]
    return store(pa.concat_tables(batches))


def compute_batch(batch: pa.Table, stage: Stage, facts: Facts) -> pa.Table:
    """One batch of a stage table, held to the stage's contract."""
    schema = table_schema(stage.writes)
    computed = facts(batch.select(list(stage.reads)))
    if computed.num_rows != batch.num_rows:
        raise TypeError(f"{stage.name} made {computed.num_rows} rows of {batch.num_rows}")
    for name, type_, default in (("error", pa.string(), None), ("retry", pa.bool_(), False)):
        if name not in computed.column_names:
            computed = computed.append_column(name, pa.array([default] * batch.num_rows, type_))
    return computed.add_column(0, "id", batch["id"]).select(schema.names).cast(schema)


def part_size(rows: int, resources: Resources) -> int:
    """Rows per stored part: a 64th of the work, within 256 rows and what the recipe allows to lose."""
    return min(max(rows // 64, 256), resources.part_rows)


def _blocks(rows: pl.DataFrame, size: int) -> Iterator[pa.Table]:
    for block in rows.iter_slices(size):
        yield block.to_arrow(compat_level=pl.CompatLevel.oldest())


def pool_size(step: Step, blocks: int) -> int:
    """How many workers: as the recipe says, else what the cluster holds, and never more than there is work for.

    Raises:
        ValueError: The cluster does not have what one actor needs.
    """
    import ray

    asked = step.resources
    if asked.actors and "RAY_ADDRESS" in os.environ:  # a cluster that we joined may grow; one of our own does not
        return min(asked.actors, blocks)
    has = ray.cluster_resources()
    needs = {name: n for name, n in (("CPU", asked.num_cpus), ("GPU", asked.num_gpus)) if n}
    fits = min((int(has.get(name, 0) / n) for name, n in needs.items()), default=1)
    if not fits:
        told = " and ".join(f"{n:g} {name} (there are {has.get(name, 0):g})" for name, n in needs.items())
        raise ValueError(
            f"{step.stage.name}: an actor needs {told}; change its resources in the recipe, "
            "or give `actors` on a cluster that will grow"
        )
    return min(asked.actors or fits, fits, blocks)


def _run_job(blocks: Iterable[pa.Table], job: Callable[[Any], Any]) -> tuple[int, int, float]:
    """Send blocks through a Ray Data job that stores them as parts; rows and errors stored, and seconds.

    Raises:
        ValueError: A stage could not start, or the cluster died; what is stored stays.
    """
    start_ray()
    import ray
    from ray.exceptions import RayError, RayTaskError

    begin = time.perf_counter()
    dataset = ray.data.from_arrow_refs([ray.put(block) for block in blocks])
    rows = errors = 0
    try:
        for receipt in job(dataset).iter_batches(batch_format="pyarrow", batch_size=None):
            rows += pc.sum(receipt["rows"]).as_py()
            errors += pc.sum(receipt["errors"]).as_py()
    except RayTaskError as error:
        # Ray hands the exception itself on as text only.
        if refused := re.search(rf"{StageLoadError.__name__}: (.*)", str(error)):
            raise ValueError(refused[1]) from error
        raise
    except RayError as error:
        what = " ".join(str(error).split())[:200]
        raise ValueError(f"Ray stopped under the job ({what}); what is stored stays, run again to go on") from error
    return rows, errors, time.perf_counter() - begin


def start_ray() -> None:
    """Join the cluster of the environment (`ray job submit` sets it), else start one on this machine."""
    import logging

    import ray
    from ray.data import DataContext

    if not ray.is_initialized():
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    context = DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    # A job here is one operator that hands on receipts of a few bytes. Sharing resources out between operators would
    # only keep one worker idle: on 2 CPUs, half of them.
    context.op_resource_reservation_enabled = False
    for handler in logging.getLogger("ray.data").handlers:  # to the terminal errors only; its log file keeps all
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
