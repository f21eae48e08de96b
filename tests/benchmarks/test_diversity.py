"""Labelled images with a heavy tail: a balanced choice is more diverse than a random draw, and clusters are as pure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_balance_raises_the_entropy_of_the_labels(monkeypatch: pytest.MonkeyPatch, photographs: list[Path]) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from benchmarks.diversity import measure

    told = measure(photographs, 160)
    balanced, drawn = told["label entropy, balanced (afk-mc2)"], told["label entropy, random draw (nats)"]
    assert balanced > drawn + 0.15, f"{balanced:.2f} and {drawn:.2f} nats"
    assert told["purity, ours (afk-mc2)"] > told["purity, scikit-learn"] - 0.02
