"""Open a run directory: its recipe, index and stage tables, and the views of them: manifest, funnel, sweep, explain."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from core.errors import UserError, suggest
from core.yaml_text import load_yaml
from manifests.explain import Account, explain
from manifests.funnel import Funnel, funnel
from manifests.html import html_table
from manifests.manifest import manifest, manifest_schema, reads_verdict
from manifests.rules import Rule, parse_rules
from manifests.schemas import INDEX, index_schema
from manifests.storage import Folder
from manifests.sweep import Thresholds, axes_of, spread, sweep
from manifests.tables import Table
from manifests.verdict import StoredStage, Verdict, evaluate_rules

RECIPE = "recipe.yaml"
WRITTEN_BY = "vl3syn"
"""Key that marks the recipe of a run. Its value is the version that resolved the recipe."""
CLIPS = "clips"
"""The run of the clips of a run of films, inside of its directory."""


@dataclass(frozen=True, repr=False)
class Run:
    """An opened run. It caches no rows: every call reads what is stored at that moment, and nothing is written.

    Attributes:
        url: The path or URL given to `open_run`.
        folder: The run directory.
        recipe: The resolved recipe, as stored.
    """

    url: str
    folder: Folder
    recipe: Mapping[str, Any]

    @property
    def index(self) -> Table:
        """The index: one row per image of the pool."""
        pool = self.recipe.get("pool") or {}
        if "kind" in pool:  # of another package: its class, which knows the columns, is not imported to look at a run
            return index_table(self.folder, _with_stored_columns(self.folder))
        return index_table(self.folder, index_schema(pool))

    @property
    def stages(self) -> tuple[StoredStage, ...]:
        """The recipe's stages in order, each with the stage table of its fingerprint."""
        stages: list[StoredStage] = []
        tables = {field.name: self.index for field in self.index.schema}
        reachable = True
        for entry in self.recipe.get("stages") or []:
            table = Table.stored(stage_folder(self.folder, entry["table"]))
            # The columns of a table are unknown until its first row is stored. Until then, no row reaches this stage's
            # rules or later ones.
            reachable = reachable and bool(table.writes.names)
            rules = self._rules(entry, table, tables) if reachable else ()
            stages.append(StoredStage(step_name(entry), table, rules, dict(tables)))
            tables |= {field.name: table for field in table.writes}
        return tuple(stages)

    def _rules(self, entry: Mapping[str, Any], table: Table, earlier: Mapping[str, Table]) -> tuple[Rule, ...]:
        keep, where = entry.get("keep") or {}, f"{self.url}/{RECIPE}: {step_name(entry)}"
        if not isinstance(keep, dict):
            raise UserError(f"{where}: keep must be a mapping of rules, not {keep!r}")
        return parse_rules(keep, table.writes, where, {c: t.schema.field(c) for c, t in earlier.items()})

    def facts(self, stage: str, columns: Sequence[str] | None = None) -> pl.LazyFrame:
        """Return the facts of a stage, including embeddings: `id`, its columns, `error` and `retry`, in no order.

        Args:
            stage: Name of the stage, or that which the recipe gives it (`as`).
            columns: Columns to read, default all. Embeddings take the most time to check and read.

        Raises:
            UserError: The recipe has no such stage.
        """
        stages = {stored.name: stored for stored in self.stages}
        if stage not in stages:
            raise UserError(f"{self.url} has no stage {stage!r}{suggest(stage, stages)}")
        return stages[stage].table.scan(columns)

    def verdict(self, before: int | None = None) -> Verdict:
        """Evaluate the rules for every row; with `before`, only those of the stages before that position.

        Raises:
            UserError: A part is damaged, or parts of the index are missing.
        """
        return evaluate_rules(self.index, self.stages[:before])

    def manifest(
        self, columns: Sequence[str] | None = None, ids: pl.DataFrame | None = None, verdict: Verdict | None = None
    ) -> pl.LazyFrame:
        """Return exactly one row per image, sorted by id: the index's columns, every stage's columns, and the verdict.

        Embeddings are left out, as they take a hundred times more space than the rest; `facts` returns them.

        The verdict is computed by this call, the columns are read when the frame is collected. The verdict's columns
        are `status` (`kept`, `dropped`, `error`, or `pending` while a stage has not computed the row), `drop_stage`
        (`index` or a stage) and `drop_reason` (`aspect_ratio 3.12 > 2.5`, the row's error, or `not computed yet`).

        Args:
            columns: The columns that are wanted beside `id`; default all. Others are not read, nor checked for damage.
            ids: Only these rows: a frame with the column `id`.
            verdict: The result of `verdict()`, if it is computed already.

        Raises:
            UserError: There is no such column, a part is damaged, or parts of the index are missing.
        """
        judged = reads_verdict(columns)
        return manifest(self.index, self.stages, (verdict or self.verdict()) if judged else None, columns, ids)

    @property
    def manifest_schema(self) -> pl.Schema:
        """The columns of `manifest()` with their types."""
        return manifest_schema(self.index, self.stages)

    def funnel(self) -> Funnel:
        """Count the images that each stage saw, kept, dropped and failed on, with reasons: `vl3syn funnel`.

        >>> open_run("RUN").funnel().survivors

        Returns:
            All counts are rows of the index. `rows == survivors + Σ (dropped + errors + pending)` over its stages.

        Raises:
            UserError: A part is damaged, or parts of the index are missing.
        """
        return funnel(self)

    def sweep(
        self, axes: Mapping[str, Thresholds] | None = None, /, **stages: Mapping[str, Thresholds]
    ) -> pl.DataFrame:
        """Count the images that other thresholds would keep: `vl3syn sweep`. No stage is computed.

        >>> open_run("RUN").sweep(aspect_ratio={"max": [2, 2.5]}, quality={"min": [0.5, 0.6]})
        >>> open_run("RUN").sweep({"aspect_ratio.max": [2, 2.5], "quality.min": [0.5, 0.6]})  # the same
        >>> open_run("RUN").sweep()  # the distribution of the stored scores

        Args:
            axes: Thresholds by `stage.rule`, as the command has them.
            stages: Per stage, the thresholds of its rules: a number each, or several. Rules are called as in a
                recipe's `keep`, thresholds have the unit of the rule's column. A rule that the recipe lacks is applied
                after the stage's other rules.

        Returns:
            A row per combination, in the given order: a Float64 column per axis, `kept` (rows that pass all rules,
            those of the other stages included) and `to_compute` (rows that may add to `kept`: their facts are not
            stored, or refer to an image that does not reach the stage).
            Without arguments: a row per column that a threshold can apply to, with `stage`, `column`, `rows`,
            `missing` and the quantiles `min`, `p05`, `p25`, `p50`, `p75`, `p95`, `max` over all stored rows without an
            error, in the column's unit.

        Raises:
            UserError: There is no such stage or rule, a threshold is out of range, or the stage has stored nothing yet.
        """
        if axes is None and not stages:
            return spread(self)
        return sweep(self, axes_of(axes, stages))

    def explain(self, key: str | int) -> list[Account]:
        """Return everything that is stored about an image, and why it was kept or dropped: `vl3syn explain`.

        >>> open_run("RUN").explain("0001.tar/a.jpg")[0].drop_reason

        Args:
            key: The image's key, `shard/key`, or id, as the index has them.

        Returns:
            An account per image that is called so: keys may occur in several shards.

        Raises:
            UserError: No image of the run has this name.
        """
        return explain(self, str(key))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _repr_html_(self) -> str:
        """Return the stages and rules of the recipe. Tables are not read, so this is quick for a run of any size."""
        entries = self.recipe.get("stages") or []
        rows = [[step_name(entry), _rules_text(entry.get("keep"))] for entry in entries]
        return html_table(f"run {self.url}", ["stage", "keeps"], rows)


def open_run(url: str | os.PathLike[str]) -> Run:
    """Open the run at a local path or a pyarrow/fsspec URL.

    Raises:
        UserError: There is no run there, or its recipe cannot be read.
    """
    folder = Folder.at(url)
    if not folder.exists(RECIPE):
        raise UserError(
            f"{os.fspath(url)} is not a run: it has no {RECIPE} (make one with `vl3syn run` or `vl3syn index`)"
        )
    where = f"{os.fspath(url)}/{RECIPE}"
    recipe = load_yaml(folder.read(RECIPE), where)
    if not isinstance(recipe, dict) or WRITTEN_BY not in recipe:
        raise UserError(f"{where} is a recipe, but not of a run; choose another run directory")
    _check_recipe(recipe, where)
    return Run(os.fspath(url), folder, beside_films(recipe, os.fspath(url)))


def beside_films(recipe: Mapping[str, Any], url: str) -> Mapping[str, Any]:
    """Return the recipe of a run of clips with the run of films that it lies in, wherever both were made.

    A directory may be moved, or copied with all that is in it. Recipes of other runs are returned as they are.

    Args:
        recipe: The recipe of a run.
        url: The run's directory.
    """
    pool = recipe.get("pool") or {}
    above, _, name = (url.rstrip("/") if "://" in url else os.path.abspath(url)).rpartition("/")
    if name != CLIPS or pool.get("clips", above) == above or not Folder.at(above or "/").exists(RECIPE):
        return recipe
    films = load_yaml(Folder.at(above or "/").read(RECIPE), f"{above}/{RECIPE}")
    if not isinstance(films, dict) or WRITTEN_BY not in films:
        return recipe
    return {**recipe, "pool": {**pool, "clips": above}}


def _check_recipe(recipe: Mapping[str, Any], where: str) -> None:
    """Check what all readers of a run rely on. The run may be foreign: a table must lie in the run's own folder."""
    again = "run the recipe again to write it anew"
    stages, pool = recipe.get("stages") or [], recipe.get("pool") or {}
    if not isinstance(stages, list) or not isinstance(pool, dict):
        raise UserError(f"{where}: stages must be a list, and pool a mapping; {again}")
    for entry in stages:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("stage", "table")):
            raise UserError(f"{where}: {entry!r} names no stage and table; {again}")
        if "/" in entry["table"] or entry["table"] in ("", ".", ".."):
            raise UserError(f"{where}: {entry['table']!r} is not the name of a table; {again}")


def step_name(entry: Mapping[str, Any]) -> str:
    """Return the name of an entry of `stages` in a run's recipe: the one that it is given (`as`), else its stage's."""
    return str(entry.get("as") or entry["stage"])


def index_table(folder: Folder, schema: pa.Schema = INDEX) -> Table:
    """Return the index of the run in `folder`. It is read by shard: the newest generation of a shard's rows counts."""
    return Table(folder.join("index"), schema, key="shard")


def _with_stored_columns(folder: Folder) -> pa.Schema:
    """Return the columns of the index, and those that its parts have beside them, such as those of films."""
    stored = Table.stored(folder.join("index")).schema
    return pa.schema([*INDEX, *(field for field in stored if field.name not in INDEX.names)])


def stage_folder(folder: Folder, table: str) -> Folder:
    """Return the folder of the stage table `table` of the run in `folder`."""
    return folder.join("stages").join(table)


def _rules_text(keep: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in keep.items()) if isinstance(keep, dict) else ""
