"""Mark failed rows of a stage or of the index, so that the next run computes them again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import UserError, suggest
from manifests.funnel import NUMBER
from manifests.journal import recover
from manifests.run import Run
from manifests.tables import Table
from manifests.where import parse_where
from pipeline.execution.runner import recipe_of
from pipeline.execution.stage_job import stage_table

_KINDS = 20  # kinds of errors that are listed


@dataclass(frozen=True)
class Marked:
    """The result of `mark`.

    Attributes:
        stage: `index` or the stage's name.
        marked: Rows that were marked now; the next run would not have retried them.
        already: Other failed rows that fit, which the next run retries anyway.
        errors: Marked rows per error, the most frequent first; `…` stands for a number or an id.
    """

    stage: str
    marked: int
    already: int
    errors: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def mark(run: Run, stage: str, where: str | None = None) -> Marked:
    """Mark failed rows, so that the next run computes them again. All other rows stay as they are.

    Marked rows are stored again in new parts, with `retry` true. They stay errors until they are computed. If the
    process is killed, some of them remain unmarked.

    Args:
        run: The run.
        stage: `index` or a stage's name.
        where: An SQL expression over the columns of the manifest; `error` and `retry` are the stage's. None selects all
            failed rows.

    Raises:
        UserError: The stage or a column does not exist, the expression is not valid SQL, or no failed row fits it.
    """
    table = _table(run, stage)
    failed = _failed(run, table, where)
    if not failed.height:
        raise UserError(_nothing(run, stage, table, where))
    todo = failed.filter(~pl.col("retry"))
    if todo.height:
        _append_marked(table, todo.select("id"))
    return Marked(stage, todo.height, failed.height - todo.height, _by_kind(todo["error"]))


def _table(run: Run, stage: str) -> Table:
    if stage == "index":
        return run.index
    steps = {step.name: step for step in recipe_of(run).steps}
    if stage not in steps:
        raise UserError(f"{run.url} has no stage {stage!r}{suggest(stage, ['index', *steps])}")
    table = stage_table(run, steps[stage])
    if steps[stage].stage.journaled:
        # Rows in a killed job's journals count, and would replace marked rows if stored later.
        recover(table, steps[stage].stage.outdated)
    return table


def _failed(run: Run, table: Table, where: str | None) -> pl.DataFrame:
    """Return the failed rows that fit `where`: columns `id`, `error` and `retry`."""
    columns = ["id", "error", "retry"]
    if where is None:
        return table.scan(columns).filter(pl.col("error").is_not_null()).collect(engine="streaming")
    schema = pl.DataFrame(table.schema.empty_table()).schema
    condition = parse_where(where, pl.Schema({**run.manifest_schema, **schema}))
    stored = sorted({*columns, *(condition.columns & set(schema))})
    rows = table.scan(stored).filter(pl.col("error").is_not_null())
    if more := sorted(condition.columns - set(schema)):
        failed = rows.select("id").collect(engine="streaming")
        rows = rows.join(run.manifest(more, failed), on="id", how="left")
    return condition.filter(rows, columns)


def _append_marked(table: Table, ids: pl.DataFrame) -> None:
    """Store rows again, with `retry`; in the index, with all rows of their shards: only a shard's latest rows count."""
    where, names = table.locate()
    marked = ids.lazy().join(where, on="id").collect(engine="streaming")
    by_part = {names[part]: rows["id"] for (part,), rows in marked.partition_by("part", as_dict=True).items()}
    writer, provenances = table.next_writer(), table.provenances()
    for part, rows in table.read_each(by_part, table.schema.names):
        failed = pc.is_in(rows["id"], pa.array(by_part[part].to_numpy()))
        retry = pc.or_(rows["retry"], failed)
        rows = rows.set_column(rows.column_names.index("retry"), "retry", retry)
        whole = pc.is_in(rows[table.key], rows.filter(failed)[table.key].combine_chunks())
        table.append(rows.filter(whole), writer, provenances[part])


def _by_kind(errors: pl.Series) -> dict[str, int]:
    """Count rows per error, the most frequent first; `…` replaces numbers and ids, but for a status (`server: 400`)."""
    error = pl.col("error")
    status = error.str.extract(r"^(server: \d{3}\b)").fill_null("")
    words = error.str.strip_prefix(status).str.replace_all(NUMBER, "…")
    kinds = pl.DataFrame({"error": errors}).select(status + words).to_series().value_counts()
    kinds = kinds.sort("count", "error", descending=[True, False])
    most = dict(kinds.head(_KINDS).iter_rows())
    others = errors.len() - sum(most.values())
    return most | ({"others": others} if others else {})


def _nothing(run: Run, stage: str, table: Table, where: str | None) -> str:
    errors = _by_kind(_failed(run, table, None)["error"])
    if not errors:
        return f"{run.url}: {stage} has no failed rows"
    of = f"{run.url}: of {sum(errors.values()):,} failed rows of {stage}"
    return f"{of} none fits {where!r}; the commonest error: {next(iter(errors))}"
