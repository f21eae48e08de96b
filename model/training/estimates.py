"""Totals of a stage with 95 % confidence intervals, from random samples of its sources.

Normal approximation: 1.96 standard errors of the sources' means, stratified by source, with the correction for a finite
source: a source that is measured whole has none. The number of samples of a stage of `epochs` is known. That of a stage
of `steps` is the budget of its rows over the mean of what fills them, so totals are ratios; their standard errors are
those of the residuals (Cochran, Sampling Techniques, 1977, section 6.4), and how full the rows are is uncertain, too.
Counts of rare samples, such as skipped ones, have Wilson's interval, which is not empty when none was found.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.96
"""Standard errors on each side of an interval of 95 %."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % confidence interval; of an exact one, all three are the same."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Estimate:
        """Return an exact number."""
        return cls(value, value, value)

    @classmethod
    def around(cls, value: float, half: float) -> Estimate:
        """Return a number of at least 0 with an interval of `half` on each side."""
        return cls(value, max(value - half, 0.0), value + half)

    @property
    def exact(self) -> bool:
        """Whether the interval is empty."""
        return self.low == self.high

    def down_to(self, low: float) -> Estimate:
        """Return it with an interval that begins at `low`, or before; at 0 at the least."""
        return Estimate(self.value, max(min(self.low, low), 0.0), self.high)

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def wilson(value: float, count: float, found: int, measured: int) -> Estimate:
    """Return a number of samples, of which `found` of `measured` were found, with Wilson's interval.

    Args:
        value: The estimated number.
        count: The number of all samples.
        found: Number of those among the measured ones.
        measured: Number of measured samples, at least 1.
    """
    share, z = found / measured, Z**2 / measured
    middle = (share + z / 2) / (1 + z)
    half = math.sqrt(share * (1 - share) * z + z**2 / 4) / (1 + z)
    low, high = max(middle - half, 0.0) * count, (middle + half) * count
    return Estimate(value, min(low, value), max(high, value))


def as_uncertain(rows: float, filling: Estimate, packing_error: float) -> Estimate:
    """Return a number of rows with its interval.

    Args:
        rows: The number.
        filling: Total of what fills them.
        packing_error: Relative half interval of how full they are.
    """
    below, above = (abs(end / max(filling.value, 1.0) - 1) for end in (filling.low, filling.high))
    low, high = (math.hypot(spread, packing_error) for spread in (below, above))
    return Estimate(rows, max(rows * (1 - low), 0.0), rows * (1 + high))


@dataclass(frozen=True, eq=False)
class Strata:
    """The measured samples of a stage's sources.

    Attributes:
        counts: Number of samples of each source in the stage.
        measured: Per source, the quantities of its measured samples (n, Q).
        distinct: Number of different samples of each source in the stage.
        budget: Column of the quantity that fills the rows, if the stage's length is set in steps. None: in epochs.
        packing: Relative half interval of what the packing of other samples would change; 0 in a stage of epochs.
    """

    counts: Sequence[float]
    measured: Sequence[Matrix]
    distinct: Sequence[int]
    budget: int | None
    packing: float = 0.0

    def half(self, quantity: int, sources: Collection[int]) -> float:
        """Return half of the interval of a quantity's total over some sources, given by number.

        Args:
            quantity: Column of the matrices.
            sources: Numbers of the sources.
        """
        total = sum(self.counts)
        if not total:
            return 0.0
        shares = [count / total for count in self.counts]
        values = [matrix[:, quantity] * (t in sources) for t, matrix in enumerate(self.measured)]
        if self.budget is not None:
            fills = [matrix[:, self.budget] for matrix in self.measured]
            mean = _mean(values, shares) / max(_mean(fills, shares), 1e-12)
            values = [value - mean * fill for value, fill in zip(values, fills, strict=True)]
        variance = 0.0
        for share, value, distinct in zip(shares, values, self.distinct, strict=True):
            if share and len(value) < distinct:
                spread = float(value.var(ddof=1)) if len(value) > 1 else float(value[0]) ** 2
                variance += share**2 * spread / len(value) * (1 - len(value) / distinct)
        return Z * total * math.sqrt(variance)


def _mean(values: Sequence[NDArray[np.float64]], shares: Sequence[float]) -> float:
    """Return the mean over samples of all sources."""
    return sum(share * float(value.mean()) for value, share in zip(values, shares, strict=True) if share)
