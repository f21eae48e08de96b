"""Labelled vectors with a heavy tail: a draw by concepts is more diverse than a random one, and exact."""

from __future__ import annotations

import pytest

from benchmarks import concepts


def test_draw_by_concepts_raises_the_label_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concepts, "VECTORS", 4000)
    monkeypatch.setattr(concepts, "LABELS", 80)
    measured = concepts.measure(concepts.vector_pool, 1)
    for share in concepts.SHARES:
        drawn = measured[share, concepts.RANDOM]
        assert measured[share, "concepts, the nearest 1"] > drawn + 0.6
        assert measured[share, "concepts, the nearest 3"] > drawn + 0.25
        assert measured[share, "clusters, as many as labels"] > drawn + 0.25
