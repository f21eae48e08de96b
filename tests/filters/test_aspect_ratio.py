"""Aspect ratio: known answers, both ways round, far beyond 32 bits."""

from __future__ import annotations

import pyarrow as pa

from filters.aspect_ratio import AspectRatio


def test_aspect_ratio_of_known_sizes_is_right() -> None:
    stage = AspectRatio()
    sizes = pa.table(
        {
            "width": pa.array([100, 400, 1, 2**31 - 1], pa.int32()),
            "height": pa.array([400, 100, 1, 2**31 - 1], pa.int32()),
        }
    )
    facts = stage(sizes)
    assert facts.schema.equals(stage.writes)
    assert facts.to_pydict() == {
        "aspect_ratio": [4.0, 4.0, 1.0, 1.0],
        "side": [100, 100, 1, 2**31 - 1],
        "pixels": [40_000, 40_000, 1, (2**31 - 1) ** 2],
    }


def test_unknown_size_gives_no_values_and_no_error() -> None:
    sizes = {"width": pa.array([None, 400, None, 30], pa.int32()), "height": pa.array([None, 100, 5, None], pa.int32())}
    facts = AspectRatio()(pa.table(sizes))
    assert facts.to_pydict() == {
        "aspect_ratio": [None, 4.0, None, None],
        "side": [None, 100, None, None],
        "pixels": [None, 40_000, None, None],
    }
