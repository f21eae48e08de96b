"""The runner: index the pool, then each stage as one Ray Data job over the rows that are alive and not stored."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import polars as pl
import pyarrow as pa
import yaml

from manifests.run import RECIPE, Run, index_table, open_run, stage_folder
from manifests.schemas import table_schema
from manifests.storage import Folder
from manifests.tables import Table
from manifests.verdict import StoredStage, advance, sound
from pipeline.index import check_ids, chunks, read_chunk, unread
from pipeline.pool import list_pool, told
from pipeline.recipe import Recipe, Resources, Step, load_recipe, parse_recipe
from pipeline.stages import Stage


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


def build_index(run: Run, recipe: Recipe, say: Callable[[str], None]) -> Done:
    """Index what the pool has and the run does not."""
    begin = time.perf_counter()
    table = index_table(run.folder)
    listing = list_pool(recipe.pool)
    if listing.passed_over:
        say(f"pool: passed over files that are no images by their ending: {told(listing.passed_over)}")
    todo = unread(table, listing)
    if todo.vanished:
        say(f"pool: {todo.vanished:,} indexed shards are not there any more; their rows stay")
    stored = table.scan().select(pl.len()).collect().item()
    if not todo.shards:
        return Done("index", 0, 0, stored, time.perf_counter() - begin)
    made_by = {"stage": "index", "pool": recipe.pool.kind, "vl3syn": version("vl3syn")}
    table.folder.sweep_aside()

    def job(dataset: Any) -> Any:
        return dataset.map_batches(
            read_chunk,
            fn_kwargs={"pool": recipe.pool, "root": listing.root},
            batch_size=None,
            batch_format="pyarrow",
        )

    rows, errors, seconds = _run_job(table, chunks(todo.shards), job, made_by)
    check_ids(table)
    return Done("index", rows, errors, stored, seconds)


def run_stages(run: Run, recipe: Recipe, only: str | None = None) -> Iterator[Done]:
    """Compute the recipe's stages in order (or only one of them), each over the rows that reach it."""
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
    rows = missing(run, step, table, alive)
    stored = alive.height - rows.height
    if not rows.height:
        return Done(step.stage.name, 0, 0, stored, time.perf_counter() - begin)
    made_by = {
        "stage": step.stage.name,
        "version": step.stage.version,
        "settings": step.stage.model_dump(mode="json"),
        "inputs": dict(step.inputs),
        "vl3syn": version("vl3syn"),
    }
    table.folder.sweep_aside()

    def job(dataset: Any) -> Any:
        from ray.data import ActorPoolStrategy

        return dataset.map_batches(
            StageActor,
            fn_constructor_args=(step.stage,),
            compute=ActorPoolStrategy(size=pool_size(step, dataset.num_blocks())),
            num_cpus=step.resources.num_cpus,
            num_gpus=step.resources.num_gpus or None,
            batch_size=step.resources.batch_size,
            batch_format="pyarrow",
            udf_modifying_row_count=False,
        )

    done, errors, seconds = _run_job(table, slices(rows, step.resources), job, made_by)
    return Done(step.stage.name, done, errors, stored, seconds)


class StageActor:
    """A stage in a Ray actor: its callable, held to its contract."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._facts = stage.load()

    def __call__(self, batch: pa.Table) -> pa.Table:
        facts = self._facts(batch.select(list(self._stage.reads)))
        if facts.num_rows != batch.num_rows:
            raise TypeError(f"{self._stage.name} made {facts.num_rows} rows of {batch.num_rows}")
        for name, type_, default in (("error", pa.string(), None), ("retry", pa.bool_(), False)):
            if name not in facts.column_names:
                facts = facts.append_column(name, pa.array([default] * batch.num_rows, type_))
        schema = table_schema(self._stage.writes)
        return facts.add_column(0, "id", batch["id"]).select(schema.names).cast(schema)


def slices(rows: pl.DataFrame, resources: Resources) -> Iterator[pa.Table]:
    """The rows as blocks, one per part to be: a 64th of the work each, within 256 rows and `part_rows`."""
    size = min(max(rows.height // 64, 256), resources.part_rows)
    for block in rows.iter_slices(size):
        yield block.to_arrow(compat_level=pl.CompatLevel.oldest())


def pool_size(step: Step, blocks: int) -> int:
    """How many actors: as the recipe says, else what the cluster holds, and never more than there is work for.

    Raises:
        ValueError: The cluster does not have what one actor needs.
    """
    import ray

    asked = step.resources
    if asked.actors:
        return min(asked.actors, blocks)
    has = ray.cluster_resources()
    needs = {name: n for name, n in (("CPU", asked.num_cpus), ("GPU", asked.num_gpus)) if n}
    fits = min((int(has.get(name, 0) / n) for name, n in needs.items()), default=1)
    if not fits:
        told = " and ".join(f"{n:g} {name} (there are {has.get(name, 0):g})" for name, n in needs.items())
        raise ValueError(
            f"{step.stage.name}: an actor needs {told}; change its resources in the recipe, "
            "or give `actors` if the cluster will grow"
        )
    return min(fits, blocks)


def _run_job(
    table: Table, blocks: Iterable[pa.Table], job: Callable[[Any], Any], made_by: dict[str, object]
) -> tuple[int, int, float]:
    """Send blocks through a Ray Data job into a table; rows, errors and seconds."""
    start_ray()
    import ray
    from ray.exceptions import RayTaskError

    from pipeline.sink import TableSink

    begin = time.perf_counter()
    sink = TableSink(table, made_by)
    dataset = ray.data.from_arrow_refs([ray.put(block) for block in blocks])
    try:
        # Writing holds no CPU: with every CPU held by an actor, a write task that asks for one would wait for ever.
        job(dataset).write_datasink(sink, ray_remote_args={"num_cpus": 0})
    except RayTaskError as error:
        if isinstance(error.cause, ValueError):  # a model that is not there, said in one line by the stage
            raise ValueError(str(error.cause)) from error
        raise
    return sink.rows, sink.errors, time.perf_counter() - begin


def start_ray() -> None:
    """Join the cluster of the environment (`ray job submit` sets it), else start one on this machine."""
    import logging

    import ray
    from ray.data import DataContext

    if not ray.is_initialized():
        ray.init(include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
    context = DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip()


__all__ = ["Done", "build_index", "load_recipe", "prepare", "recipe_of", "run_stages", "start_ray"]
