"""Draw a training's loss curves as PNG and SVG, from its metrics.jsonl."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.training.metrics_log import ends, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WINDOW = 0.02  # share of a stage's steps that the thick line averages


def draw(folder: Path) -> None:
    """Write curves.png and curves.svg into a training's folder. Without steps or matplotlib, nothing is written.

    Each stage has a panel: the loss per learned token at each step (pale), its running mean over 2% of the steps, and
    the held-out loss of each source as dots. Titles give the mean loss of the first and of the last ten steps.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    records = read_metrics(folder)
    stages = list(dict.fromkeys(record["stage"] for record in records if record["kind"] == "step"))
    if not stages:
        return
    figure = Figure(figsize=(1 + 3.6 * len(stages), 3.8), layout="constrained")
    panels = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
    for panel, stage in zip(panels, stages, strict=True):
        _panel(panel, stage, [record for record in records if record["stage"] == stage])
    panels[0].set_ylabel("loss, nats per token")
    for kind in ("png", "svg"):
        aside = folder / f".curves.partial.{kind}"
        figure.savefig(aside, dpi=130, metadata={"Date": None} if kind == "svg" else None)
        figure.set_layout_engine("none")  # places are computed once: that takes half of the time
        os.replace(aside, folder / f"curves.{kind}")


def _panel(panel: Axes, stage: str, records: Sequence[dict[str, Any]]) -> None:
    done = [record for record in records if record["kind"] == "step"]
    steps, losses = [record["step"] for record in done], [record["loss"] for record in done]
    panel.plot(steps, losses, color="C0", alpha=0.25, linewidth=0.8)
    panel.plot(steps, _means(losses), color="C0", linewidth=1.6, label="trained on")
    looks = [record for record in records if record["kind"] == "held_out"]
    for number, name in enumerate(dict.fromkeys(name for look in looks for name in look["losses"]), 1):
        points = [(look["step"], look["losses"][name]) for look in looks if name in look["losses"]]
        panel.plot(
            *zip(*points, strict=True), "o-", color=f"C{number}", markersize=3, linewidth=0.8, label=f"held out: {name}"
        )
    begin, end = ends(losses)
    panel.set_title(f"{stage}: {begin:.2f} to {end:.3g}", fontsize=10)
    panel.set_xlabel("step")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.2)
    panel.legend(fontsize=8)


def _means(values: Sequence[float]) -> list[float]:
    """Return the running mean over the last `_WINDOW` of the values."""
    window = max(round(_WINDOW * len(values)), 1)
    return [sum(values[max(at - window, 0) : at]) / min(window, at) for at in range(1, len(values) + 1)]
