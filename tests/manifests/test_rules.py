"""Rules: which rows pass, what a reason says, and what is refused before anything runs."""

from __future__ import annotations

import math

import polars as pl
import pyarrow as pa
import pytest

from manifests.rules import Rule, parse_keep
from manifests.schemas import column

WRITES = pa.schema(
    [
        column("aesthetic", pa.float32(), "", 0, 10),
        column("side", pa.int32(), "", 1),
        column("caption", pa.string(), ""),
    ]
)


def passes(rule: Rule, values: list[float | None], dtype: type[pl.DataType] = pl.Float32) -> list[bool]:
    rows = pl.DataFrame({"id": list(range(len(values))), rule.column: pl.Series(values, dtype=dtype)})
    return rule.passes(rows).to_list()


def test_a_threshold_is_inclusive_in_the_columns_own_precision() -> None:
    assert passes(Rule("min", "v", 0.7), [0.7, 0.69999, 0.71]) == [True, False, True]
    assert passes(Rule("max", "v", 2.1), [2.1, 2.1001, 2.0]) == [True, False, True]


def test_a_fractional_threshold_compares_with_integers() -> None:
    assert passes(Rule("min", "v", 2.5), [2, 3], pl.Int32) == [False, True]


@pytest.mark.parametrize("kind", ["min", "max", "top"])
def test_null_and_nan_never_pass(kind: str) -> None:
    assert passes(Rule(kind, "v", 1.0), [None, math.nan, 1.0]) == [False, False, True]


def test_top_keeps_exactly_its_share_and_ties_go_to_the_smaller_id() -> None:
    assert passes(Rule("top", "v", 0.5), [1.0, 1.0, 1.0, 2.0]) == [True, False, False, True]
    assert sum(passes(Rule("top", "v", 0.7), [float(i) for i in range(10)])) == 7
    assert sum(passes(Rule("top", "v", 0.01), [1.0, 2.0])) == 1


def test_reasons_name_the_value_and_the_threshold() -> None:
    rows = pl.DataFrame({"aspect_ratio": pl.Series([3.1234567, None], dtype=pl.Float32)})
    assert rows.select(Rule("max", "aspect_ratio", 2.5).reason()).to_series().to_list() == [
        "aspect_ratio 3.1234567 > 2.5",
        "aspect_ratio is missing",
    ]


def test_a_reason_does_not_round_itself_false() -> None:
    rows = pl.DataFrame({"pixels": [40_000_001], "ratio": pl.Series([2.500001], dtype=pl.Float32)})
    assert rows.select(Rule("max", "pixels", 4e7).reason()).item() == "pixels 40000001 > 40000000"
    assert rows.select(Rule("max", "ratio", 2.5).reason()).item() == "ratio 2.500001 > 2.5"


def test_bare_rules_are_about_the_first_column_and_order_is_kept() -> None:
    rules = parse_keep({"min_side": 200, "max": 9, "top": 0.5}, WRITES, "here")
    assert [r.name for r in rules] == ["min_side", "max_aesthetic", "top_aesthetic"]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"mni": 5}, "did you mean 'min'"),
        ({"min_sid": 5}, "did you mean 'min_side'"),
        ({"min": 11}, "aesthetic runs from 0 to 10"),
        ({"min": -0.1}, "aesthetic runs from 0 to 10"),
        ({"top": 70}, "a fraction above 0 and up to 1"),
        ({"top": 0}, "a fraction above 0 and up to 1"),
        ({"min": "5"}, "must be a finite number, not '5'"),
        ({"min": True}, "must be a finite number, not True"),
        ({"min": math.nan}, "must be a finite number"),
        ({"min_caption": 1}, "caption is string, not a number"),
        ({"min": 5, "min_aesthetic": 4}, "a second time"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(keep: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_keep(keep, WRITES, "here")
