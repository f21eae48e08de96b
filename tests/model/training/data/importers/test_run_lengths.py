"""Boxes around masks, against pycocotools' encoding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadSampleError
from model.training.data.importers.run_lengths import box_around, mask_box


@pytest.mark.parametrize(  # encoded with pycocotools 2.0.11
    ("size", "counts", "box"),
    [
        ([55, 19], "YP1<", (18, 43, 19, 55)),
        ([28, 7], "Q2c090000000", (2, 9, 7, 28)),
        ([10, 7], ">65N10000000K", (1, 4, 7, 10)),
        ([10, 17], "Q337091F0000000", (9, 6, 17, 10)),
        ([52, 39], "Qf1T1`0000000000C", (33, 13, 39, 49)),
    ],
)
def test_compressed_run_lengths_give_the_box(size: list[int], counts: str, box: tuple[float, ...]) -> None:
    assert mask_box({"size": size, "counts": counts}) == box


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_box_is_that_of_the_pixels(height: int, width: int, data: st.DataObject) -> None:
    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    counts, last = [0], False
    for pixel in pixels:
        counts += [0] if pixel != last else []
        counts[-1] += 1
        last = pixel
    inside = [divmod(place, height) for place, pixel in enumerate(pixels) if pixel]
    mask = {"size": [height, width], "counts": counts}
    if not inside:
        with pytest.raises(BadSampleError, match="an empty mask"):
            mask_box(mask)
        return
    across, down = zip(*inside, strict=True)
    assert mask_box(mask) == (min(across), min(down), max(across) + 1, max(down) + 1)


def test_polygons_have_one_box() -> None:
    assert box_around([[10, 20, 30.5, 20, 30, 60], [5, 50, 6, 50, 6, 55]]) == (5, 20, 30.5, 60)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [4, 4], "counts": [1, 20]}, "mask larger than its picture of 4x4"),
        ({"size": [4, 4], "counts": [-1, 2]}, "mask larger than its picture"),
        ({"size": [4, 4], "counts": "é"}, "no run lengths"),
        ({"size": [4, 4], "counts": "Q"}, "no run lengths: 'Q' breaks off"),
        ({"size": [4, 4], "counts": "Q" * 99}, "no run lengths"),
        ({"size": [4], "counts": [1, 2]}, "no mask"),
        ([], "no polygon"),
        ([[1, 2, 3]], "no polygon"),
        ([["1", 2]], "no polygon"),
        (None, "no polygon"),
    ],
)
def test_broken_segmentation_is_refused(segmentation: Any, reason: str) -> None:
    with pytest.raises(BadSampleError, match=reason):
        box_around(segmentation)
