"""Means over seeds with intervals of Student's t, and differences between arms that share their seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds.

    Attributes:
        mean: The mean.
        half: Half the width of its 95 % interval, in the unit of the mean; None of a single seed.
    """

    mean: float
    half: float | None

    def text(self, digits: int = 3, sign: bool = False) -> str:
        """Return `0.312 ± 0.015`, or the mean alone. `sign`: with a plus before positive means."""
        mean = f"{self.mean:{'+' if sign else ''}.{digits}f}".replace("-", "−")
        return mean if self.half is None else f"{mean} ± {self.half:.{digits}f}"

    def verdict(self, digits: int = 3) -> str | None:
        """Return what a difference of losses shows: `lower`, `higher` or `not told apart`; None of a single seed.

        A difference that is 0 in so many digits is rounding, whatever its interval.
        """
        if self.half is None:
            return None
        if abs(self.mean) <= self.half or round(self.mean, digits) == 0:
            return "not told apart"
        return "higher" if self.mean > 0 else "lower"


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of one value per seed and its interval: t(n - 1) × standard deviation / √n.

    Raises:
        ValueError: There are no values, or one is no number.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"no mean of {list(values)}")
    if len(values) == 1:
        return Interval(values[0], None)
    from scipy.stats import t

    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return Interval(statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values)))


def difference(values: Sequence[float], reference: Sequence[float]) -> Interval:
    """Return the mean difference to a reference, seed by seed: both arms of a seed have one pool and one new model.

    Raises:
        ValueError: They are not of the same seeds.
    """
    return interval([value - other for value, other in zip(values, reference, strict=True)])


def mean_rank(losses: Sequence[Sequence[float]]) -> float:
    """Return the mean rank of the right caption, from 1, among all captions by their losses on each image.

    Captions of equal loss share the mean of their ranks.

    Args:
        losses: (images, captions); the right caption of image i is caption i.
    """
    ranks = [
        1 + sum(loss < row[right] for loss in row) + (sum(loss == row[right] for loss in row) - 1) / 2
        for right, row in enumerate(losses)
    ]
    return statistics.fmean(ranks)


def effective_number(counts: Sequence[int]) -> float:
    """Return exp(entropy) of frequencies: how many equally frequent objects are as diverse."""
    total = sum(counts)
    return math.exp(-sum(count / total * math.log(count / total) for count in counts if count))
