"""Labelled images with a heavy tail: a balanced choice is more diverse than a random draw, and clusters are as pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.diversity import measure


@pytest.mark.thorough
def test_balance_raises_the_entropy_of_the_labels(photographs: list[Path]) -> None:
    measured = measure(photographs, 160)
    balanced, drawn = measured["label entropy, balanced (afk-mc2)"], measured["label entropy, random draw (nats)"]
    assert balanced > drawn + 0.15, f"{balanced:.2f} and {drawn:.2f} nats"
    assert measured["purity, ours (afk-mc2)"] > measured["purity, scikit-learn"] - 0.02
