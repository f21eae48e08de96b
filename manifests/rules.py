"""Rules of a recipe: each decides by a stored column which rows stay, and gives a reason for the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from core.errors import UserError, suggest
from manifests.groups import balanced, ordering
from manifests.schemas import bounds, is_amount, is_list, passes_unknown, reference_column_of
from manifests.weighted_draw import drawn_by_rarity

KINDS = ("min", "max", "top", "per_group", "total")
BALANCE = ("per_group", "total")
"""Kinds of rules that limit the number of rows per group; the values of a column make the groups."""

MODIFIERS = ("order", "seed")
"""Keys of `keep` that are not rules: they say which rows its balance rules prefer."""

_CHANCE = {"random": "at random", "spread": "spread out"}


@dataclass(frozen=True)
class Rule:
    """A rule that keeps rows by the values of one column.

    Attributes:
        kind: `min` (value ≥ threshold); `max` (value ≤ threshold); `top` (the fraction of rows with the highest values,
            among the rows with a value that reach the rule; ties go to the smaller id, so exactly ⌈fraction · rows⌉
            stay); or balance over the groups that the column's values make: `per_group` (a maximum of rows per group),
            `total` (a number of rows in all, shared as evenly as the groups allow: `manifests/balance.py`; of a column
            of lists, drawn by the rarity of their values: `manifests/weighted_draw.py`).
        column: The stored column. A row whose value is null or NaN does not pass, unless null passes.
        threshold: In the column's unit; for `top` a fraction in (0, 1]; for balance a number of rows.
        order: For balance: which rows of a group come first. `random`; `spread` (one random row of each
            `second_cluster`, then another one of each, and so on: from all sides of the centre); `closest` and
            `farthest` (by the column `distance`); `highest_X` and `lowest_X` (by any column X; in new
            recipes, no fact about two images). A hash of the id decides ties, and everything under `random`.
        seed: For balance: seed of that hash.
        within: For `total`: columns of coarser groups that contain the groups, finest first. The total is shared from
            the coarsest groups down.
        null_passes: For `min`, `max` and `top`: whether a null means that the value is not known yet, and passes.
        of_lists: For `total`: whether the column holds lists, such as `concepts`.
    """

    kind: str
    column: str
    threshold: float
    order: str = "random"
    seed: int = 0
    within: tuple[str, ...] = ()
    null_passes: bool = False
    of_lists: bool = False

    @property
    def name(self) -> str:
        """The rule's full name in a recipe: `max_aspect_ratio`."""
        return f"{self.kind}_{self.column}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The stored columns that the rule reads."""
        ranked = ordering(self.order)
        return (self.column, *self.within, *([ranked[0]] if ranked else []))

    def __str__(self) -> str:
        """Return the condition under which a row is dropped: `aspect_ratio > 2.5`."""
        return f"{self.column} {self._miss}"

    @property
    def reason_if_missing(self) -> str:
        """The reason of a row that is dropped because it has no value."""
        return f"{self.column} is missing"

    @property
    def _miss(self) -> str:
        if self.kind == "top":
            return f"not in the top {plain(self.threshold * 100)} %"
        if self.of_lists:
            return f"not among the {plain(self.threshold)} drawn by {self.column}"
        if self.kind in BALANCE:
            first = _CHANCE.get(self.order) or f"{self.order.replace('_', ' ', 1)} first"
            share = "a balanced " if self.kind == "total" else "its "
            return f"not among {share}{plain(self.threshold)}, {first}"
        return f"{'<' if self.kind == 'min' else '>'} {plain(self.threshold)}"

    def passes(self, rows: pl.DataFrame) -> pl.Series:
        """Return one boolean per row: whether it passes.

        Args:
            rows: All rows that reach the rule, with `id` and the rule's columns.
        """
        values = rows[self.column]
        usable = values.is_not_null() & values.is_not_nan() if values.dtype.is_float() else values.is_not_null()
        if self.kind in BALANCE:
            return self._balanced(rows, usable)
        unknown = values.is_null() & self.null_passes
        if self.kind == "top":
            return unknown | self._best(rows.select("id", self.column).filter(usable), of=rows["id"])
        # Compare in the column's own precision: 0.7 stored as float32 passes `min: 0.7`.
        edge = pl.Series([self.threshold], dtype=values.dtype if values.dtype.is_float() else pl.Float64)
        return unknown | usable & (values >= edge if self.kind == "min" else values <= edge).fill_null(False)

    def _best(self, ranked: pl.DataFrame, of: pl.Series) -> pl.Series:
        stay = math.ceil(round(self.threshold * ranked.height, 9))
        if stay == ranked.height:
            return of.is_in(ranked["id"].implode())
        edge = ranked[self.column].top_k(stay).min()
        better = ranked.filter(pl.col(self.column) > edge)["id"]
        tied = ranked.filter(pl.col(self.column) == edge)["id"].sort().head(stay - better.len())
        return of.is_in(pl.concat([better, tied]).implode())

    def _balanced(self, rows: pl.DataFrame, usable: pl.Series) -> pl.Series:
        reached = rows.filter(usable).select("id", *self.columns)
        number = int(self.threshold)
        if self.of_lists:
            chosen = drawn_by_rarity(reached, self.column, number, self.seed)
        else:
            amount = {"each" if self.kind == "per_group" else "total": number}
            chosen = balanced(reached, self.column, order=self.order, seed=self.seed, within=self.within, **amount)
        return chosen if usable.all() else rows["id"].is_in(reached["id"].filter(chosen).implode())

    def reason(self) -> pl.Expr:
        """Return an expression for the reason of a dropped row: `aspect_ratio 3.12 > 2.5`."""
        # The value is shown with all stored digits, so that a reason never reads `2.5 > 2.5`.
        value = pl.col(self.column)
        listed = pl.format("[{}]", value.cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True))
        value = listed if self.of_lists else value.cast(pl.String).str.strip_suffix(".0")
        text = pl.format("{} {} {}", pl.lit(self.column), value, pl.lit(self._miss))
        return text.fill_null(pl.lit(self.reason_if_missing))


def plain(number: float) -> str:
    """Format a number without an exponent where possible: `2.5`, `200`, `40000000`."""
    return f"{number:.0f}" if number == int(number) else f"{number:.10g}"


def parse_rules(
    keep: Mapping[str, object], writes: pa.Schema, where: str, earlier: Mapping[str, pa.Field] | None = None
) -> tuple[Rule, ...]:
    """Parse a recipe's `keep`, in order: `{max: 2.5, min_side: 200}`, `{per_group: 350, order: closest}`.

    A kind alone applies to the first column that the stage writes, `<kind>_<column>` to another column. `order` and
    `seed` apply to the balance rules in the same `keep`.

    Args:
        keep: The mapping as written.
        writes: The stage's columns, with their ranges.
        where: The position in the recipe, for errors.
        earlier: The columns of the index and of earlier stages, by name; rules may apply to them, too.

    Raises:
        UserError: The rule is unknown (the nearest valid one is suggested), its value is not a number or out of the
            column's range, or the rule is at the wrong stage.
    """
    columns = {name: field for name, field in (earlier or {}).items() if name not in ("id", "error", "retry")}
    columns |= {field.name: field for field in writes}
    order, seed = _modifiers(keep, columns, where)
    rules: list[Rule] = []
    for key, value in keep.items():
        if key in MODIFIERS:
            continue
        kind = next((k for k in KINDS if key == k or str(key).startswith(f"{k}_")), "")
        column = str(key)[len(kind) + 1 :] or writes.names[0]
        if not kind or column not in columns:
            valid = [*KINDS, *MODIFIERS, *(f"{k}_{c}" for c in writes.names for k in KINDS)]
            raise UserError(f"{where}: unknown rule {key!r}{suggest(str(key), valid)}")
        _check_stage(kind, columns[column], writes, f"{where}: {key}")
        rule = _rule(kind, columns[column], _number(value, f"{where}: {key}"), order, seed, columns)
        _check_range(rule, columns[column], f"{where}: {key}")
        if any(r.name == rule.name for r in rules):
            raise UserError(f"{where}: {key} says {rule.name} a second time")
        rules.append(rule)
    if any(key in MODIFIERS for key in keep) and not any(r.kind in BALANCE for r in rules):
        raise UserError(f"{where}: order and seed are about per_group and total; there is neither")
    return tuple(rules)


def as_keep(rules: Iterable[Rule]) -> dict[str, object]:
    """Return the `keep` mapping that `parse_rules` reads, with every rule under its full name."""
    rules = tuple(rules)
    keep: dict[str, object] = {r.name: int(r.threshold) if r.threshold.is_integer() else r.threshold for r in rules}
    balance = next((r for r in rules if r.kind in BALANCE), None)
    return keep if balance is None else keep | {"order": balance.order, "seed": balance.seed}


def _modifiers(keep: Mapping[str, object], columns: Mapping[str, pa.Field], where: str) -> tuple[str, int]:
    order, seed = keep.get("order", "random"), keep.get("seed", 0)
    if not isinstance(order, str):
        raise UserError(f"{where}: order must be a text, not {order!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UserError(f"{where}: seed must be an integer from 0, not {seed!r}")
    try:
        ranked = ordering(order)
    except UserError as error:
        raise UserError(f"{where}: order: {error}") from error
    if ranked and ranked[0] not in columns:
        raise UserError(f"{where}: order: {order} goes by {ranked[0]!r}, which no stage up to here writes")
    if ranked and order != "spread" and not is_amount(columns[ranked[0]]):
        raise UserError(f"{where}: order: {ranked[0]} holds no amounts to order by")
    return order, seed


def _rule(kind: str, field: pa.Field, threshold: float, order: str, seed: int, columns: Mapping[str, pa.Field]) -> Rule:
    if kind not in BALANCE:
        return Rule(kind, field.name, threshold, null_passes=passes_unknown(field))
    coarser = (field.metadata or {}).get(b"within", b"").decode()
    within = tuple(c for c in coarser.split(",") if c in columns) if kind == "total" else ()
    return Rule(kind, field.name, threshold, order, seed, within, of_lists=is_list(field))


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where} must be a finite number, not {value!r}")
    return float(value)


def _check_stage(kind: str, field: pa.Field, writes: pa.Schema, where: str) -> None:
    """Refuse a rule that could drop an image because of another image that is not kept either."""
    if field.name in writes.names:
        return
    if reference_column_of(field):
        raise UserError(f"{where}: {field.name} is about two images; put its rule into the stage that writes it")
    if kind not in BALANCE and any(reference_column_of(written) for written in writes):
        raise UserError(
            f"{where}: would drop an image and leave its copies dropped too; put the rule into an earlier stage"
        )


def _check_range(rule: Rule, field: pa.Field, where: str) -> None:
    if rule.kind in BALANCE:
        _check_balance(rule, field, where)
        return
    if not is_amount(field):
        of = f"{field.type}, not a number" if not pa.types.is_integer(field.type) else "a name, not an amount"
        raise UserError(f"{where}: {field.name} is {of} to compare")
    low, high = (0.0, 1.0) if rule.kind == "top" else bounds(field)
    if not low <= rule.threshold <= high or (rule.kind == "top" and rule.threshold == 0):
        of = "a fraction above 0 and up to 1" if rule.kind == "top" else f"{field.name} runs from {low:g} to {high:g}"
        raise UserError(f"{where}: {plain(rule.threshold)} is out of range; {of}")


def _check_balance(rule: Rule, field: pa.Field, where: str) -> None:
    kinds = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)
    values = field.type.value_type if rule.of_lists else field.type
    if not any(is_kind(values) for is_kind in kinds):
        raise UserError(f"{where}: {field.name} is {field.type}; groups are made by texts, integers or booleans")
    if rule.of_lists and (rule.kind, rule.order) != ("total", "random"):
        raise UserError(f"{where}: {field.name} holds lists, of which only total draws rows, without another order")
    if not rule.threshold.is_integer() or rule.threshold < 1:
        raise UserError(f"{where}: {plain(rule.threshold)} is no number of rows; give an integer from 1")
