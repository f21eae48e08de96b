"""The runner: index the pool, then run each stage as one Ray Data job over the alive rows that it has not stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl
import yaml

from core.errors import UserError
from core.stages import FittedStage, ImageStage, LoadedStage
from manifests import indexing
from manifests.contents import contents_table
from manifests.journal import recover
from manifests.run import RECIPE, Run, index_table, open_run, stage_folder
from manifests.schemas import table_schema
from manifests.storage import Folder
from manifests.tables import Table
from manifests.verdict import StoredStage, advance, valid_ids
from manifests.version import __version__
from pipeline.execution.fitting import find, fitted_of, is_trained, resolve_fitted, sample, store, train
from pipeline.execution.grouping import changed_groups, cut, groups_of
from pipeline.execution.index import READER, account, check_ids, chunks, read_chunk, unread
from pipeline.execution.part_writer import Store
from pipeline.execution.placement import place_workers
from pipeline.execution.planner import columns_of, plan, stored_table, unstored
from pipeline.execution.ray_job import Job, map_blocks, run_job
from pipeline.execution.receipts import reported
from pipeline.execution.rescue import RowRescue, ShardRescue
from pipeline.execution.workers import ImageStageActor, StageActor, StageTask
from pipeline.pools import Listing, Pool, format_counts
from pipeline.recipe import Recipe, Step, parse_recipe
from pipeline.stages.registry import outdated

PART, COSTLY_PART, GROUPED_PART = 65_536, 1024, 1 << 20
"""Default maximum of rows per stored part; a part of whole groups has more if one group is larger."""


@dataclass(frozen=True)
class Done:
    """The result of one job.

    Attributes:
        stage: `index`, the stage's name, or the name with ` (training)`.
        computed: Rows that this job computed.
        errors: Computed rows that failed.
        stored: Rows that were stored before and not computed again.
        seconds: Wall time of the job, without the start of Ray.
        working: Wall time from the first row taken to the last row stored, without the start of workers and models.
        idle: Share of the workers' time in which the model waited for images; None if the stage reads no images.
    """

    stage: str
    computed: int
    errors: int
    stored: int
    seconds: float
    working: float = 0.0
    idle: float | None = None

    @property
    def rate(self) -> float | None:
        """Rows per second of `working`; None if nothing was computed."""
        return self.computed / max(self.working, 1e-3) if self.computed else None


def prepare(recipe: Recipe, url: str, refit: bool = False) -> Run:
    """Create the run directory, or open an existing one and write the recipe again, which may have changed.

    Fitted artifacts of the run are used again, unless `refit`.

    Raises:
        UserError: The directory holds other files, or was indexed from another pool.
    """
    folder = Folder.at(url)
    resolved = resolve_fitted(recipe, folder, refit).resolved()
    if folder.exists(RECIPE):
        before = open_run(url).recipe.get("pool")
        if before != resolved["pool"]:
            raise UserError(
                f"{url} was made from the pool {_flow(before)}, not {_flow(resolved['pool'])}; "
                f"choose another run directory, or edit pool in {url}/{RECIPE} if the pool has moved"
            )
    elif folder.files():
        raise UserError(f"{url} holds files but no {RECIPE}; choose an empty or new directory for the run")
    return _write(resolved, folder, url)


def _write(resolved: Mapping[str, Any], folder: Folder, url: str) -> Run:
    folder.write(RECIPE, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True).encode())
    return open_run(url)


def recipe_of(run: Run) -> Recipe:
    """Return the recipe that is stored in the run, checked against the stages of this version."""
    return parse_recipe(dict(run.recipe), f"{run.url}/{RECIPE}")


def check_models(recipe: Recipe, url: str, only: Sequence[str] | None = None) -> None:
    """Check, before anything is written or started, that the models of stages that never ran are available.

    A stage with stored facts may have no rows left to compute; it is checked when it has some.

    Raises:
        UserError: A model is not available; the message says how to get it.
    """
    for step in resolve_fitted(recipe, Folder.at(url)).steps:
        stored = Table.stored(stage_folder(Folder.at(url), step.table)).parts()
        if not stored and (only is None or step.stage.name in only):
            step.stage.check_settings()
            step.stage.check_available()


def build_index(run: Run, pool: Pool, listing: Listing, say: Callable[[str], None]) -> Done:
    """Index the shards of a listed pool that the run has not stored, or that must be read again."""
    begin = time.perf_counter()
    table = index_table(run.folder)
    if listing.passed_over:
        what = " files that are no images by their ending" if pool.shard_is_image else ""
        say(f"pool: passed over{what}: {format_counts(listing.passed_over)}")
    todo = unread(table, listing, pool)
    if todo.changed:
        say(f"pool: {todo.changed:,} indexed shards have another length now; their images count as new")
    if todo.misread:
        say(
            f"pool: {todo.misread:,} tars are read again: an earlier version mixed up texts of images with dots in "
            "their names or with one name, or lost letters that are not UTF-8; ids and facts stay (docs/run.md says "
            "what to do about those of alt text)"
        )
    if todo.vanished:
        say(f"pool: {todo.vanished:,} indexed shards are not there any more; their rows stay")
    stored = table.scan(["id"]).select(pl.len()).collect().item()
    if not todo.shards.num_rows:
        indexing.end(table)
        check_ids(table, pool)
        return Done("index", 0, 0, stored, time.perf_counter() - begin)
    for source in filter(None, (listing.image, listing.alt_text)):
        say(f"pool: {source}")
    provenance = {"stage": "index", "pool": pool.kind, "reader": READER, "vl3syn": __version__}
    table.folder.sweep_aside()

    store = Store(table, table.next_writer(), provenance)

    def job(dataset: Any, alone: bool = False) -> Any:
        call = partial(read_chunk, pool=pool, root=listing.root, store=store)
        return map_blocks(dataset, reported, fn_kwargs={"call": call})

    indexing.begin(table)
    done = run_job(chunks(todo.shards), job, ShardRescue(pool, store))
    indexing.end(table)
    check_ids(table, pool)
    for line in account(table, store.writer, pool):
        say(f"pool: {line}")
    return Done("index", done.rows, done.errors, stored, done.seconds, done.working)


def run_stages(run: Run, recipe: Recipe, only: Sequence[str] | None = None, refit: bool = False) -> Iterator[Done]:
    """Compute the recipe's stages in order (or only those in `only`), each over the rows that reach it.

    A stage that must be trained is trained first if the run has no fitted artifact for it, or with `refit`.

    Raises:
        UserError: The index is not finished, or two images have the same id.
    """
    indexing.refuse_unfinished(run)
    check_ids(run.index, recipe.pool)
    recipe = resolve_fitted(recipe, run.folder, refit)
    alive = valid_ids(run.index)
    for position in range(len(recipe.steps)):
        step = recipe.steps[position]
        wanted = only is None or step.stage.name in only
        if wanted and is_trained(step) and fitted_of(step) is None and alive.height:
            recipe, trained = _train(run, recipe, step, alive)
            step = recipe.steps[position]
            yield trained
        stored = _stored_stage(run, step)
        if wanted:
            yield _compute(run, recipe, step, stored, alive)
        alive = advance(alive, stored).alive


def part_size(rows: int, step: Step) -> int:
    """Return the rows per stored part: a 64th of the work, with a minimum, and at most `part_rows` of the recipe.

    A stage that compares rows gets exactly `part_rows`, if given: each part reads the tables, so users may want few.
    """
    grouped, wanted = groups_of(step) is not None, step.resources.part_rows
    if grouped and wanted:
        return wanted
    fewest = 64 if isinstance(step.stage, ImageStage) else 256
    most = GROUPED_PART if grouped else COSTLY_PART if step.stage.journaled else PART
    return min(max(rows // 64, fewest), wanted or most)


def _stored_stage(run: Run, step: Step) -> StoredStage:
    earlier = {column: stored_table(run, source) for column, source in step.rule_inputs.items()}
    return StoredStage(step.stage.name, stage_table(run, step), step.rules, earlier)


def stage_table(run: Run, step: Step) -> Table:
    """Return the table of a step, with the columns that the stage writes in this version."""
    return Table(stage_folder(run.folder, step.table), table_schema(step.stage.writes))


def _train(run: Run, recipe: Recipe, step: Step, alive: pl.DataFrame) -> tuple[Recipe, Done]:
    """Train a step's stage on a sample of the rows that reach it; return the recipe with the artifact's hash."""
    begin = time.perf_counter()
    step.stage.check_available()
    rows, inputs = plan(run, recipe.pool, columns_of(step), sample(step, alive["id"]))
    fitted, facts = train(step, inputs, rows)
    provenance = {**_provenance(step), "alive": alive.height, "sample": rows.height, **facts}
    store(run.folder, step, fitted, provenance)
    recipe = resolve_fitted(recipe, run.folder)
    _write(recipe.resolved(), run.folder, run.url)
    seconds = time.perf_counter() - begin
    return recipe, Done(f"{step.stage.name} (training)", rows.height, 0, 0, seconds, seconds)


def _compute(run: Run, recipe: Recipe, step: Step, stored: StoredStage, alive: pl.DataFrame) -> Done:
    begin = time.perf_counter()
    name, table = step.stage.name, stored.table
    contents = contents_table(run.folder) if isinstance(step.stage, ImageStage) else None
    if step.stage.journaled:
        recover(table)
        if contents:
            recover(contents)
    _declare(table)
    # If no row is alive, an earlier stage may have no columns to read.
    groups = _groups(run, step) if alive.height else None
    ids = _todo(step, stored, alive, groups) if alive.height else alive
    before = alive.height - ids.height
    if not ids.height:
        return Done(name, 0, 0, before, time.perf_counter() - begin)
    step.stage.check_available()
    table.folder.sweep_aside()
    rows, inputs = plan(run, recipe.pool, columns_of(step), ids)
    size = part_size(rows.height, step)
    blocks = (block.to_arrow(compat_level=pl.CompatLevel.oldest()) for block in cut(rows, size, groups))
    by_default = 64 if isinstance(step.stage, ImageStage) else 1024
    batch_size = step.resources.batch_size or step.stage.batch_size or by_default
    part = StageTask(
        step.stage,
        inputs,
        batch_size if groups is None else rows.height,
        Store(table, table.next_writer(), _provenance(step)),
        Store(contents, contents.next_writer(), {"vl3syn": __version__}) if contents else None,
        find(run.folder, step) if is_trained(step) else None,
        step.fields,
    )
    done = run_job(blocks, _stage_job(step, part), RowRescue(part, groups))
    return Done(name, done.rows, done.errors, before, done.seconds, done.working, done.idle)


def _declare(table: Table) -> None:
    """Append an empty part with the current columns if the parts lack some: readers infer the columns from parts."""
    if table.parts() and not set(table.schema.names) <= set(Table.stored(table.folder).schema.names):
        table.append(table.schema.empty_table(), table.next_writer(), table.provenance())


def _todo(step: Step, stored: StoredStage, alive: pl.DataFrame, groups: pl.DataFrame | None) -> pl.DataFrame:
    """Return the rows of `alive` without facts or with outdated ones; if rows are compared, all of changed groups."""
    new = unstored(stored.table, alive)
    wrong = outdated(step.stage, stored.table)
    if wrong.height:
        new = pl.concat([new, alive.select("id").join(wrong, on="id", how="semi")]).unique("id")
    return new if groups is None else changed_groups(alive, new, stored, groups)


def _groups(run: Run, step: Step) -> pl.DataFrame | None:
    """Return the group of each id for a stage that compares rows, else None."""
    column = groups_of(step)
    if column is None:
        return None
    return stored_table(run, step.inputs.get(column, "")).scan(["id", column]).collect(engine="streaming")


def _provenance(step: Step) -> dict[str, object]:
    return {
        "stage": step.stage.name,
        "version": step.stage.version,
        "settings": step.stage.model_dump(mode="json"),
        "inputs": dict(step.inputs),
        "vl3syn": __version__,
    }


def _stage_job(step: Step, part: StageTask) -> Job:
    """Return the job that runs a stage over a Ray dataset: one block, one call, one part."""

    def job(dataset: Any, alone: bool = False) -> Any:
        from ray.data import ActorPoolStrategy, TaskPoolStrategy

        placed = place_workers(step.resources, step.stage, dataset.num_blocks())
        how = {"num_cpus": placed.num_cpus, "num_gpus": placed.num_gpus or None}
        if not isinstance(step.stage, LoadedStage | ImageStage | FittedStage):
            tasks = TaskPoolStrategy(size=placed.workers)
            return map_blocks(dataset, reported, fn_kwargs={"call": part.compute}, compute=tasks, **how)
        images = isinstance(step.stage, ImageStage)
        of_images = (part, placed.threads, step.resources.image_seconds, step.resources.first_errors)
        actor, args = (ImageStageActor, of_images) if images else (StageActor, (part,))
        # Two parts of images at a time: one decodes ahead while the other keeps the model busy.
        at_once = {"max_concurrent_calls_per_actor": 2, "enable_true_multi_threading": True} if images else {}
        ways = {"max_tasks_in_flight_per_actor": 1} if alone else at_once
        pool = ActorPoolStrategy(size=placed.workers, **ways)
        return map_blocks(dataset, actor, fn_constructor_args=args, compute=pool, **how)

    return job


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
