"""Frames as pixels: each format in its right colours, upright, whole or scaled down."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from core.frame_pixels import Frame, FrameConverter, scale_picture, scaled_size

FORMATS = "yuv420p yuvj420p yuv420p10le yuv422p yuv444p nv12 gray rgb24 gbrp rgba yuva420p".split()


@pytest.fixture(scope="module")
def clouds() -> Frame:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((960, 720), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("format_", FORMATS)
def test_scaled_frame_is_the_mean_of_its_pixels(clouds: Frame, format_: str) -> None:
    frame = av.VideoFrame.from_ndarray(clouds, format="rgb24").reformat(format=format_)
    whole = FrameConverter(0)(frame)
    assert whole.shape == clouds.shape
    if not any(component.is_alpha for component in frame.format.components):
        assert (whole == frame.to_ndarray(format="rgb24")).all()
    means = np.asarray(Image.fromarray(whole).resize((448, 336), Image.Resampling.BOX))
    scaled = FrameConverter(0, (336, 448))(frame)
    assert scaled.shape == (336, 448, 3)
    assert np.abs(scaled.astype(int) - means).mean() < 2
    assert np.abs(scaled.mean(axis=(0, 1)) - means.mean(axis=(0, 1))).max() < 1.5, "another range of values"


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_frame_is_turned_and_scaled_to_the_upright_size(clouds: Frame, quarters: int) -> None:
    frame = av.VideoFrame.from_ndarray(clouds, format="rgb24")
    upright = FrameConverter(quarters, (448, 336) if quarters % 2 else (336, 448))(frame)
    assert (upright == np.rot90(FrameConverter(0, (336, 448))(frame), quarters)).all()
    assert upright.flags["C_CONTIGUOUS"]


def test_frames_of_other_sizes_come_out_in_one_size(clouds: Frame) -> None:
    """A film may change its size on the way."""
    convert = FrameConverter(0, (100, 200))
    for picture in (clouds, clouds[:300, :100], clouds):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuv420p")
        assert convert(frame).shape == (100, 200, 3)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((720, 1280), 448, (252, 448)),
        ((1280, 719), 448, (448, 252)),
        ((10, 4000), 448, (2, 448)),
        ((448, 448), 448, (448, 448)),
        ((33, 77), 448, (33, 77)),
        ((33, 77), None, (33, 77)),
        ((900, 901), 449, (448, 450)),
    ],
)
def test_longer_side_is_scaled_to_an_even_length(
    size: tuple[int, int], side: int | None, expected: tuple[int, int]
) -> None:
    assert scaled_size(*size, side) == expected
    assert scale_picture(np.zeros((*size, 3), np.uint8), side).shape == (*expected, 3)
