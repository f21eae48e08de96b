"""Draws by rarity: known weights, exact totals, the same rows in any order, and chances in proportion to weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import weighted_draw
from manifests.groups import effective_number
from manifests.priorities import priority
from manifests.rules import Rule
from manifests.weighted_draw import draw, drawn_by_rarity, inverse_frequencies

TEXTS = pl.List(pl.String)


def test_weight_is_the_mean_of_the_inverse_frequencies() -> None:
    lists = pl.Series([["dog", "grass"], ["dog"], ["dog", "cat", "grass"], ["dog"]], dtype=TEXTS)
    assert inverse_frequencies(lists).tolist() == pytest.approx([(1 / 4 + 1 / 2) / 2, 1 / 4, 7 / 12, 1 / 4])


def test_value_counts_once_in_a_list_and_null_is_none() -> None:
    lists = pl.Series([["dog", "dog", None], ["dog"], [], [None], None], dtype=TEXTS)
    assert inverse_frequencies(lists).tolist() == [0.5, 0.5, 0, 0, 0]
    assert inverse_frequencies(pl.Series([[3, 3], [4]])).tolist() == [1, 1]
    assert inverse_frequencies(pl.Series([], dtype=TEXTS)).tolist() == []


@settings(max_examples=150)
@given(
    lists=st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=4), max_size=60),
    total=st.integers(0, 70),
    rows=st.integers(1, 9),
    shuffled=st.randoms(use_true_random=False),
)
def test_draw_is_exact_and_the_same_in_any_order(lists: Any, total: int, rows: int, shuffled: Any) -> None:
    frame = pl.DataFrame({"id": range(len(lists)), "of": pl.Series(lists, dtype=TEXTS)})
    kept = frame.filter(drawn_by_rarity(frame, "of", total, 3))
    assert kept.height == min(total, len(lists))
    turned = list(range(frame.height))
    shuffled.shuffle(turned)
    again = frame[turned]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(weighted_draw, "_ROWS", rows)
        assert again.filter(drawn_by_rarity(again, "of", total, 3)).sort("id").equals(kept)


@settings(max_examples=100)
@given(weights=st.lists(st.floats(0, 1), min_size=1, max_size=40), total=st.integers(1, 40), seed=st.integers(0, 9))
def test_draw_takes_the_smallest_keys_of_a_plain_loop(weights: list[float], total: int, seed: int) -> None:
    ids = np.arange(len(weights)) * 7919
    keys = {}
    for row, (id_, weight) in enumerate(zip(ids, weights, strict=True)):
        hashed = int(priority(np.array([id_]), seed)[0])
        exponential = -math.log1p(-(hashed + 0.5) / 2**64)
        keys[row] = (exponential / weight if weight and exponential / weight < math.inf else math.inf, hashed)
    expected = set(sorted(keys, key=lambda row: keys[row])[:total])
    assert set(np.flatnonzero(draw(np.array(weights), ids, total, seed))) == expected


def test_larger_total_keeps_what_a_smaller_one_draws() -> None:
    weights = np.random.default_rng(0).random(500)
    smaller, larger = (draw(weights, np.arange(500), total) for total in (100, 101))
    assert larger[smaller].all()


def test_equal_weights_draw_by_priority_alone() -> None:
    ids = np.arange(300)
    first = np.argsort(priority(ids, 5))[:40]
    assert set(np.flatnonzero(draw(np.full(300, 0.2), ids, 40, 5))) == set(first)


def test_rows_without_values_come_last_by_priority() -> None:
    lists = pl.Series([["a"], [], ["a"], [], []], dtype=TEXTS)
    rows = pl.DataFrame({"id": range(5), "of": lists})
    empty = sorted([1, 3, 4], key=lambda id_: int(priority(np.array([id_]), 2)[0]))
    for total, expected in ((2, {0, 2}), (3, {0, 2, empty[0]}), (4, {0, 2, *empty[:2]}), (9, set(range(5)))):
        assert set(rows.filter(drawn_by_rarity(rows, "of", total, 2))["id"]) == expected


def test_chance_of_the_first_row_is_its_share_of_weight() -> None:
    """Over 4,000 seeds, by a chi-square of 3 degrees of freedom."""
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    drawn = sum(draw(weights, np.arange(4), 1, seed).astype(int) for seed in range(4000))
    expected = 4000 * weights / weights.sum()
    assert ((drawn - expected) ** 2 / expected).sum() < 16.3, "p = 0.001"


def test_chances_of_two_draws_are_those_of_one_by_one() -> None:
    weights = np.array([1.0, 2.0, 5.0])
    drawn = sum(draw(weights, np.arange(3), 2, seed).astype(int) for seed in range(4000))
    left_out = [  # the probability that a row is in neither draw
        sum(weights[one] / 8 * weights[other] / (8 - weights[one]) for one, other in ((a, b), (b, a)))
        for a, b in ((1, 2), (0, 2), (0, 1))
    ]
    assert drawn / 4000 == pytest.approx(1 - np.array(left_out), abs=0.03)


def test_values_of_a_heavy_tail_are_drawn_evenly() -> None:
    """2,000 of 40,000 rows, of which value r has a share of 1 / r: more diverse than any 2,000 rows."""
    dice = np.random.default_rng(0)
    shares = 1 / np.arange(1, 101)
    labels = dice.choice(100, 40_000, p=shares / shares.sum())
    rows = pl.DataFrame({"id": np.arange(40_000), "of": labels}).with_columns(pl.concat_list("of"))
    kept = labels[rows.select(passes=Rule("total", "of", 2000, of_lists=True).passes(rows))["passes"].to_numpy()]
    plain = effective_number(np.bincount(dice.choice(labels, 2000, replace=False)))
    assert effective_number(np.bincount(kept)) > 95 > plain + 40
