"""Recipes: which pool to read, which facts to compute, which rows to keep; checked as a whole before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import UserError
from core.paths import check_path
from core.secrets import refuse_credentials_within
from core.stages import IMAGE_INPUTS, GroupedStage, ImageStage, Stage
from core.text import refuse_not_unicode
from core.yaml_text import load_yaml
from manifests.rules import KINDS, Rule, as_keep, parse_rules, suggest
from manifests.run import WRITTEN_BY
from manifests.schemas import INDEX
from manifests.storage import Folder
from manifests.tables import fingerprint
from manifests.version import __version__
from pipeline.pools import Pool, pool_of
from pipeline.pools.registry import as_recipe
from pipeline.stages.registry import entry_of, outside_class, stage_class, stage_names

_STAGE_KEYS = ("stage", "class", "keep", "resources", "table")


def of_pool(column: str) -> str | None:
    """Return the X of `pool.X`, a column of the pool's own Parquet files; None for other columns."""
    return column.removeprefix("pool.") if column.startswith("pool.") else None


def via_driver(field: pa.Field) -> bool:
    """Return whether the driver sends a column to the workers: it sends numbers; workers read the rest from tables."""
    return bool(pa.types.is_primitive(field.type))


class Resources(BaseModel):
    """How a stage is run. These settings change its numbers only by a device's rounding: half precision on a GPU.

    Attributes:
        actors: Size of the actor pool; default: as many as the cluster's CPUs and GPUs allow.
        num_cpus: CPUs per actor; default: one, or up to eight for a stage whose model wants a GPU and gets none, since
            a copy of such a model per core would not fit a small machine.
        num_gpus: GPUs per actor; default: one for a stage whose model runs on a GPU, if the cluster has any.
        batch_size: Rows per call; default: that of the stage, else 64 images, or 1,024 rows for a stage that reads no
            images. Not valid for a stage that compares rows within groups: each call gets a whole part.
        part_rows: Maximum of rows per stored part, which is what a crash can cost an actor. Default: a 64th of the
            work, up to 65,536; up to 1,024 for captions (if the run is a local path, a crash loses no captions). For a
            stage that compares rows within groups: the approximate number of rows per part, in whole groups; default: a
            64th of the work, up to about 1,048,576, since each part is gathered from many parts of other tables.
        threads: Threads per actor that decode images; default: one per CPU that it holds, or, if its GPU and CPUs are
            the default ones, as many as the node has CPUs per GPU.
        image_seconds: Limit for decoding one image, in seconds of wall time. The row of an image that takes longer is
            an error that can be retried. Photographs take well under a second.
        first_errors: For captioners: if this number of first images of a job all fail with the same error, the server
            is considered faulty: the job ends, and none of them is stored. 0: the job never ends for this reason.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    actors: int | None = Field(None, ge=1)
    num_cpus: float | None = Field(None, ge=0)
    num_gpus: float | None = Field(None, ge=0)
    batch_size: int | None = Field(None, ge=1)
    part_rows: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    image_seconds: float = Field(60.0, gt=0)
    first_errors: int = Field(32, ge=0)


class Publish(BaseModel):
    """How a run is published.

    Attributes:
        subsets: `short`, `detailed` or both: one subset per caption, each with the images. Empty: one subset, `data`,
            with all captions and each image once.
        format: `parquet`, or `webdataset`: tars of images and JSON.
        rows_per_shard: Images per shard.
        seed: Seed of the random order of images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subsets: tuple[Literal["short", "detailed"], ...] = ()
    format: Literal["parquet", "webdataset"] = "parquet"
    rows_per_shard: int = Field(default=5000, ge=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Step:
    """One stage of a recipe.

    Attributes:
        stage: The stage, which computes the facts.
        rules: Its rules, in order.
        resources: How it is run.
        table: Name of its stage table: the stage and the fingerprint of everything that its numbers depend on.
        inputs: The tables of earlier stages that it reads, by column.
        fields: The columns that it reads, by name, without images and the columns of the pool.
        rule_inputs: The tables of columns that its rules read and it does not write, by column; "" is the index.
    """

    stage: Stage
    rules: tuple[Rule, ...]
    resources: Resources
    table: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, pa.Field] = field(default_factory=dict)
    rule_inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A checked recipe."""

    name: str
    pool: Pool
    steps: tuple[Step, ...]
    publish: Publish | None = None

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as stored in a run, which can be run again: with defaults, full rule names and tables."""
        stages = [_resolved(step) for step in self.steps]
        publish = {"publish": self.publish.model_dump(mode="json")} if self.publish else {}
        return {WRITTEN_BY: __version__, "name": self.name, "pool": as_recipe(self.pool), "stages": stages, **publish}


def load_recipe(path: str) -> Recipe:
    """Read and check a recipe file.

    Raises:
        UserError: The file is missing or the recipe is not valid; the message names the position and a valid value.
    """
    folder, _, name = check_path(path, "recipe").rpartition("/")
    try:
        text = Folder.at(folder or ("/" if path.startswith("/") else ".")).read(name)
    except OSError as error:
        raise UserError(f"{path}: no such recipe, or not readable: give the path of a YAML file") from error
    return parse_recipe(load_yaml(text, path), path)


def parse_recipe(written: object, where: str) -> Recipe:
    """Check a recipe that was loaded from YAML; `where` names it in errors.

    Raises:
        UserError: The recipe is not valid, or contains credentials.
    """
    refuse_credentials_within(written, where)
    top = _mapping(written, where, ("name", "pool", "stages", "publish", WRITTEN_BY))
    if "pool" not in top:
        raise UserError(f"{where}: no pool; say where the images are, as in `pool: {{images: DIR}}`")
    pool = checked_pool(top["pool"], f"{where}: pool")
    stages = top.get("stages") or []
    if not isinstance(stages, list):
        raise UserError(f"{where}: stages must be a list")
    name = top.get("name", os.path.splitext(os.path.basename(where))[0])
    if not isinstance(name, str):
        raise UserError(f"{where}: name must be a text, not {name!r}")
    publish = checked_publish(top["publish"] or {}, f"{where}: publish") if "publish" in top else None
    recipe = Recipe(name, pool, _steps(stages, pool, where), publish)
    refuse_credentials_within(recipe.resolved(), where)  # resolved prompts may come from a file
    return recipe


def _steps(stages: Sequence[object], pool: Pool, where: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    origin = {column: "" for column in INDEX.names}  # column -> the table that stores it; "" is the index
    fields: dict[str, pa.Field] = {f.name: f for f in INDEX}
    for number, entry in enumerate(stages):
        step = _step(entry, f"{where}: stages[{number}]", pool, origin, fields)
        if any(s.stage.name == step.stage.name for s in steps):
            raise UserError(f"{where}: stages[{number}]: {step.stage.name} comes a second time")
        for column in step.stage.writes.names:
            if column in origin:
                raise UserError(f"{where}: stages[{number}]: {step.stage.name} writes {column}, which is there already")
            origin[column] = step.table
            fields[column] = step.stage.writes.field(column)
        steps.append(step)
    return tuple(steps)


def _step(entry: object, where: str, pool: Pool, origin: Mapping[str, str], fields: Mapping[str, pa.Field]) -> Step:
    if isinstance(entry, dict) and "stage" not in entry:
        raise UserError(f"{where}: no stage; valid are {', '.join(stage_names())}")
    if not isinstance(entry, dict):
        raise UserError(f"{where}: must be a mapping with `stage`, not {entry!r}")
    try:
        kind = stage_class(str(entry.get("class") or entry["stage"]))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if "class" in entry and entry["stage"] != kind.name:
        raise UserError(f"{where}: {entry['class']} is the stage {kind.name}, not {entry['stage']}")
    where = f"{where} ({entry['stage']})"
    settings = {str(k): v for k, v in entry.items() if k not in _STAGE_KEYS}
    refuse_not_unicode(settings, where)  # requests, tokenizers and columns cannot hold such a prompt
    for key in settings:
        if key not in kind.model_fields:
            rule = f"; a rule stands under keep: `keep: {{{key}: …}}`" if key.startswith(KINDS) else ""
            raise UserError(f"{where}: unknown key {key!r}{rule or suggest(key, [*kind.model_fields, *_STAGE_KEYS])}")
    stage: Stage = _model(kind, settings, where)
    if not isinstance(stage, ImageStage) and set(stage.reads) & set(IMAGE_INPUTS):
        raise UserError(f"{where}: it reads images, so its class must be made from core.stages.ImageStage")
    keep = entry.get("keep") or {}
    if not isinstance(keep, dict):
        raise UserError(f"{where}: keep must be a mapping of rules, as in `keep: {{max: 2.5}}`")
    try:
        read = _read_fields(stage, pool, fields)
        writes = stage.writes
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    rules = parse_rules(keep, writes, f"{where}: keep", fields)
    judged = {column for rule in rules for column in rule.columns if column not in writes.names}
    resources = _model(Resources, entry.get("resources") or {}, f"{where}: resources")
    if resources.batch_size and isinstance(stage, GroupedStage):
        raise UserError(f"{where}: resources: batch_size: it is given whole groups; part_rows says about how many rows")
    inputs = {column: origin[column] for column in read if origin[column]}
    identity = {"version": stage.version, "settings": stage.fingerprint_settings(), "inputs": inputs}
    identity |= outside_class(type(stage))
    return Step(
        stage, rules, resources, f"{stage.name}-{fingerprint(identity)}", inputs, read, {c: origin[c] for c in judged}
    )


def _read_fields(stage: Stage, pool: Pool, fields: Mapping[str, pa.Field]) -> dict[str, pa.Field]:
    """Check that every input of the stage is available and valid; return the columns that it reads from tables."""
    read = {}
    for column in stage.reads:
        if column in IMAGE_INPUTS:
            if not pool.has_images:
                raise UserError("reads images, and the pool has only their URLs; download them first (img2dataset)")
        elif of_pool(column):
            if not pool.has_columns:
                raise UserError(f"reads the column {of_pool(column)} of the pool, and only Parquet pools have columns")
        elif column not in fields:
            raise UserError(f"reads {column!r}, which no earlier stage writes")
        else:
            read[column] = fields[column]
    stage.validate_inputs(read)
    return read


def _resolved(step: Step) -> dict[str, Any]:
    entry = {**entry_of(type(step.stage)), **step.stage.model_dump(mode="json")}
    entry["keep"] = as_keep(step.rules)
    if resources := step.resources.model_dump(exclude_defaults=True):
        entry["resources"] = resources
    entry["table"] = step.table
    return entry


def _mapping(value: object, where: str, valid: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: must be a mapping with {', '.join(valid)}")
    for key in value:
        if key not in valid:
            raise UserError(f"{where}: unknown key {key!r}{suggest(str(key), valid)}")
    return value


def _model(kind: type[Any], value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{where}: must be a mapping, not {value!r}")
    value = _mapping(value, where, list(kind.model_fields))
    try:
        return kind(**value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {key + ': ' if key else ''}{said}") from error


def checked_publish(written: object, where: str) -> Publish:
    """Check the settings of a publication, from a recipe or the command line.

    Raises:
        UserError: A key is unknown, or a value is not valid.
    """
    how: Publish = _model(Publish, written, where)
    return how


def checked_pool(written: object, where: str) -> Pool:
    """Check a pool, from a recipe or the command line.

    Raises:
        UserError: A key is unknown, the pool has not exactly one kind, or it contains credentials.
    """
    refuse_credentials_within(written, where)
    if not isinstance(written, dict):
        raise UserError(f"{where}: must be a mapping, not {written!r}")
    try:
        return pool_of(**{str(key): value for key, value in written.items()})
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
