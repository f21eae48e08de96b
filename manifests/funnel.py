"""The funnel: rows seen, kept, dropped and failed per stage, with reasons."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field

import polars as pl

from core.text import printable
from manifests.html import html_table
from manifests.run_tables import RunTables
from manifests.tables import Table
from manifests.verdict import ERROR, FIRST_RULE, PENDING, Verdict

NUMBER = r"[A-Za-z0-9_-]*\d[A-Za-z0-9_-]*(?:[.,]\d+)*"
"""Pattern of what differs between errors of one kind: `4,096`, `img_7`, an id."""

_MOST_KINDS = 20  # with more kinds of errors, their numbers are not distinguished


@dataclass(frozen=True)
class FunnelStage:
    """One line of the funnel: `seen == kept + dropped + errors + pending`.

    Attributes:
        stage: `index` or the stage's name.
        seen: Rows that reached it.
        kept: Rows that continue to the next stage.
        dropped: Rows that a rule dropped.
        errors: Rows that failed here.
        pending: Rows whose facts are not computed yet (the run is not finished).
        reasons: Rows per rule (`aspect_ratio > 2.5`; rows without a value count as `aspect_ratio is missing`) and per
            kind of error (the text before its first colon).
    """

    stage: str
    seen: int
    kept: int
    dropped: int
    errors: int
    pending: int
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Funnel:
    """The funnel of a run: `rows == survivors + Σ (dropped + errors + pending)`. A notebook shows it as a table.

    Attributes:
        rows: Rows of the index.
        survivors: Rows that pass all rules.
        stages: The index and the recipe's stages, in order.
    """

    rows: int
    survivors: int
    stages: tuple[FunnelStage, ...]

    def as_json(self) -> dict[str, object]:
        """Return what `vl3syn funnel --json` prints: dictionaries, texts and integers."""
        return asdict(self)

    def as_frame(self) -> pl.DataFrame:
        """Return a row per stage: `stage`, and the rows `seen`, `kept`, `dropped`, `errors`, `pending` (Int64)."""
        return pl.DataFrame([_counts(stage) for stage in self.stages], _SCHEMA, orient="row")

    def __repr__(self) -> str:
        with pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
            return f"{self.title}\n{self.as_frame()}"

    def _repr_html_(self) -> str:
        rows = [[*_counts(stage), _reasons(stage)] for stage in self.stages]
        return html_table(self.title, [*_SCHEMA, "reasons"], rows)

    @property
    def title(self) -> str:
        """`172 rows, 77 survive (44.8%)`."""
        share = f" ({self.survivors / self.rows:.1%})" if self.rows else ""
        return f"{self.rows:,} rows, {self.survivors:,} survive{share}"


_SCHEMA = {"stage": pl.String} | dict.fromkeys(("seen", "kept", "dropped", "errors", "pending"), pl.Int64)


def _counts(line: FunnelStage) -> tuple[str, int, int, int, int, int]:
    return line.stage, line.seen, line.kept, line.dropped, line.errors, line.pending


def _reasons(stage: FunnelStage) -> str:
    ordered = sorted(stage.reasons.items(), key=lambda reason: -reason[1])
    return "\n".join(f"{rows:,} {printable(reason)}" for reason, rows in ordered)


def funnel(run: RunTables, verdict: Verdict | None = None) -> Funnel:
    """Count the rows per stage and reason, see `Run.funnel`. `verdict`: that of the run, if it is computed already."""
    verdict = verdict or run.verdict()
    grouped = verdict.left.group_by("stage", "cause", "missing").len()
    counts = {(stage, cause, missing): rows for stage, cause, missing, rows in grouped.iter_rows()}
    stored = run.stages
    tables = [run.index, *(s.table for s in stored)]
    rules = [(), *(s.rules for s in stored)]
    names = ["index", *(s.name for s in stored)]
    stages: list[FunnelStage] = []
    seen = verdict.rows
    for number, name in enumerate(names):
        errors, pending = counts.get((number, ERROR, False), 0), counts.get((number, PENDING, False), 0)
        dropped: Counter[str] = Counter()
        for position, rule in enumerate(rules[number]):
            for missing, reason in ((False, str(rule)), (True, rule.reason_if_missing)):
                dropped[reason] += counts.get((number, FIRST_RULE + position, missing), 0)
        reasons = {r: n for r, n in dropped.items() if n}
        if errors:
            failed = verdict.left.filter((pl.col("stage") == number) & (pl.col("cause") == ERROR))
            reasons |= _error_kinds(tables[number], failed)
        lost = dropped.total()
        kept = seen - lost - errors - pending
        stages.append(FunnelStage(name, seen, kept, lost, errors, pending, reasons))
        seen = kept
    return Funnel(verdict.rows, seen, tuple(stages))


def _error_kinds(table: Table, failed: pl.DataFrame) -> dict[str, int]:
    stored = table.scan(["id", "error"]).filter(pl.col("error").is_not_null()).collect(engine="streaming")
    kinds = stored.join(failed, on="id", how="semi")["error"].str.split(":").list.first()
    if kinds.n_unique() > _MOST_KINDS:  # another engine's errors may start with a number or an id
        kinds = kinds.str.replace_all(NUMBER, "…")
    return dict(kinds.value_counts(sort=True).iter_rows())
