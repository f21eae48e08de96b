"""Which sample comes when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training.data.sampler import MixtureSampler
from model.training.data.samples import Sample
from model.training.data.source import Source
from model.training.stage import Share


@dataclass
class Rows(Source):
    name: str
    blocks: Sequence[int]

    def sample(self, row: int) -> Sample:
        return Sample(f"{self.name} {row}", [])


def seen(order: MixtureSampler, count: int, start: int = 0) -> list[tuple[str, int]]:
    return [(order.sources[n].name, row) for n, row in map(order, range(start, start + count))]


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(0, 3),
    st.integers(1, 5),
    st.integers(0, 99),
)
def test_every_pass_has_each_training_row_once(blocks: list[int], held: int, window: int, seed: int) -> None:
    total = sum(blocks)
    held = min(held, total - 1)
    order = MixtureSampler([Rows("a", blocks)], {"a": Share(weight=1)}, {"a": held}, seed, window=window)
    rows = total - held
    for number in range(3):
        assert len({row for _, row in seen(order, rows, number * rows)}) == rows
    assert not {row for _, row in seen(order, 3 * rows)} & set(order.source_orders[0].held_out.tolist())


def test_every_epoch_keeps_the_mixture_and_carries_leftovers() -> None:
    sources = [Rows("a", [10] * 10), Rows("b", [7] * 3)]
    order = MixtureSampler(sources, {"a": Share(weight=0.3), "b": Share(samples=50)}, {}, 1)
    assert order.epoch_length == 80
    for epoch in range(5):
        counts = Counter(name for name, _ in seen(order, 80, epoch * 80))
        assert counts == {"a": 30, "b": 50}
    first = [row for name, row in seen(order, 80 * 4) if name == "a"]
    assert len(set(first[:100])) == 100  # 30 a time, but nothing twice before everything once
    repeats = Counter(row for name, row in seen(order, 80) if name == "b")
    assert set(repeats.values()) <= {2, 3}


def test_neighbouring_rows_lie_in_few_blocks() -> None:
    order = MixtureSampler([Rows("a", [10] * 50)], {"a": Share(weight=1)}, {}, 0, window=4)
    for at in range(0, 480, 40):
        assert len({row // 10 for _, row in seen(order, 40, at)}) == 4


def test_order_is_a_function_of_seed_and_index() -> None:
    def fresh(seed: int) -> MixtureSampler:
        return MixtureSampler(
            [Rows("a", [8] * 9), Rows("b", [5] * 4)], {"a": Share(weight=1), "b": Share(weight=2)}, {}, seed
        )

    whole = seen(fresh(5), 300)
    jumping = fresh(5)
    order = np.random.default_rng(0).permutation(300)
    assert [(jumping.sources[n].name, row) for n, row in map(jumping, order.tolist())] == [whole[i] for i in order]
    assert seen(fresh(6), 300) != whole


def test_held_out_rows_are_the_same_in_every_stage() -> None:
    chosen = [
        MixtureSampler([Rows("a", [9] * 9)], {"a": Share(weight=1)}, {"a": 7}, seed, held_out_seed=42)
        .source_orders[0]
        .held_out
        for seed in (1, 2)
    ]
    assert (chosen[0] == chosen[1]).all()
    with pytest.raises(ValueError, match="9 samples, 9 held out: nothing is left"):
        MixtureSampler([Rows("a", [9])], {"a": Share(weight=1)}, {"a": 9}, 0)


def test_both_captions_of_a_dataset_hold_out_the_same_images() -> None:
    shares = {"short": Share(weight=1), "detailed": Share(weight=1)}
    order = MixtureSampler([Rows("short", [9] * 9), Rows("detailed", [9] * 9)], shares, dict.fromkeys(shares, 7), 1, 42)
    assert (order.source_orders[0].held_out == order.source_orders[1].held_out).all()
    assert [order.source_orders[0].row(n) for n in range(50)] != [order.source_orders[1].row(n) for n in range(50)]


@settings(max_examples=30)
@given(st.integers(0, 12_000), st.integers(1, 5000), st.integers(1, 30))
def test_counts_before_an_index_are_those_of_the_order(index: int, many: int, few: int) -> None:
    sources = [Rows("a", [50]), Rows("b", [7])]
    order = MixtureSampler(sources, {"a": Share(samples=many), "b": Share(samples=few)}, {}, 1)
    index %= 3 * order.epoch_length
    counts = Counter(order(each)[0] for each in range(index))
    assert order.counts_before(index) == [counts[0], counts[1]]
