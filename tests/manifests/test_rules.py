"""Rules: which rows pass, what a reason says, and what is refused before anything runs."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.rules import Rule, as_keep, parse_rules
from manifests.schemas import column

WRITES = pa.schema(
    [
        column("aesthetic", pa.float32(), "", 0, 10),
        column("side", pa.int32(), "", 1),
        column("caption", pa.string(), ""),
        column("cluster", pa.int32(), "", nominal=True),
    ]
)


def passes(rule: Rule, values: list[float | None], dtype: type[pl.DataType] = pl.Float32) -> list[bool]:
    rows = pl.DataFrame({"id": list(range(len(values))), rule.column: pl.Series(values, dtype=dtype)})
    return rule.passes(rows).to_list()


def test_threshold_is_inclusive_in_the_precision_of_its_column() -> None:
    assert passes(Rule("min", "v", 0.7), [0.7, 0.69999, 0.71]) == [True, False, True]
    assert passes(Rule("max", "v", 2.1), [2.1, 2.1001, 2.0]) == [True, False, True]


def test_fractional_threshold_compares_with_integers() -> None:
    assert passes(Rule("min", "v", 2.5), [2, 3], pl.Int32) == [False, True]


@pytest.mark.parametrize("kind", ["min", "max", "top"])
def test_null_and_nan_never_pass(kind: str) -> None:
    assert passes(Rule(kind, "v", 1.0), [None, math.nan, 1.0]) == [False, False, True]


def test_null_passes_where_it_means_not_known_yet() -> None:
    writes = pa.schema([column("v", pa.float32(), "", passes_unknown=True), column("w", pa.float32(), "")])
    for kind, kept in {
        "min": [True, False, True, True],
        "max": [True, False, True, False],
        "top": [True, False, False, True],
    }.items():
        (unknown, known) = parse_rules({f"{kind}_v": 0.5, f"{kind}_w": 0.5}, writes, "here")
        values = [None, math.nan, 0.5, 0.75]
        assert passes(unknown, values) == kept
        assert passes(known, values) == [False, *kept[1:]]
    (balance,) = parse_rules({"per_group_n": 5}, pa.schema([column("n", pa.int32(), "", passes_unknown=True)]), "here")
    assert passes(balance, [None, 1], pl.Int32) == [False, True]


def test_top_keeps_its_exact_share_and_smaller_ids_of_ties() -> None:
    assert passes(Rule("top", "v", 0.5), [1.0, 1.0, 1.0, 2.0]) == [True, False, False, True]
    assert sum(passes(Rule("top", "v", 0.7), [float(i) for i in range(10)])) == 7
    assert sum(passes(Rule("top", "v", 0.01), [1.0, 2.0])) == 1


def test_reasons_name_the_value_and_the_threshold() -> None:
    rows = pl.DataFrame({"aspect_ratio": pl.Series([3.1234567, None], dtype=pl.Float32)})
    assert rows.select(Rule("max", "aspect_ratio", 2.5).reason()).to_series().to_list() == [
        "aspect_ratio 3.1234567 > 2.5",
        "aspect_ratio is missing",
    ]


def test_reason_shows_enough_digits_to_be_true() -> None:
    rows = pl.DataFrame({"pixels": [40_000_001], "ratio": pl.Series([2.500001], dtype=pl.Float32)})
    assert rows.select(Rule("max", "pixels", 4e7).reason()).item() == "pixels 40000001 > 40000000"
    assert rows.select(Rule("max", "ratio", 2.5).reason()).item() == "ratio 2.500001 > 2.5"


def test_rule_without_a_column_applies_to_the_first_column() -> None:
    rules = parse_rules({"min_side": 200, "max": 9, "top": 0.5}, WRITES, "here")
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
        ({"min_cluster": 4}, "cluster is a name, not an amount"),
        ({"per_group": 3}, "aesthetic is float; groups are made by texts, integers or booleans"),
        ({"per_group_cluster": 0}, "0 is no number of rows"),
        ({"total_cluster": 2.5}, "2.5 is no number of rows"),
        ({"per_grop_cluster": 2}, "did you mean 'per_group_cluster'"),
        ({"per_group_cluster": 2, "order": "nearest"}, "no order 'nearest'; valid are random, spread, closest"),
        ({"per_group_cluster": 2, "order": "spread"}, "goes by 'second_cluster', which no stage up to here writes"),
        ({"per_group_cluster": 2, "order": "closest"}, "goes by 'distance', which no stage up to here writes"),
        ({"per_group_cluster": 2, "order": "highest_caption"}, "caption holds no amounts"),
        ({"per_group_cluster": 2, "order": 3}, "order must be a text"),
        ({"per_group_cluster": 2, "seed": -1}, "seed must be an integer from 0"),
        ({"min": 5, "order": "random"}, "order and seed are about per_group and total; there is neither"),
    ],
)
def test_invalid_rule_is_refused(keep: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rules(keep, WRITES, "here")


def test_rule_may_be_about_a_column_of_an_earlier_stage() -> None:
    earlier = {"label": column("label", pa.string(), ""), "width": column("width", pa.int32(), "", 0)}
    rules = parse_rules({"per_group_label": 2, "min_width": 10, "order": "highest_width"}, WRITES, "here", earlier)
    assert [(r.name, r.columns) for r in rules] == [
        ("per_group_label", ("label", "width")),
        ("min_width", ("width",)),
    ]
    with pytest.raises(ValueError, match="width runs from 0"):
        parse_rules({"min_width": -1}, WRITES, "here", earlier)


def test_rules_on_pairs_are_accepted_only_in_their_own_stage() -> None:
    pairs = pa.schema(
        [column("likeness", pa.float32(), "", 0, 1, reference_column="other"), column("other", pa.int64(), "")]
    )
    earlier = {"width": column("width", pa.int32(), "", 0)}
    assert len(parse_rules({"max": 0.9, "per_group_width": 3}, pairs, "here", earlier)) == 2
    with pytest.raises(ValueError, match=r"min_width: would drop an image .* into an earlier stage"):
        parse_rules({"min_width": 9}, pairs, "here", earlier)
    with pytest.raises(ValueError, match=r"max_likeness: likeness is about two images; .* the stage that writes it"):
        parse_rules({"max_likeness": 0.9}, WRITES, "here", {f.name: f for f in pairs})


def test_written_rule_is_read_back_unchanged() -> None:
    keep = {"min_side": 200, "per_group_cluster": 3, "order": "lowest_side", "seed": 5}
    rules = parse_rules(keep, WRITES, "here")
    assert as_keep(rules) == keep
    assert parse_rules(as_keep(rules), WRITES, "here") == rules


def balanced(rule: Rule, groups: list[object], **columns: list[object]) -> list[bool]:
    rows = pl.DataFrame({"id": list(range(len(groups))), rule.column: groups, **columns})
    return rule.passes(rows).to_list()


def test_per_group_keeps_the_first_rows_of_each_group() -> None:
    distance = [0.3, 0.1, 0.2, 0.9, None]
    groups = ["a", "a", "a", "b", "a"]
    for order, kept in {
        "closest": [False, True, True, True, False],
        "farthest": [True, False, True, True, False],
    }.items():
        assert balanced(Rule("per_group", "g", 2, order), groups, distance=distance) == kept
    assert balanced(Rule("per_group", "g", 4, "closest"), groups, distance=distance) == [True] * 5


def test_spread_takes_one_row_per_neighbour_before_a_second() -> None:
    groups = ["a"] * 12 + ["b"] * 3
    sides = [7] * 9 + [8] * 2 + [9] + [7, 7, None]
    kept = balanced(Rule("per_group", "g", 5, "spread"), list(groups), second_cluster=list(sides))
    of = [s for s, k, g in zip(sides, kept, groups, strict=True) if k and g == "a"]
    assert sorted(of) == [7, 7, 8, 8, 9], "a row of each, then another of those that have one"
    assert kept[-3:] == [True] * 3
    rules = (Rule("per_group", "g", 5, "spread", seed) for seed in range(9))
    assert len({tuple(balanced(rule, list(groups), second_cluster=list(sides))) for rule in rules}) > 1, (
        "which row of a side is chance"
    )


@settings(max_examples=50)
@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(0, 2, width=32)), max_size=80),
    total=st.integers(1, 90),
    shuffled=st.randoms(use_true_random=False),
)
def test_quotas_do_not_depend_on_the_order_of_rows(rows: list[Any], total: int, shuffled: Any) -> None:
    frame = pl.DataFrame(
        [(n, *row) for n, row in enumerate(rows)],
        schema={"id": pl.Int64, "cluster": pl.Int32, "second_cluster": pl.Int32, "distance": pl.Float32},
        orient="row",
    )
    turned = list(range(frame.height))
    shuffled.shuffle(turned)
    sizes = set()
    for order in ("random", "spread", "closest", "farthest"):
        rule = Rule("total", "cluster", total, order)
        kept = frame.filter(rule.passes(frame))
        again = frame[turned]
        assert again.filter(rule.passes(again)).sort("id").equals(kept)
        sizes.add(tuple(kept["cluster"].value_counts().sort("cluster").rows()))
    assert len(sizes) == 1


def test_row_without_a_group_does_not_pass() -> None:
    assert balanced(Rule("per_group", "g", 9), ["a", None, "b"]) == [True, False, True]
    assert balanced(Rule("total", "g", 2), [None, 5, None]) == [False, True, False]


def test_total_takes_rows_evenly_up_to_all_rows() -> None:
    groups = [1] * 10 + [2] * 3 + [3]
    kept = balanced(Rule("total", "g", 8), groups)
    assert [sum(k for k, g in zip(kept, groups, strict=True) if g == n) for n in (1, 2, 3)] in ([4, 3, 1], [5, 2, 1])
    assert sum(balanced(Rule("total", "g", 99), groups)) == 14


def test_groups_with_distant_numbers_are_balanced() -> None:
    groups = [-(2**62), 2**62, 2**62, 0]
    assert sum(balanced(Rule("per_group", "g", 1), groups)) == 3


def of_lists(keep: dict[str, object], lists: list[Any]) -> tuple[Rule, pl.DataFrame]:
    """The rule of `keep`, and rows with these lists of tags, after it: `id`, `tags`, `passed`, `reason`."""
    writes = pa.schema([column("tags", pa.list_(pa.string()), ""), column("scores", pa.list_(pa.float32()), "")])
    (rule,) = parse_rules(keep, writes, "here")
    assert parse_rules(as_keep([rule]), writes, "here") == (rule,)
    rows = pl.DataFrame({"id": range(len(lists)), "tags": pl.Series(lists, dtype=pl.List(pl.String))})
    return rule, rows.with_columns(passed=rule.passes(rows), reason=rule.reason())


def test_total_of_lists_draws_rare_values_first() -> None:
    lists = [["dog"]] * 300 + [["cat"]] * 3
    drawn = [of_lists({"total": 6, "seed": seed}, lists)[1].filter("passed")["id"] for seed in range(20)]
    assert {len(ids) for ids in drawn} == {6}
    assert sum((ids >= 300).sum() for ids in drawn) > 40, "a random draw has one cat in 20"


def test_reasons_of_a_draw_name_the_values_and_the_total() -> None:
    rule, rows = of_lists({"total_tags": 1}, [["dog", None, "grass"], [], None])
    assert rows["passed"].to_list() == [True, False, False]
    assert rows["reason"].to_list()[1:] == ["tags [] not among the 1 drawn by tags", "tags is missing"]
    assert rows["reason"][0] == "tags [dog, grass] not among the 1 drawn by tags"
    assert str(rule) == "tags not among the 1 drawn by tags"


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"per_group": 2}, "tags holds lists, of which only total draws rows, without another order"),
        ({"total": 2, "order": "highest_side"}, "tags holds lists, of which only total draws rows"),
        ({"total_scores": 2}, "scores is list<.*>; groups are made by texts, integers or booleans"),
        ({"total": 0}, "0 is no number of rows"),
        ({"min": 1}, "tags is list<.*>, not a number to compare"),
    ],
    ids=["per_group", "order", "floats", "zero", "min"],
)
def test_rule_that_lists_cannot_have_is_refused(keep: dict[str, object], message: str) -> None:
    writes = pa.schema(
        [
            column("tags", pa.list_(pa.string()), ""),
            column("scores", pa.list_(pa.float32()), ""),
            column("side", pa.int32(), ""),
        ]
    )
    with pytest.raises(ValueError, match=message):
        parse_rules(keep, writes, "here")


def test_total_within_coarser_groups_is_shared_from_the_top() -> None:
    field = column("fine", pa.int32(), "", nominal=True)
    field = field.with_metadata({**field.metadata, b"within": b"coarse"})
    writes = pa.schema([field, column("coarse", pa.int32(), "", nominal=True)])
    (rule,) = parse_rules({"total": 6}, writes, "here")
    fine = [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    coarse = [0] * 15 + [1] * 5  # three fine groups against one
    rows = pl.DataFrame({"id": range(20), "fine": fine, "coarse": coarse})
    kept = rows.filter(rule.passes(rows))
    assert kept["coarse"].value_counts().sort("coarse")["count"].to_list() == [3, 3]
    assert kept["fine"].value_counts().sort("fine")["count"].to_list() == [1, 1, 1, 3]


def test_reasons_of_balance_name_the_group_and_quota() -> None:
    rows = pl.DataFrame({"cluster": [17, None]})
    assert rows.select(Rule("per_group", "cluster", 350, "closest").reason()).to_series().to_list() == [
        "cluster 17 not among its 350, closest first",
        "cluster is missing",
    ]
    assert str(Rule("total", "cluster", 7000, "spread")) == "cluster not among a balanced 7000, spread out"
    assert str(Rule("total", "cluster", 7000, "highest_aesthetic")) == (
        "cluster not among a balanced 7000, highest aesthetic first"
    )
