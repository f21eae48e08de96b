"""The measures of sampled frames equal their plain definitions, on whatever frames."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.frame_measures import Frame, FrameMeasures

SIZES = [(1, 1), (5, 40), (28, 28), (30, 61), (64, 90)]


@st.composite
def clips(draw: st.DrawFn) -> list[Frame]:
    """Dark frames in which rectangles are drawn anew: the picture grows to all sides, or the frame stays black."""
    height, width = draw(st.sampled_from(SIZES))
    frames = []
    for _ in range(draw(st.integers(1, 4))):
        frame = np.full((height, width, 3), draw(st.sampled_from([0, 0, 24, 31])), np.uint8)
        for _ in range(draw(st.integers(0, 2))):
            top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
            rows, columns = draw(st.integers(1, height)), draw(st.integers(1, width))
            channel = draw(st.integers(0, 2))
            frame[top : top + rows, left : left + columns, channel] = draw(st.sampled_from([1, 25, 32, 200, 255]))
        frames.append(frame)
    return frames


@given(clips())
def test_measures_equal_their_definitions(frames: list[Frame]) -> None:
    measures = FrameMeasures()
    for frame in frames:
        measures.add(frame)
    found = measures.result()
    pairs = [np.abs(b.astype(int) - a) for a, b in pairwise(frames)]
    motions = [pair.mean() for pair in pairs]
    assert found.motion == (pytest.approx(np.mean(motions)) if pairs else None)
    assert found.still_share == (pytest.approx(np.mean([motion <= 0.5 for motion in motions])) if pairs else None)
    assert found.kept_share == pytest.approx(np.mean([1.0, *map(kept, pairs)]))
    assert found.black_share == np.mean([(frame < 32).mean() >= 0.98 for frame in frames])
    assert found.border_share == pytest.approx(border(np.max(frames, axis=0)))


def kept(difference: np.ndarray) -> float:
    """Share of the tokens of 28 x 28 pixels whose mean is above 0.05 grey levels; at least one."""
    height, width = min(28, difference.shape[0]), min(28, difference.shape[1])
    means = [
        difference[top : top + height, left : left + width].mean()
        for top in range(0, difference.shape[0] - height + 1, height)
        for left in range(0, difference.shape[1] - width + 1, width)
    ]
    return max(1, len([mean for mean in means if mean > 0.05])) / len(means)


def border(brightest: Frame) -> float:
    """Share of the area outside of the rectangle around all values above 24."""
    rows, columns = np.nonzero((brightest > 24).any(axis=2))
    if not len(rows):
        return 1.0
    inside = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    return 1 - float(inside) / float(brightest[..., 0].size)
