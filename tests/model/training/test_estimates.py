"""Intervals of totals, against draws whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from model.training.estimates import Estimate, Strata, as_uncertain, wilson


def coverage(budget: int | None) -> float:
    """The share of 400 samples of two sources whose interval holds the true total of quantity 1.

    By epochs: the sum over all. By steps: as many samples as fill a budget of 10,000 of quantity 0.
    """
    dice = np.random.default_rng(0)
    people = [
        np.column_stack([fill, fill * 0.5 + dice.normal(0, 5, len(fill))])
        for fill in (dice.gamma(9, 5, 900), dice.gamma(4, 40, 300))
    ]
    everybody = np.concatenate(people)
    filled = 10_000 / everybody[:, 0].mean()
    truth = everybody[:, 1].sum() if budget is None else filled * everybody[:, 1].mean()
    held = 0
    for _ in range(400):
        samples = [one[dice.choice(len(one), 60, replace=False)] for one in people]
        means = np.array([sample.mean(0) for sample in samples])
        mixed = np.array([0.75, 0.25]) @ means
        total = 1200.0 if budget is None else 10_000 / mixed[0]
        strata = Strata([0.75 * total, 0.25 * total], samples, [900, 300], budget)
        held += abs(total * mixed[1] - truth) <= strata.half(1, [0, 1])
    return held / 400


@pytest.mark.parametrize("budget", [None, 0], ids=["epochs", "steps"])
def test_interval_holds_the_truth_in_95_of_100_samples(budget: int | None) -> None:
    assert 0.92 <= coverage(budget) <= 0.975


def test_source_that_is_measured_whole_adds_no_error() -> None:
    sample = np.arange(10.0)[:, None]
    assert Strata([10], [sample], [10], None).half(0, [0]) == 0
    assert Strata([10], [sample], [11], None).half(0, [0]) > 0


def test_what_fills_the_rows_is_certain_in_a_stage_of_steps() -> None:
    sample = np.random.default_rng(0).uniform(1, 9, (20, 1))
    assert Strata([50], [sample], [1000], 0).half(0, [0]) == pytest.approx(0, abs=1e-9)
    assert Strata([50], [sample], [1000], None).half(0, [0]) > 1


def test_wilson_interval_of_none_found_is_not_empty() -> None:
    estimate = wilson(0, 1000, found=0, measured=200)
    assert (estimate.value, estimate.low) == (0, 0)
    assert estimate.high == pytest.approx(18.8, abs=0.1)  # 1000 x 1.96^2 / (200 + 1.96^2)


def test_estimates_scale_and_stay_above_zero() -> None:
    assert Estimate.around(1, 3) == Estimate(1, 0, 4)
    assert Estimate(2, 1, 3) * 2 == Estimate(4, 2, 6)
    assert Estimate.exactly(5).exact
    assert Estimate(5, 4, 6).down_to(2) == Estimate(5, 2, 6)
    assert Estimate(5, 4, 6).down_to(4.5) == Estimate(5, 4, 6)
    assert Estimate(5, 4, 6).down_to(-1) == Estimate(5, 0, 6)


def test_rows_are_as_uncertain_as_what_fills_them() -> None:
    rows = as_uncertain(10, Estimate(1000, 600, 1300), packing_error=0.4)
    assert (rows.value, rows.low, rows.high) == pytest.approx((10, 10 * (1 - 0.32**0.5), 15))
    assert as_uncertain(10, Estimate(1000, 100, 1300), packing_error=0.9).low == 0
