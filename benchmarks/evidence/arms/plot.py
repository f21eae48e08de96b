"""The losses of the arms as a picture: a dot for each seed, the mean and its 95 % interval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .statistics import interval
from .table import LABELS


def plot(results: Mapping[str, Any], file: Path) -> None:
    """Draw the losses of all arms; the file's ending decides the format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    arms = list(results["arms"])
    for row, arm in enumerate(arms):
        losses = [seed["loss"] for seed in results["arms"][arm]]
        mean = interval(losses)
        axes.errorbar(mean.mean, row, xerr=mean.half or 0, fmt="o", color="#204a87", capsize=4)
        axes.plot(losses, [row + 0.18] * len(losses), ".", color="#888a85")
    axes.set_yticks(range(len(arms)), [LABELS[arm] for arm in arms])
    axes.invert_yaxis()
    axes.set_xlabel("loss on clean held-out captions, nats per token (95 % interval)")
    figure.savefig(file)
