"""Balanced sampling: exact totals, nobody above another that has rows left, the same rows in any order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.balance import even_quotas, nested_quotas, select, stratum_positions
from manifests.priorities import name_priority, priority

SIZES = st.one_of(
    st.lists(st.integers(0, 30), max_size=60),
    st.lists(st.integers(0, 5).map(lambda power: 10**power), max_size=40),  # heavy tails
    st.lists(st.just(7), max_size=50),
)


OUTPUTS = {
    0: (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F),
    1234567: (
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ),
}


@pytest.mark.parametrize("state", OUTPUTS)
def test_priority_equals_splitmix64(state: int) -> None:
    """The reference implementation's first outputs for two states."""
    priorities = [int(priority(np.array([state]), seed)[0]) for seed in range(len(OUTPUTS[state]))]
    assert priorities == list(OUTPUTS[state])


def test_draw_by_priority_is_independent_of_the_id() -> None:
    ids = np.arange(200_000)
    drawn = priority(ids) < np.uint64(1 << 63)
    for share in (drawn.mean(), drawn[::2].mean(), drawn[: len(ids) // 2].mean(), drawn[1:][drawn[:-1]].mean()):
        assert share == pytest.approx(0.5, abs=0.01)
    assert (priority(ids, 1) < np.uint64(1 << 63))[drawn].mean() == pytest.approx(0.5, abs=0.01)


def test_groups_are_hashed_by_names_of_any_type() -> None:
    for names in (pl.Series(["a", "b", "é"]), pl.Series([-5, 0, 7]), pl.Series([True, False])):
        hashes = name_priority(names, 3)
        assert len(set(hashes.tolist())) == names.len()
        assert name_priority(names.reverse(), 3).tolist() == hashes[::-1].tolist()
        assert name_priority(names, 4).tolist() != hashes.tolist()


@settings(max_examples=200)
@given(sizes=SIZES, total=st.one_of(st.integers(0, 2000), st.integers(0, 10**7)))
def test_total_is_reached_exactly_with_even_groups(sizes: list[int], total: int) -> None:
    have = np.array(sizes, np.int64)
    kept = even_quotas(have, total, priority(np.arange(len(sizes))))
    assert kept.sum() == min(total, have.sum())
    assert ((kept >= 0) & (kept <= have)).all()
    short = kept[kept < have]
    if len(short):
        assert kept.max() <= short.min() + 1, "at most one more, and that is the remainder"
        cap = short.min()
        assert (kept[have <= cap] == have[have <= cap]).all()


def test_remainder_is_shared_by_the_hash_of_the_groups() -> None:
    have = np.full(10, 5)
    first = priority(np.arange(10), 9)
    kept = even_quotas(have, 33, first)
    assert set(np.flatnonzero(kept == 4)) == set(np.argsort(first)[:3])


@settings(max_examples=150)
@given(
    leaves=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5)), min_size=1, max_size=25),
    middles=st.lists(st.integers(0, 2), min_size=6, max_size=6),
    total=st.integers(0, 200),
)
def test_hierarchy_is_filled_from_the_top(leaves: list[tuple[int, int]], middles: list[int], total: int) -> None:
    have, parent = np.array([s for s, _ in leaves]), np.array([p for _, p in leaves])
    hashes = [priority(np.arange(n), 5) for n in (len(leaves), 6, 3)]
    kept = nested_quotas(have, [parent, np.array(middles)], total, hashes)
    assert kept.tolist() == plainly_nested(have, [parent, np.array(middles)], total, hashes)
    assert kept.sum() == min(total, have.sum())


def plainly_nested(have: Any, parents: Sequence[Any], total: int, hashes: Sequence[Any]) -> list[int]:
    """One level after the other, node by node, one row a turn."""
    if not parents:
        return plainly(have.tolist(), total, hashes[0].tolist())
    above = [int(have[parents[0] == p].sum()) for p in range(len(hashes[1]))]
    quotas = plainly_nested(np.array(above), parents[1:], total, hashes[1:])
    kept = [0] * len(have)
    for p, quota in enumerate(quotas):
        children = np.flatnonzero(parents[0] == p)
        for child, share in zip(
            children, plainly(have[children].tolist(), quota, hashes[0][children].tolist()), strict=True
        ):
            kept[child] = share
    return kept


def plainly(have: list[int], total: int, first: list[int]) -> list[int]:
    kept = [0] * len(have)
    while sum(kept) < min(total, sum(have)):
        for group in sorted(range(len(have)), key=lambda g: first[g]):
            if kept[group] < have[group] and kept[group] == min(k for k, h in zip(kept, have, strict=True) if k < h):
                kept[group] += 1
                break
    return kept


NUMBERS = {
    "none": st.none(),
    "float32": st.one_of(st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf]), st.floats(-2, 2, width=32)),
    "float64": st.one_of(st.sampled_from([0.0, -0.0, math.nan]), st.floats(-1e300, 1e300)),
    "int32": st.integers(-3, 3),
    "int64": st.one_of(st.integers(0, 9), st.integers(-(2**63), 2**63 - 1)),  # few that tie, beside one far away
    "uint64": st.one_of(st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1)),
}


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(list(NUMBERS)))
    count = draw(st.integers(1, 2 ** draw(st.integers(0, 18))))
    used = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=4))  # few of many, so that quotas bite
    size = draw(st.sampled_from([0, 1, 15, 40]))
    rows = draw(st.lists(st.tuples(st.sampled_from(used), NUMBERS[kind]), min_size=size // 2, max_size=size))
    quotas = draw(st.lists(st.integers(0, 6), min_size=1, max_size=7))
    order = None if kind == "none" else np.array([value for _, value in rows], kind)
    ids = np.array([(n * 7919 - 5) * 10**12 for n in range(len(rows))], np.int64)
    quota = np.resize(np.array(quotas, np.int64), count)
    return {"groups": np.array([g for g, _ in rows], np.int64), "order": order, "ids": ids, "quotas": quota}


def plain_choice(groups: Any, order: Any, ids: Any, quotas: Any, seed: int) -> set[int]:
    """A sort per group."""
    first = priority(ids, seed)

    def sort_key(row: int) -> tuple[Any, ...]:
        value = 0.0 if order is None else order[row]
        return (bool(np.isnan(value)), 0.0 if np.isnan(value) else value, first[row])

    chosen: set[int] = set()
    for group in set(groups.tolist()):
        rows = sorted(np.flatnonzero(groups == group).tolist(), key=sort_key)
        chosen |= {int(ids[row]) for row in rows[: quotas[group]]}
    return chosen


@settings(max_examples=300)
@given(world=worlds(), seed=st.integers(0, 3), shuffled=st.randoms(use_true_random=False))
def test_choice_equals_a_sort_per_group_in_any_row_order(world: dict[str, Any], seed: int, shuffled: Any) -> None:
    expected = plain_choice(**world, seed=seed)
    assert set(world["ids"][select(**world, seed=seed)].tolist()) == expected
    turned = list(range(len(world["ids"])))
    shuffled.shuffle(turned)
    again = {n: v if v is None or n == "quotas" else v[turned] for n, v in world.items()}
    assert set(again["ids"][select(**again, seed=seed)].tolist()) == expected


def test_tied_rows_are_chosen_by_their_hash() -> None:
    ids, groups = np.arange(50_000), np.arange(50_000) % 7
    for order in (np.zeros(50_000, np.float32), np.full(50_000, np.nan), None):
        chosen = select(groups, order, ids, np.full(7, 100))
        assert np.bincount(groups[chosen]).tolist() == [100] * 7
        members = np.flatnonzero(groups == 3)
        assert set(ids[chosen & (groups == 3)]) == set(members[np.argsort(priority(members))[:100]])


@pytest.mark.parametrize("far", [2**62, -(2**63)])
def test_order_with_an_outlier_is_followed_exactly(far: int) -> None:
    """One value far from all others: the rest differ only in bits that the key has no room for, and tie there."""
    count = 5000
    groups, order = np.arange(count) % 7, np.arange(count) // 7 % 5
    order[0] = far
    ids, quotas = np.arange(count), np.array([0, 1, 300, 301, 500, 714, 9999])
    chosen = select(groups, order, ids, quotas, 2)
    assert set(ids[chosen].tolist()) == plain_choice(groups, order, ids, quotas, 2)


def test_select_handles_more_groups_than_rows() -> None:
    ids = np.arange(3000)
    for groups in (ids[::-1].copy(), np.random.default_rng(0).integers(0, 9000, 3000)):
        quotas = np.resize([1, 0, 2], 9000)
        for order in (None, np.zeros(3000), -ids):
            chosen = select(groups, order, ids, quotas)
            assert set(ids[chosen].tolist()) == plain_choice(groups, order, ids, quotas, 0)


@settings(max_examples=100)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=60),
    seed=st.integers(0, 3),
    shuffled=st.randoms(use_true_random=False),
)
def test_turn_is_the_rank_in_the_stratum_by_priority(rows: list[tuple[int, int]], seed: int, shuffled: Any) -> None:
    ids = {n * 7919 - 5: row for n, row in enumerate(rows)}
    first = dict(zip(ids, priority(np.array(list(ids), np.int64), seed).tolist(), strict=True))
    expected = {n: sum(first[m] < first[n] for m in ids if ids[m] == ids[n]) for n in ids}
    names = list(ids)
    shuffled.shuffle(names)
    groups, strata = (np.array([ids[n][column] for n in names], np.int64) for column in (0, 1))
    assert stratum_positions(groups, strata, np.array(names, np.int64), seed).tolist() == [expected[n] for n in names]


def test_turns_of_rows_with_equal_keys_follow_the_whole_hash() -> None:
    """So many groups and strata that the key has room for few bits of the priority."""
    ids = np.arange(20_000)
    groups, strata = np.where(ids == 0, 2**30, 1), np.where(ids == 1, 2**28, 0)
    result = stratum_positions(groups, strata, ids)
    rest = ids[2:]
    assert result[rest[np.argsort(priority(rest))]].tolist() == list(range(len(rest)))


def test_grown_pool_changes_the_choice_only_at_its_edge() -> None:
    dice = np.random.default_rng(0)
    ids, groups = dice.permutation(20_000), dice.integers(0, 50, 20_000)
    quotas = np.full(50, 60)
    before = set(ids[:10_000][select(groups[:10_000], None, ids[:10_000], quotas)])
    after = set(ids[select(groups, None, ids, quotas)])
    assert after & set(ids[:10_000]) <= before, "nothing that was left out comes in as others come"
    # a balanced total over the grown pool: the same rows, less what the new ones take
    total = [
        even_quotas(np.bincount(groups[:n], minlength=50), 3000, priority(np.arange(50))) for n in (10_000, 11_000)
    ]
    kept = [
        set(ids[:n][select(groups[:n], None, ids[:n], quota)]) for n, quota in zip((10_000, 11_000), total, strict=True)
    ]
    assert len(kept[0] & kept[1]) > 3000 * 0.88, "a tenth more rows takes about a tenth of the places"
