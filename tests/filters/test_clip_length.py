"""Length of clips: known answers, and values that a threshold can be set at."""

from __future__ import annotations

import pyarrow as pa
import pytest

from core.film_pieces import PieceSettings, pieces
from filters.clip_length import ClipLength


def test_length_and_trimmed_seconds_of_known_clips_are_right() -> None:
    stage = ClipLength()
    clips = {
        "start": [0.0, 1.6, 5.0, None],
        "end": [60.0, 3.6, 5.0, 2.0],
        "scene_start": [0.0, 1.1, 4.7, 0.0],
        "scene_end": [60.0, 4.1, 5.3, 2.0],
    }
    facts = stage(pa.table({name: pa.array(values, pa.float64()) for name, values in clips.items()}))
    assert facts.schema.equals(stage.writes, check_metadata=True)
    # 3.6 - 1.6 is a little above 2, and 4.1 - 1.1 a little below 3.
    assert facts["seconds"].to_pylist() == [60.0, 2.0, 0.0, None]
    assert facts["trimmed"].to_pylist() == [0.0, 1.0, pytest.approx(0.6), None]


def test_pieces_of_a_film_add_up_to_its_length() -> None:
    found = pieces(200.04, [12.4, 100.0], [9.0, 30.0], [], PieceSettings(trim=0.2))
    columns = {name: [getattr(piece, name) for piece in found] for name in ClipLength().reads}
    facts = ClipLength()(pa.table(columns))
    assert sum(facts["seconds"].to_pylist()) + sum(facts["trimmed"].to_pylist()) == pytest.approx(200.04, abs=1e-3)
    assert all(seconds <= 60 for seconds in facts["seconds"].to_pylist())
