"""`--where`: what is a condition, and the one line about what is none."""

from __future__ import annotations

import polars as pl
import pytest

from core.errors import UserError
from manifests.where import parse_where

ROWS = pl.DataFrame(
    {"id": [1, 2, 3], "status": ["kept", "dropped", None], "aesthetic": [3.5, 5.0, None], "labels": [["a"], [], None]}
)


def ids(text: str) -> list[int]:
    return parse_where(text, ROWS.schema).filter(ROWS.lazy(), ["id"])["id"].to_list()


@pytest.mark.parametrize(
    ("text", "fitting"),
    [
        ("aesthetic < 4 and status = 'kept'", [1]),
        ("aesthetic is null or status like 'drop%'", [2, 3]),
        ("not status = 'kept'", [2]),
        ("aesthetic between 3 and 6", [1, 2]),
        ("1 = 1", [1, 2, 3]),
        ("status in ('kept', 'error')", [1]),
    ],
)
def test_condition_selects_rows_for_which_it_is_true(text: str, fitting: list[int]) -> None:
    assert ids(text) == fitting


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aesthetic <", "is no SQL expression: "),
        ("", "is no SQL expression: "),
        ("aesthetic < 4; drop table x", "is no SQL expression: "),
        ("status = '\udcff'", "is no SQL expression: it is not UTF-8"),
        ("aestetic < 4", "no column 'aestetic'; did you mean 'aesthetic'?"),
        ('status = "kept"', "no column 'kept'; a text stands in single quotes: 'kept'"),
        ("aesthetic", "gives Float64, not true or false"),
        ("labels", "gives List(String), not true or false"),
        ("aesthetic < 'four'", "cannot compare string with numeric"),
        ("id in (select 1)", "has a subquery; a condition compares columns of a row, without select"),
        ("exists (SELECT 1)", "has a subquery"),
        ("aesthetic > (select max(aesthetic) from self)", "has a subquery"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UserError, match=r"^--where ") as refused:
        ids(text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_select_in_quotes_is_a_text() -> None:
    assert ids("status = 'kept' or status = 'select 1' or status = \"status\"") == [1, 2]


@pytest.mark.parametrize(
    ("text", "fitting"),
    [("score > 0.5", [3]), ("score < 0.5", [2]), ("score is null", [1, 4]), ("not score > 0.5", [2])],
)
def test_nan_is_a_missing_value(text: str, fitting: list[int]) -> None:
    rows = pl.DataFrame({"id": [1, 2, 3, 4], "score": [float("nan"), 0.1, 0.9, None]})
    assert parse_where(text, rows.schema).filter(rows.lazy(), ["id"])["id"].to_list() == fitting


def test_value_that_cannot_be_computed_is_an_error_in_one_line() -> None:
    with pytest.raises(UserError, match=r"--where .*conversion") as refused:
        ids("cast(status as int) > 1")
    assert "\n" not in str(refused.value)
