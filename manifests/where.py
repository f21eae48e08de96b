"""Conditions on rows (`--where` of commands): SQL expressions over stored columns, in polars' dialect."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from core.errors import UserError, suggest

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_SUBQUERY = re.compile(r"\bselect\b", re.IGNORECASE)


@dataclass(frozen=True)
class Condition:
    """A checked expression.

    Attributes:
        text: The expression as written.
        expression: Its value for each row: a boolean.
        columns: The columns that it reads.
        floats: Those of them that may hold NaN.
    """

    text: str
    expression: pl.Expr
    columns: frozenset[str]
    floats: tuple[str, ...]

    def filter(self, rows: pl.LazyFrame, columns: list[str]) -> pl.DataFrame:
        """Return `columns` of the rows that fit. A row for which the expression is null does not fit.

        NaN is a missing value, as it is for rules: to polars it would be larger than all numbers.

        Raises:
            UserError: The expression cannot be computed for some row.
        """
        try:
            known = rows.with_columns(pl.col(self.floats).fill_nan(None))
            return known.filter(self.expression).select(columns).collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            raise UserError(f"--where {self.text!r}: {_first_line(error)}") from error


def parse_where(text: str, schema: pl.Schema) -> Condition:
    """Parse and check an expression such as `aesthetic < 4 and status = 'kept'`.

    Args:
        text: The expression.
        schema: The columns that it may read, with their types.

    Raises:
        UserError: It is not valid SQL, reads an unknown column, or is not a condition (true or false for each row).
    """
    if _SUBQUERY.search(_QUOTED.sub("", text)):
        raise UserError(f"--where {text!r}: has a subquery; a condition compares columns of a row, without select")
    try:
        expression = pl.sql_expr(text)
    except UnicodeEncodeError as error:
        raise UserError(f"--where {text!r} is no SQL expression: it is not UTF-8") from error
    except pl.exceptions.PolarsError as error:
        raise UserError(
            f"--where {text!r} is no SQL expression: {_first_line(error)}; write it as \"error like '%context%'\""
        ) from error
    columns = frozenset(expression.meta.root_names())
    for name in sorted(columns - set(schema)):
        quoted = f"; a text stands in single quotes: '{name}'" if f'"{name}"' in text else suggest(name, schema)
        raise UserError(f"--where {text!r}: no column {name!r}{quoted}")
    try:
        (type_,) = pl.LazyFrame(schema=schema).select(expression).collect_schema().dtypes()
    except pl.exceptions.PolarsError as error:
        raise UserError(f"--where {text!r}: {_first_line(error)}") from error
    if type_ != pl.Boolean:
        raise UserError(f'--where {text!r}: gives {type_}, not true or false; compare it, as in "width > 200"')
    floats = tuple(name for name in sorted(columns) if schema[name].is_float())
    return Condition(text, expression, columns, floats)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
