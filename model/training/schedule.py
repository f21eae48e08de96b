"""The learning rate over a stage, as a factor of its peak."""

from __future__ import annotations

import math


def factor(progress: float, warmup: float, kind: str) -> float:
    """The factor at a point of a stage, 0 to 1.

    Args:
        progress: Share of the stage that is done, 0 to 1; of a step, its middle, so that neither the first nor the
            last step is spent at a rate of 0.
        warmup: Share in which the factor rises from 0 to 1.
        kind: `cosine` (half a period, to 0), `linear` (to 0) or `constant`.
    """
    if progress < warmup:
        return progress / warmup
    rest = min((progress - warmup) / (1 - warmup), 1.0)
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    return 1.0 if kind == "constant" else 1 - rest
