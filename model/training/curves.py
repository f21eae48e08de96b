"""Loss curves of a training as PNG and SVG, out of its metrics.jsonl."""

from __future__ import annotations

from pathlib import Path


def draw(folder: Path) -> None:
    """Write curves.png and curves.svg into a training's folder."""
