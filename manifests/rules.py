"""Rules: one line of a recipe over stored columns, deciding which rows stay, and saying why the others do not."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from manifests.schemas import bounds

KINDS = ("min", "max", "top")


@dataclass(frozen=True)
class Rule:
    """Keep rows by one column.

    Attributes:
        kind: `min` (value ≥ threshold), `max` (value ≤ threshold), or `top` (the best fraction of the rows that
            reach the rule, by value; ties go to the smaller id, so exactly ⌈fraction · rows⌉ stay).
        column: The stored column. A row whose value is null or NaN does not pass.
        threshold: In the column's unit; for `top` a fraction in (0, 1].
    """

    kind: str
    column: str
    threshold: float

    @property
    def name(self) -> str:
        """As a recipe writes it: `max_aspect_ratio`."""
        return f"{self.kind}_{self.column}"

    def __str__(self) -> str:
        """What a row that it turns away is like: `aspect_ratio > 2.5`."""
        return f"{self.column} {self._miss}"

    @property
    def _miss(self) -> str:
        if self.kind == "top":
            return f"not in the top {plain(self.threshold * 100)} %"
        return f"{'<' if self.kind == 'min' else '>'} {plain(self.threshold)}"

    def passes(self, rows: pl.DataFrame) -> pl.Series:
        """One boolean per row of `rows`, which has `id` and the rule's column and is all that reaches the rule."""
        values = rows[self.column]
        usable = values.is_not_null() & values.is_not_nan() if values.dtype.is_float() else values.is_not_null()
        if self.kind == "top":
            return self._best(rows.select("id", self.column).filter(usable), of=rows["id"])
        # In the column's own precision: 0.7 stored as float32 passes `min: 0.7`.
        edge = pl.Series([self.threshold], dtype=values.dtype if values.dtype.is_float() else pl.Float64)
        return usable & (values >= edge if self.kind == "min" else values <= edge).fill_null(False)

    def _best(self, ranked: pl.DataFrame, of: pl.Series) -> pl.Series:
        stay = math.ceil(round(self.threshold * ranked.height, 9))
        if stay == ranked.height:
            return of.is_in(ranked["id"].implode())
        edge = ranked[self.column].top_k(stay).min()
        better = ranked.filter(pl.col(self.column) > edge)["id"]
        tied = ranked.filter(pl.col(self.column) == edge)["id"].sort().head(stay - better.len())
        return of.is_in(pl.concat([better, tied]).implode())

    def reason(self) -> pl.Expr:
        """The text for a row that did not pass: `aspect_ratio 3.12 > 2.5`."""
        # Told to the last stored digit, so that a reason never reads `2.5 > 2.5`.
        value = pl.col(self.column).cast(pl.String).str.strip_suffix(".0")
        told = pl.format("{} {} {}", pl.lit(self.column), value, pl.lit(self._miss))
        return told.fill_null(pl.lit(f"{self.column} is missing"))


def plain(number: float) -> str:
    """`2.5`, `200`, `40000000`."""
    return f"{number:.0f}" if number == int(number) else f"{number:.10g}"


def parse_keep(keep: Mapping[str, object], writes: pa.Schema, where: str) -> tuple[Rule, ...]:
    """Read a recipe's `keep`, in order: `{max: 2.5, min_side: 200}`.

    `min`, `max` and `top` alone are about the first column that the stage writes, `min_<column>` about another one.

    Args:
        keep: The mapping as written.
        writes: The stage's columns, with their ranges.
        where: How to name the place in an error.

    Raises:
        ValueError: Unknown rule (the nearest valid one is suggested), not a number, or out of the column's range.
    """
    rules: list[Rule] = []
    for key, value in keep.items():
        kind, _, column = str(key).partition("_")
        column = column or writes.names[0]
        if kind not in KINDS or column not in writes.names:
            valid = [*KINDS, *(f"{k}_{c}" for c in writes.names for k in KINDS)]
            raise ValueError(f"{where}: unknown rule {key!r}{suggest(key, valid)}")
        rule = Rule(kind, column, _number(value, f"{where}: {key}"))
        _check_range(rule, writes.field(column), f"{where}: {key}")
        if any(r.name == rule.name for r in rules):
            raise ValueError(f"{where}: {key} says {rule.name} a second time")
        rules.append(rule)
    return tuple(rules)


def suggest(word: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the valid names if none is near."""
    names = list(valid)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; valid are {', '.join(names)}"


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, not {value!r}")
    return float(value)


def _check_range(rule: Rule, field: pa.Field, where: str) -> None:
    if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
        raise ValueError(f"{where}: {field.name} is {field.type}, not a number to compare")
    low, high = (0.0, 1.0) if rule.kind == "top" else bounds(field)
    if not low <= rule.threshold <= high or (rule.kind == "top" and rule.threshold == 0):
        of = "a fraction above 0 and up to 1" if rule.kind == "top" else f"{field.name} runs from {low:g} to {high:g}"
        raise ValueError(f"{where}: {plain(rule.threshold)} is out of range; {of}")
