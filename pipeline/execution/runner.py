"""The runner: check and open a run, then compute the stages of its recipe, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml

from core.errors import UserError
from manifests import indexing, lease
from manifests.run import RECIPE, Run, index_table, open_run, stage_folder
from manifests.storage import ASIDE, Folder
from manifests.tables import Table
from manifests.verdict import StoredStage, advance, valid_ids
from pipeline.execution.fitting import fitted_of, is_trained, resolve_fitted, sample, store, train
from pipeline.execution.index import check_ids
from pipeline.execution.job_columns import columns_of
from pipeline.execution.job_log import record
from pipeline.execution.job_result import JobResult
from pipeline.execution.local_workers import (
    ROWS,
    LocalWorkers,
    is_for_local_workers,
)
from pipeline.execution.placement import check_placement, place_locally
from pipeline.execution.planner import plan, stored_table
from pipeline.execution.pool_columns import check_pool_columns
from pipeline.execution.precision import refuse_other_precision
from pipeline.execution.selection import Selection
from pipeline.execution.stage_job import run_stage, stage_provenance, stage_table
from pipeline.pools import Pool
from pipeline.recipe import Recipe, Step, parse_recipe

if TYPE_CHECKING:
    pass


def prepare(recipe: Recipe, url: str, refit: bool = False) -> Run:
    """Create the run directory, or open an existing one and write the recipe again, which may have changed.

    Fitted artifacts of the run are used again, unless `refit`.

    Raises:
        UserError: See `check_run`.
    """
    folder = Folder.at(url)
    fitted = resolve_fitted(recipe, folder, refit)
    check_run(fitted, url)
    return write_recipe(fitted.resolved(), folder, url)


def check_run(fitted: Recipe, url: str) -> None:
    """Check that a recipe with its fitted artifacts can be run in a directory. Nothing is written.

    Raises:
        UserError: The directory holds other files, cannot be made, or was indexed from another pool; or the recipe
            names another precision than that of stored rows.
    """
    folder = Folder.at(url)
    for step in fitted.steps:  # the recipe of the run must not name another precision than its rows have
        refuse_other_precision(step, Table.stored(stage_folder(folder, step.table)))
    resolved = fitted.resolved()
    if folder.exists(RECIPE):
        stored_pool = open_run(url).recipe.get("pool")
        if _fixed(stored_pool, fitted.pool) != _fixed(resolved["pool"], fitted.pool):
            raise UserError(
                f"{url} was made from the pool {_as_one_line(stored_pool)}, not {_as_one_line(resolved['pool'])}; "
                f"choose another run directory, or edit pool in {url}/{RECIPE} if the pool has moved"
            )
    elif folder.local and not (above := _nearest(Path(folder.path))).is_dir():
        raise UserError(f"{above} is not a folder; choose another run directory than {url}")
    elif any(file.base_name != lease.FILE and not file.base_name.startswith(ASIDE) for file in folder.files()):
        raise UserError(f"{url} holds files but no {RECIPE}; choose an empty or new directory for the run")


def _fixed(written: object, pool: Pool) -> object:
    """Return what a recipe says of a pool, without the settings that a run may change."""
    if not isinstance(written, dict):
        return written
    return {key: value for key, value in written.items() if key not in pool.changeable}


def _nearest(path: Path) -> Path:
    """Return the path, or what exists above it."""
    return next(place for place in (path, *path.parents) if place.exists())


def write_recipe(resolved: Mapping[str, Any], folder: Folder, url: str) -> Run:
    """Write the recipe of a run, and open the run."""
    folder.write(RECIPE, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True).encode())
    return open_run(url)


def recipe_of(run: Run) -> Recipe:
    """Return the recipe that is stored in the run, checked against the stages of this version."""
    return parse_recipe(dict(run.recipe), f"{run.url}/{RECIPE}")


def check_models(recipe: Recipe, url: str, only: Sequence[str] | None = None) -> None:
    """Check, before anything is written or started, what stages need that never ran: models, resources, pool columns.

    A stage with stored facts may have no rows left to compute; it is checked when it has some.

    Raises:
        UserError: A model is not available, and the message says how to get it; this machine lacks what the recipe asks
            for a worker; or the indexed pool lacks a column.
    """
    for step in never_ran(recipe, url, only):
        check_step(step, recipe.pool, index_table(Folder.at(url), recipe.pool.index_schema))


def check_step(step: Step, pool: Pool, index: Table) -> None:
    """Check a step as `check_models` does."""
    step.stage.check_settings()
    step.stage.check_available()
    check_placement(step.resources, step.stage)
    check_pool_columns(step, pool, index)


def preload(recipe: Recipe, url: str, local: LocalWorkers, only: Sequence[str] | None = None) -> None:
    """Let local workers import what the first stage needs that never ran, while the pool is listed and indexed."""
    for step in never_ran(recipe, url, only):
        if step.stage.preload and is_for_local_workers(step.stage, step.resources, rows=0):
            local.preload(step.stage.preload, place_locally(step.resources, step.stage, ROWS).workers)
            return


def never_ran(recipe: Recipe, url: str, only: Sequence[str] | None = None) -> Iterator[Step]:
    """Yield the steps whose tables have no rows; with `only`, those of these names."""
    folder = Folder.at(url)
    for step in resolve_fitted(recipe, folder).steps:
        if (only is None or step.name in only) and not Table.stored(stage_folder(folder, step.table)).parts():
            yield step


def run_stages(
    run: Run,
    recipe: Recipe,
    only: Sequence[str] | None = None,
    refit: bool = False,
    local: LocalWorkers | None = None,
) -> Iterator[JobResult]:
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
        selected = only is None or step.name in only
        if selected and is_trained(step) and fitted_of(step) is None and alive.height:
            recipe, result = _train(run, recipe, step, alive)
            step = recipe.steps[position]
            yield record(run, result)
        stored = stored_stage(run, step)
        if selected:
            yield record(run, run_stage(run, recipe, step, stored, alive, local))
        alive = advance(alive, stored).alive.rechunk()  # of one chunk, numpy needs no copy


def stored_stage(run: Run, step: Step) -> StoredStage:
    """Return a step's table and rules."""
    earlier = {column: stored_table(run, source) for column, source in step.rule_inputs.items()}
    return StoredStage(step.name, stage_table(run, step), step.rules, earlier)


def _train(run: Run, recipe: Recipe, step: Step, alive: pl.DataFrame) -> tuple[Recipe, JobResult]:
    """Train a step's stage on a sample of the rows that reach it; return the recipe with the artifact's hash."""
    begin = time.perf_counter()
    step.stage.check_available()
    planned, inputs = plan(run, recipe, columns_of(step), Selection.all_of(sample(step, alive["id"])))
    rows = planned.frame()
    fitted, facts = train(step, inputs, rows)
    provenance = {**stage_provenance(step), "alive": alive.height, "sample": rows.height, **facts}
    store(run.folder, step, fitted, provenance)
    recipe = resolve_fitted(recipe, run.folder)
    write_recipe(recipe.resolved(), run.folder, run.url)
    seconds = time.perf_counter() - begin
    result = JobResult(
        stage=f"{step.name} (training)",
        computed=rows.height,
        errors=0,
        stored=0,
        seconds=seconds,
        working=seconds,
    )
    return recipe, result


def _as_one_line(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
