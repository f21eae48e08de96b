"""The learning rate schedule of a stage, as a factor of the peak rate."""

from __future__ import annotations

import math


def factor(progress: float, warmup: float, kind: str) -> float:
    """Return the factor of the peak learning rate, 0 to 1, at a point of a stage.

    Args:
        progress: Share of the stage that is done, 0 to 1. Pass the middle of a step, so that neither the first nor the
            last step has a rate of 0.
        warmup: Share of the stage in which the factor rises from 0 to 1.
        kind: `cosine` (half a period, to 0), `linear` (to 0) or `constant`.
    """
    if progress < warmup:
        return progress / warmup
    rest = min((progress - warmup) / (1 - warmup), 1.0)
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    return 1.0 if kind == "constant" else 1 - rest
