"""Pieces of films: the whole film in order, by cuts that count, with ends where packets can be cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.film_pieces import Piece, PieceSettings, milliseconds, pieces, select_cuts
from core.settings import parse

SECONDS = st.floats(0, 300)
CUTS = st.lists(st.tuples(SECONDS, st.floats(2, 100)), max_size=40)
SETTINGS = st.builds(
    PieceSettings,
    min_score=st.floats(2, 100),
    min_gap=st.floats(0, 5),
    longest=st.floats(1, 90),
    trim=st.floats(0, 5),
    snap=st.sampled_from(["none", "key"]),
)


def spans(length: float, cuts: dict[float, float], keys: tuple[float, ...] = (), **settings: object) -> list[Piece]:
    return list(pieces(length, list(cuts), list(cuts.values()), keys, PieceSettings.model_validate(settings)))


def bounds(found: list[Piece]) -> list[tuple[float, float]]:
    return [(piece.start, piece.end) for piece in found]


@given(st.floats(0.001, 300), CUTS, st.lists(SECONDS, max_size=20), SETTINGS)
def test_pieces_are_the_whole_film_in_order(
    length: float, cuts: list[tuple[float, float]], keys: list[float], settings: PieceSettings
) -> None:
    times, scores = [time for time, _ in cuts], [score for _, score in cuts]
    found = pieces(length, times, scores, keys, settings)
    assert found[0].scene_start == 0
    assert found[-1].scene_end == milliseconds(length) / 1000
    assert all(before.scene_end == after.scene_start for before, after in pairwise(found))
    for piece in found:
        assert piece.scene_start < piece.scene_end
        assert piece.scene_start <= piece.start <= piece.end <= piece.scene_end
        assert piece.scene_end - piece.scene_start <= settings.longest + 1e-9
        times_ms = [1000 * time for time in (piece.scene_start, piece.scene_end, piece.start, piece.end)]
        assert all(abs(time - round(time)) < 1e-6 for time in times_ms)
    assert found == pieces(length, times[::-1], scores[::-1], keys[::-1], settings)


@given(CUTS, st.floats(2, 100), st.floats(0, 5), st.floats(0, 50))
def test_higher_min_score_never_adds_cuts(
    cuts: list[tuple[float, float]], min_score: float, min_gap: float, more: float
) -> None:
    times, scores = [time for time, _ in cuts], [score for _, score in cuts]
    many, few = (set(select_cuts(times, scores, lowest, min_gap)) for lowest in (min_score, min_score + more))
    assert few <= many
    assert all(after - before >= min_gap - 1e-9 for before, after in pairwise(sorted(many)))


def test_of_near_cuts_the_one_with_the_higher_score_counts() -> None:
    cuts = {1.0: 5.0, 1.4: 9.0, 1.9: 6.0, 2.0: 7.0, 2.5: 3.9}
    assert select_cuts(list(cuts), list(cuts.values()), 4, 0.6) == (1.4, 2.0)
    assert select_cuts(list(cuts), list(cuts.values()), 2, 0) == (1.0, 1.4, 1.9, 2.0, 2.5)
    assert bounds(spans(3, cuts)) == [(0, 1.4), (1.4, 2.0), (2.0, 3)]


def test_cuts_at_the_ends_of_a_film_make_no_empty_piece() -> None:
    assert bounds(spans(5, {0.0: 50, 5.0: 50, 7.0: 50})) == [(0, 5)]
    assert spans(0, {0.0: 50}) == []


def test_long_scene_is_divided_into_equal_parts() -> None:
    assert bounds(spans(130, {10.0: 50})) == [(0, 10), (10, 70), (70, 130)]
    assert bounds(spans(10.001, {}, longest=5)) == [(0, 3.333), (3.333, 6.667), (6.667, 10.001)]


def test_trim_leaves_out_both_ends_of_each_piece() -> None:
    found = spans(20, {8.0: 50, 8.7: 50}, trim=0.5)
    assert bounds(found) == [(0.5, 7.5), (8.35, 8.35), (9.2, 19.5)]
    assert [(piece.scene_start, piece.scene_end) for piece in found] == [(0, 8), (8, 8.7), (8.7, 20)]


def test_snap_moves_both_ends_inwards_to_key_frames() -> None:
    keys = (0.0, 3.0, 6.0, 9.0)
    # The last piece has a key frame to start at, and the film's end to end at; the third has none.
    found = spans(10, {2.0: 50, 7.0: 50, 8.5: 50}, keys, snap="key")
    assert bounds(found) == [(0, 0), (3, 6), (7, 7), (9, 10)]
    assert bounds(spans(10, {}, keys, snap="key", trim=0.5)) == [(3, 9)]
    assert bounds(spans(10, {}, (), snap="key")) == [(0, 0)]


def test_times_are_rounded_up_to_milliseconds() -> None:
    """So the frame on display when a piece starts is the first of its scene."""
    assert [milliseconds(time) for time in (0, 1.001, 0.04, 1001 / 24000, 1 / 3)] == [0, 1001, 40, 42, 334]
    assert bounds(spans(1, {1 / 3: 50})) == [(0, 0.334), (0.334, 1)]


@pytest.mark.parametrize(
    "wrong", [{"min_score": 1.9}, {"longest": 0.5}, {"trim": -1}, {"snap": "keys"}, {"min_gap": float("nan")}], ids=str
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"clips: {next(iter(wrong))}: Input should be"):
        parse(PieceSettings, wrong, "clips")
