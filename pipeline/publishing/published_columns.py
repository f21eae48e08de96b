"""Which columns of a run are published, and in which subsets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq

from core.errors import UserError
from manifests.run import Run, step_name
from manifests.schemas import INDEX, is_bulky
from manifests.shards import OCR, RENAMED, TOGETHER, USES
from manifests.storage import Folder
from pipeline.execution.job_columns import Columns
from pipeline.publishing.ocr_captions import missing_command
from pipeline.publishing.publication import Shards
from pipeline.recipe import Recipe
from pipeline.recipe_file import Publish
from pipeline.stages.download.columns import DESCRIBED

_INDEX_COLUMNS = ("width", "height", "format", "url", "alt_text", "license", "shard", "key")


def stage_entries(run: Run) -> list[dict[str, Any]]:
    """Return the entries of the stages in the run's recipe."""
    return run.recipe.get("stages") or []


def stage_tables(run: Run, recipe: Recipe) -> dict[str, str]:
    """Return the tables that are published, by the names of their steps."""
    private = _private(recipe)
    return {step_name(entry): entry["table"] for entry in stage_entries(run) if step_name(entry) not in private}


def _private(recipe: Recipe) -> set[str]:
    """Return the names of steps whose columns are not published."""
    return {step.name for step in recipe.steps if not step.stage.published}


def published_columns(run: Run, recipe: Recipe) -> Columns:
    """Return the columns that are published. What describes a downloaded image replaces what its list says."""
    fields = {name: INDEX.field(name) for name in (*_INDEX_COLUMNS, "sha256")}
    downloaded = recipe.download.table if recipe.download else ""
    stored = {name: column for name, column in DESCRIBED.items() if downloaded}
    tables = dict.fromkeys(stored, downloaded)
    private = _private(recipe)
    for stage, entry in zip(run.stages, stage_entries(run), strict=True):
        for field in stage.table.writes if stage.name not in private else ():
            if not is_bulky(field) and field.name not in stored.values():
                fields[field.name], tables[field.name] = field, entry["table"]
    return Columns(names=list(fields), tables=tables, fields=fields, stored=stored, downloaded=downloaded)


def subsets_of(settings: Publish, columns: Columns) -> dict[str, tuple[str, ...]]:
    """Return the subsets, each with its captions."""
    captions = tuple(use for use in USES if f"{use}_caption" in columns.fields)
    if not captions:
        raise UserError("nothing to publish: the run has no short and no detailed captions; `vl3syn caption` first")
    if lacking := [use for use in settings.subsets if use not in (*captions, OCR)]:
        raise UserError(f"the run has no {lacking[0]} captions: `vl3syn caption {lacking[0]}` first")
    if OCR in settings.subsets and (command := missing_command(columns.fields)):
        raise UserError(f"the subset ocr needs short captions and the texts in the images: `{command}` first")
    return {use: (use,) for use in settings.subsets} or {TOGETHER: captions}


def columns_of_shards(out: Folder, shards: Shards, columns: Columns) -> Columns:
    """Return the columns that the existing Parquet shards have, so that all shards have the same; else all columns."""
    paths = [file.path for file in shards.values() if file.path.endswith(".parquet")]
    if not paths:
        return columns
    stored = pq.read_schema(paths[0], filesystem=out.filesystem).names
    captions = {f"{use}_caption" for use in USES}
    fields = {n: f for n, f in columns.fields.items() if n in captions or RENAMED.get(n, n) in stored}
    return replace(columns, names=list(fields), fields=fields)
