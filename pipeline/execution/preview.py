"""What a run of a recipe would do: rows, stages, models and disk. Nothing is computed, nothing is written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import polars as pl
import pyarrow as pa

from core.errors import UserError
from core.pretrained import is_local, stored_bytes
from core.stages import Stage
from manifests.embeddings import is_embedding
from manifests.run import Run, index_table
from manifests.storage import Folder
from manifests.tables import Table
from manifests.verdict import PENDING, StoredStage, advance, valid_ids
from pipeline.execution.fitting import resolve_fitted
from pipeline.execution.grouping import group_column
from pipeline.execution.index import check_ids, open_pool
from pipeline.execution.local_workers import is_for_local_workers
from pipeline.execution.placement import is_for_driver, place_locally
from pipeline.execution.planner import stored_table
from pipeline.execution.pool_preview import PoolPreview, preview_pool
from pipeline.execution.runner import check_run, check_step, never_ran, stored_stage
from pipeline.execution.stage_job import read_groups, rows_to_compute
from pipeline.pools import Listing
from pipeline.recipe import Recipe, Step

PACKAGES = "packages: "
"""Begin of `ModelPreview.weights` of a model whose weights packages carry."""

_MANY = 1 << 40  # rows, where their number is not known: where a stage runs then is where a large job runs


@dataclass(frozen=True)
class ModelPreview:
    """A model of a stage.

    Attributes:
        name: Its name.
        licence: Its licence, as its page states it; None: unknown.
        weights: Where its weights are: a folder, a repository of the hub, or packages.
        bytes: Bytes of its files on this machine; None: there are none, or they are a part of packages.
    """

    name: str
    licence: str | None
    weights: str
    bytes: int | None


@dataclass(frozen=True)
class StagePreview:
    """A stage of the recipe.

    Attributes:
        stage: Its name in the recipe.
        table: Its table; for a stage that is not trained yet, and for those after it, it will have another name.
        stored: Rows with facts.
        to_compute: Rows to compute; None: unknown.
        at_most: Whether `to_compute` is a limit: rules that cannot be judged yet may drop rows before.
        runs: Where it runs; empty: nowhere, or the number of rows is unknown.
        row_bytes: Bytes of a row's numbers and embeddings.
        has_texts: Whether a row has texts beside them.
        models: Its models.
        lacks: What is missing for it; None: nothing.
    """

    stage: str
    table: str
    stored: int
    to_compute: int | None
    at_most: bool
    runs: str
    row_bytes: int
    has_texts: bool
    models: tuple[ModelPreview, ...]
    lacks: str | None


@dataclass(frozen=True)
class Preview:
    """What a run would do.

    Attributes:
        pool: The pool.
        stages: The stages, in order.
        fact_bytes: Bytes of the numbers and embeddings to store, at most; None: unknown.
        image_bytes: Bytes of the images that may be published, at most; None: unknown, or still to download.
        errors: What `vl3syn run` would refuse before it computes anything; it names the first.
        clips: For films, the stages over their clips. How many clips there are is unknown until the films are cut.
    """

    pool: PoolPreview
    stages: tuple[StagePreview, ...]
    fact_bytes: int | None
    image_bytes: int | None
    errors: tuple[str, ...]
    clips: tuple[StagePreview, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def preview(recipe: Recipe, url: str, refit: bool = False) -> tuple[Preview, Listing]:
    """Return what a run of the recipe in the directory `url` would do, and the listed pool.

    Raises:
        UserError: The pool cannot be listed, two indexed images have the same id, or the directory is not one for this
            recipe; a run raises the same.
    """
    folder = Folder.at(url)
    recipe = resolve_fitted(recipe, folder, refit)
    index = index_table(folder, recipe.pool.index_schema)
    lacks = {step.name: problem for step in never_ran(recipe, url) if (problem := _lacks(step, recipe, index))}
    clips = tuple(_over_clips(recipe, url, refit))
    refused = [*lacks.values(), *(stage.lacks for stage in clips if stage.lacks)]
    try:
        listing = open_pool(recipe.pool, url)
    except UserError as error:
        raise UserError(next(iter(refused), str(error))) from error
    if not refused:
        check_run(recipe, url)
    run = Run(url, folder, {})
    pool, gone = preview_pool(recipe, run, listing)
    if not pool.unread:
        check_ids(index, recipe.pool)
    stages = tuple(_stages(run, recipe, pool, gone, lacks))
    rows = [stage.to_compute for stage in (*stages, *clips)]
    facts = None if None in rows else sum(stage.row_bytes * (stage.to_compute or 0) for stage in stages)
    errors = [stage.lacks for stage in (*stages, *clips) if stage.lacks]
    return Preview(pool, stages, facts, pool.image_bytes, tuple(errors), clips), listing


def _over_clips(recipe: Recipe, url: str, refit: bool) -> Iterator[StagePreview]:
    """Yield the stages over the clips of films; the films are not cut for this."""
    of_clips = recipe.clips_of(url)
    if of_clips is None:
        return
    folder = Folder.at(of_clips[1])
    part = resolve_fitted(of_clips[0], folder, refit)
    run = Run(of_clips[1], folder, {})
    index = index_table(folder, part.pool.index_schema)
    missing = {step.name for step in never_ran(part, run.url)}
    for step in part.steps:
        problem = _lacks(step, part, index) if step.name in missing else None
        yield replace(_stage(step, stored_stage(run, step), None, False, problem), runs="")


def _stages(
    run: Run, recipe: Recipe, pool: PoolPreview, gone: pl.DataFrame, lacks: dict[str, str]
) -> Iterator[StagePreview]:
    alive = valid_ids(run.index).join(gone, on="id", how="anti", maintain_order="left")
    new = None if pool.usable is None else pool.usable - alive.height
    pending: int | None = new
    for step in recipe.steps:
        stored = stored_stage(run, step)
        known = _known_rows(run, step, stored, alive)
        to_compute = None if pending is None else known + pending
        at_most = bool(pending) and step is not recipe.steps[0]
        has_facts = bool(stored.table.parts())
        problem = lacks.get(step.name) or (_lacks(step, recipe, run.index) if has_facts and to_compute != 0 else None)
        yield _stage(step, stored, to_compute, at_most, problem)
        verdict = advance(alive, stored) if has_facts else None
        if verdict is None:
            pending = None if pending is None else _may_pass(step, alive.height + pending)
            alive = alive.clear()
        else:
            alive = verdict.alive
            waiting = verdict.left.filter(pl.col("cause") == PENDING).height
            pending = None if pending is None else pending + waiting


def _known_rows(run: Run, step: Step, stored: StoredStage, alive: pl.DataFrame) -> int:
    """Return how many of the rows that certainly reach a stage it must compute."""
    if not alive.height or not stored.table.parts():
        return alive.height
    column = group_column(step)
    compared = column and column in stored_table(run, step.inputs.get(column, "")).schema.names
    return rows_to_compute(step, stored, alive, read_groups(run, step, alive) if compared else None).height


def _may_pass(step: Step, rows: int) -> int:
    """Return how many of `rows` rows without facts can pass a step's rules at most."""
    for rule in step.rules:
        if rule.kind == "top":
            rows = math.ceil(rule.threshold * rows)
        elif rule.kind == "total":
            rows = min(rows, int(rule.threshold))
    return rows


def _stage(step: Step, stored: StoredStage, to_compute: int | None, at_most: bool, problem: str | None) -> StagePreview:
    fields = list(step.stage.writes)
    return StagePreview(
        stage=step.name,
        table=step.table,
        stored=stored.table.scan(["id"]).select(pl.len()).collect(engine="streaming").item(),
        to_compute=to_compute,
        at_most=at_most,
        runs=_runs(step, _MANY if to_compute is None else to_compute),
        row_bytes=8 + sum(_field_bytes(field) for field in fields),
        has_texts=any(not _field_bytes(field) for field in fields),
        models=tuple(_models(step.stage)),
        lacks=problem,
    )


def _field_bytes(field: pa.Field) -> int:
    """Return the bytes of a value; 0 for texts and lists, whose length differs."""
    if is_embedding(field):
        return int(field.type.list_size * field.type.value_type.bit_width // 8)
    return max(1, field.type.bit_width // 8) if pa.types.is_primitive(field.type) else 0


def _models(stage: Stage) -> Iterator[ModelPreview]:
    for name, licence in stage.models.items():
        weights = stage.model_files.get(name, name)
        if stage.packages and not is_local(weights) and "/" not in weights:
            yield ModelPreview(name, licence, f"{PACKAGES}{', '.join(stage.packages)}", None)
        else:
            yield ModelPreview(name, licence, weights, stored_bytes(weights))


def _lacks(step: Step, recipe: Recipe, index: Table) -> str | None:
    """Return the error that a run would raise before it computes the step."""
    try:
        check_step(step, recipe.pool, index)
    except UserError as error:
        return str(error)
    return None


def _runs(step: Step, rows: int) -> str:
    """Say where the rows of a stage are computed."""
    resources, stage = step.resources, step.stage
    if not rows:
        return ""
    if is_for_driver(stage, resources, rows):
        return "this process"
    if is_for_local_workers(stage, resources, rows):
        workers = place_locally(resources, stage, rows).workers
        return f"{workers} process{'es' if workers != 1 else ''} here"
    most = resources.actors or stage.actors
    by_default = "a GPU if there is one" if stage.gpus else ""
    gpus = f"{resources.num_gpus:g} GPU" if resources.num_gpus is not None else by_default
    cpus = f"{resources.num_cpus:g} CPUs" if resources.num_cpus is not None else ""
    each = ", ".join(filter(None, (gpus, cpus))) or "1 CPU"
    shown = f"{most:,}" if most else "as many as fit"
    return f"Ray: {shown}, each with {each}"
