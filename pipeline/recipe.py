"""Recipes: which pool to read, which facts to compute, which rows to keep. All is checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pyarrow as pa

from core.errors import UserError
from core.film_pieces import PieceSettings
from core.paths import check_path
from core.secrets import refuse_credentials_within
from core.stages import FILM, IMAGE, IMAGE_INPUTS, MEDIA_INPUTS, GroupedStage, ImageStage, Stage
from core.yaml_text import load_yaml
from manifests.groups import ordering
from manifests.rules import Rule, as_keep, parse_rules
from manifests.run import CLIPS, WRITTEN_BY, beside_films
from manifests.schemas import CLIP_INDEX, FILM_INDEX, INDEX, reference_column_of
from manifests.shards import OCR, USES
from manifests.storage import Folder
from manifests.tables import fingerprint
from manifests.version import __version__
from pipeline.pools import Pool
from pipeline.pools.clips import Clips
from pipeline.pools.registry import as_recipe
from pipeline.recipe_file import Publish, PublishClips, RecipeFile, Resources, StageEntry, parse_file, position
from pipeline.stages.download.columns import DESCRIBED
from pipeline.stages.download.stage import Download
from pipeline.stages.over_frames import FRAMES, TIMES, OverEmbeddings, OverFrames, for_clips
from pipeline.stages.registry import entry_of, outside_class


def pool_column(column: str) -> str | None:
    """Return the X of `pool.X`, a column of the pool's own Parquet files; None for other columns."""
    return column.removeprefix("pool.") if column.startswith("pool.") else None


def via_driver(field: pa.Field) -> bool:
    """Return whether the driver sends a column to the workers: it sends numbers; workers read other columns."""
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(is_kind(field.type) for is_kind in kinds)


@dataclass(frozen=True)
class Step:
    """One stage of a recipe, with its name, rules and table.

    Attributes:
        stage: The stage, which computes the facts.
        rules: Its rules, in order.
        resources: How it is run.
        table: Name of its stage table: the stage and the fingerprint of everything that its facts depend on.
        inputs: The tables of earlier stages that it reads, by column.
        fields: The columns that it reads, by name, without images and the columns of the pool.
        stored: The name in its table of each of these columns that has another name there.
        downloaded: The table of the stage that downloaded the images that it reads; empty: they are in the pool.
        rule_inputs: The tables of columns that its rules read and it does not write, by column; "" is the index.
        given_name: The name that the recipe gives the step (`as`); None: it has that of the stage.
    """

    stage: Stage
    rules: tuple[Rule, ...]
    resources: Resources
    table: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, pa.Field] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)
    downloaded: str = ""
    rule_inputs: Mapping[str, str] = field(default_factory=dict)
    given_name: str | None = None

    @property
    def name(self) -> str:
        """Its name in the recipe, in the funnel and in commands. No two steps of a recipe have the same."""
        return self.given_name or self.stage.name

    @property
    def written(self) -> Stage:
        """The stage as the recipe says it: a stage for images, which may run over the frames of clips."""
        return self.stage.inner if isinstance(self.stage, OverFrames | OverEmbeddings) else self.stage


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Attributes:
        name: Its name.
        pool: The images or films.
        steps: The stages.
        publish: How the run is published.
        clips: For films, the recipe of their clips (`clips_of` says where its run is); None: films stay whole.
    """

    name: str
    pool: Pool
    steps: tuple[Step, ...]
    publish: Publish | PublishClips | None = None
    clips: Recipe | None = None

    @property
    def download(self) -> Step | None:
        """The step that downloads the images, if there is one."""
        return next((step for step in self.steps if isinstance(step.stage, Download)), None)

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as a run stores it: with defaults, full rule names and tables. It can be run again."""
        stages = [_resolved(step) for step in self.steps]
        more: dict[str, Any] = {"publish": self.publish.model_dump(mode="json")} if self.publish else {}
        if self.clips:
            assert isinstance(self.clips.pool, Clips)
            parts = {name: part for name, part in self.clips.resolved().items() if name in ("stages", "publish")}
            more |= {"clips": {**self.clips.pool.settings.model_dump(mode="json"), **parts}}
        return {WRITTEN_BY: __version__, "name": self.name, "pool": as_recipe(self.pool), "stages": stages, **more}

    def clips_of(self, url: str) -> tuple[Recipe, str] | None:
        """Return the recipe of the clips of films, and the directory of its run; None if films stay whole.

        Args:
            url: The run of films.
        """
        if self.clips is None:
            return None
        pool = self.clips.pool.model_copy(update={"where": url})
        return replace(self.clips, pool=pool), f"{url.rstrip('/')}/{CLIPS}"


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
    written = load_yaml(text, path)
    if isinstance(written, dict) and isinstance(written.get("pool"), dict) and WRITTEN_BY in written:
        written = beside_films(written, folder or ("/" if path.startswith("/") else "."))
    recipe = parse_recipe(written, path)
    if isinstance(recipe.publish, Publish):
        _check_captions(recipe, recipe.publish.subsets, path)
    for part in filter(None, (recipe, recipe.clips)):
        check_orders(part.steps, path)
    return recipe


def check_orders(steps: Sequence[Step], where: str, only: Sequence[str] | None = None) -> None:
    """Refuse orders by facts about two images, of all steps or those named in `only`. Runs that have one still open.

    Such a fact is computed again for rows that a rule on it drops, and not for the others: when the other image has
    left, the order would go by what it was before.
    """
    pairs = {field.name for step in steps for field in step.stage.writes if reference_column_of(field)}
    for step in (step for step in steps if only is None or step.name in only):
        for rule in step.rules:
            ranked = ordering(rule.order)
            if ranked and ranked[0] in pairs:
                raise UserError(
                    f"{where}: {step.name}: keep: order: {rule.order} goes by a fact about two images, which is not "
                    "computed again when one of them leaves; order by a fact about one image, or by spread"
                )


def _check_captions(recipe: Recipe, subsets: Sequence[str], where: str) -> None:
    """Refuse to publish captions that no stage writes. The recipe of a run may: its captions may still be added."""
    written = {name for step in recipe.steps for name in step.stage.writes.names}
    captions = [use for use in USES if f"{use}_caption" in written]
    if OCR in subsets and not {"short_caption", "ocr_texts", "ocr_boxes"} <= written:
        raise UserError(f"{where}: publish: the subset ocr needs the stages ocr and short_caption; add them")
    if lacking := [use for use in subsets if use not in (*captions, OCR)]:
        raise UserError(f"{where}: publish: no stage writes {lacking[0]} captions; add the stage {lacking[0]}_caption")
    if not captions:
        raise UserError(
            f"{where}: publish: no stage writes short or detailed captions; add short_caption, detailed_caption or "
            "describe, or remove publish"
        )


def parse_recipe(written: object, where: str) -> Recipe:
    """Check a recipe.

    Args:
        written: The content of its YAML file.
        where: Its name in errors; also its default name.

    Raises:
        UserError: The recipe is not valid, or contains credentials.
    """
    refuse_credentials_within(written, where)
    file = parse_file(written, where)
    name = os.path.splitext(os.path.basename(where))[0] if file.name is None else file.name
    recipe = Recipe(name, file.pool, _steps(file, written, where), file.publish, _clips(file, written, name, where))
    refuse_credentials_within(recipe.resolved(), where)  # it also has what settings read from files, such as prompts
    return recipe


def _clips(file: RecipeFile, written: object, name: str, where: str) -> Recipe | None:
    """Return the recipe of the clips of films."""
    entry = file.clips
    if entry is None:
        return None
    if not file.pool.has_films or isinstance(file.pool, Clips):
        raise UserError(f"{where}: clips: the pool has no films; give one that has, as in `pool: {{videos: DIR}}`")
    settings = {key: getattr(entry, key) for key in PieceSettings.model_fields}
    pool = Clips(kind="clips", where=".", films=file.pool, **settings)
    of_clips = RecipeFile.model_construct(name=name, pool=pool, stages=entry.stages, publish=entry.publish)
    part = written["clips"] if isinstance(written, dict) else None
    return Recipe(name, pool, _steps(of_clips, part, f"{where}: clips"), entry.publish)


class _StoredColumn(NamedTuple):
    """A column, the table that stores it ("" is the index), and its name there if that is another one."""

    field: pa.Field
    table: str
    stored: str = ""


def _steps(file: RecipeFile, written: object, where: str) -> tuple[Step, ...]:
    steps: dict[str, Step] = {}
    columns = {field.name: _StoredColumn(field, "") for field in file.pool.index_schema}
    for number, entry in enumerate(file.stages):
        name = entry.given_name or entry.settings.name
        try:
            if name in steps:
                raise UserError(f"{name} comes a second time; {_way_out(entry, columns)}")
            step = steps[name] = _step(entry, file.pool, columns)
        except UserError as error:
            raise UserError(f"{where}: {position(written, number)}: {error}") from error
        columns |= {field.name: _StoredColumn(field, step.table) for field in step.stage.writes}
        if isinstance(step.stage, Download):  # what the index says of the images is what the list says
            columns |= {
                name: _StoredColumn(INDEX.field(name), step.table, stored) for name, stored in DESCRIBED.items()
            }
    return tuple(steps.values())


def _way_out(entry: StageEntry, columns: Mapping[str, _StoredColumn]) -> str:
    """Say what to do about a step whose name an earlier one has."""
    if any(name in columns for name in entry.settings.writes.names):
        return "remove one of the two"
    return f"give one of the two a name of its own, as in `as: {entry.given_name or entry.settings.name}_2`"


def _step(entry: StageEntry, pool: Pool, columns: Mapping[str, _StoredColumn]) -> Step:
    """Return a stage of the recipe as a step. `columns` are those of the index and of earlier stages, by name."""
    stage, resources = entry.settings, entry.resources or Resources()
    if pool.has_films:
        stage = for_clips(stage)
    if resources.batch_size and isinstance(stage, GroupedStage):
        raise UserError("resources: batch_size: each call gets whole groups; part_rows sets about how many rows")
    _check_reads(stage, pool, columns)
    all_fields = {name: column.field for name, column in columns.items()}
    fields = {name: all_fields[name] for name in stage.reads if name in all_fields}
    stage.validate_inputs(fields)
    if repeated := [name for name in stage.writes.names if name in columns]:
        raise UserError(f"{stage.name} writes {repeated[0]}, a column of the index or of an earlier stage: rename it")
    rules = parse_rules(entry.keep or {}, stage.writes, "keep", all_fields)
    for used in (used for rule in rules for used in rule.columns):
        if used in columns and columns[used].stored:
            raise UserError(f"keep: {used} is what the list says: name what was downloaded, {columns[used].stored}")
    inputs = {name: columns[name].table for name in fields if columns[name].table}
    downloaded = columns["shard"].table if set(stage.reads) & set(IMAGE_INPUTS) else ""
    inputs |= {IMAGE: downloaded} if downloaded else {}
    stored = {name: columns[name].stored for name in fields if columns[name].stored}
    rule_inputs = {name: columns[name].table for rule in rules for name in rule.columns if name in columns}
    identity = {"version": stage.version, "settings": stage.fingerprint_settings(), "inputs": inputs}
    table = f"{stage.name}-{fingerprint({**identity, **outside_class(type(entry.settings))})}"
    name = None if entry.given_name == stage.name else entry.given_name
    return Step(
        stage,
        rules,
        resources,
        table,
        inputs=inputs,
        fields=fields,
        stored=stored,
        downloaded=downloaded,
        rule_inputs=rule_inputs,
        given_name=name,
    )


def _check_reads(stage: Stage, pool: Pool, columns: Mapping[str, _StoredColumn]) -> None:
    """Check that every input of the stage is available.

    Raises:
        UserError: An input is not available.
    """
    if not isinstance(stage, ImageStage) and set(stage.reads) & set(MEDIA_INPUTS):
        raise UserError("reads images, so its class must be made from core.stages.ImageStage")
    for name in stage.reads:
        if name in IMAGE_INPUTS:
            if not (pool.has_images or columns["shard"].table):
                raise UserError("reads images, and the pool has only their URLs: put the stage `download` before it")
        elif name == FILM:
            if not pool.has_films:
                raise UserError("reads films, and the pool has images: give a pool of films, as in `videos: DIR`")
        elif pool_column(name):
            if not pool.has_columns:
                raise UserError(f"reads {name}, a column of the pool, and only Parquet pools have columns")
        elif name not in columns:
            remedy = _OF_CLIPS if _is_of_clips(name, pool) else stage.remedy(name)
            raise UserError(f"reads {name!r}, which no earlier stage writes{f': {remedy}' if remedy else ''}")


_OF_CLIPS = "only clips have it: name the run of clips, RUN/clips, or put the stage under `clips:` in a recipe"


def _is_of_clips(name: str, pool: Pool) -> bool:
    """Return whether a run of clips would have this column, and this one, of whole films, has not."""
    of_clips = {*CLIP_INDEX.names, FRAMES, TIMES} - {*FILM_INDEX.names}
    return pool.has_films and not isinstance(pool, Clips) and name in of_clips


def _resolved(step: Step) -> dict[str, Any]:
    name = {"as": step.given_name} if step.given_name else {}
    entry = {**entry_of(type(step.written)), **name, **step.written.model_dump(mode="json")}
    entry["keep"] = as_keep(step.rules)
    if resources := step.resources.model_dump(exclude_defaults=True):
        entry["resources"] = resources
    entry["table"] = step.table
    return entry
