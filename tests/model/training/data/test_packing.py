from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.training.data.packing import Packer, Row
from tests.model.training.training_data import lengths


@dataclass(frozen=True)
class Piece:
    tokens: int
    patches: int
    number: int


def packed(pieces: list[Piece], tokens: int, patches: int) -> list[Row[Piece]]:
    packer: Packer[Piece] = Packer(tokens, patches)
    rows = []
    for piece in pieces:
        if done := packer.add(piece):
            rows.append(done)
        assert len(packer.open) <= 8
    return [*rows, *packer.flush()]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 90))), st.integers(50, 120))
def test_every_sample_is_in_one_row_within_the_budgets(sizes: list[tuple[int, int]], tokens: int) -> None:
    pieces = [Piece(*size, number) for number, size in enumerate(sizes)]
    rows = packed(pieces, tokens, 100)
    assert Counter(piece for row in rows for piece in row.samples) == Counter(pieces)
    for row in rows:
        assert row.tokens == sum(p.tokens for p in row.samples) <= tokens
        assert row.patches == sum(p.patches for p in row.samples) <= 100


@pytest.mark.parametrize("budget", [4096, 16384])
def test_realistic_mixture_fills_rows(budget: int) -> None:
    sizes = lengths(0, 6000).tolist()
    rows = packed([Piece(size, 0, number) for number, size in enumerate(sizes)], budget, 1)[:-8]
    assert sum(row.tokens for row in rows) / (len(rows) * budget) >= 0.98
