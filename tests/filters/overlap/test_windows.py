"""Hashes of crops against imagehash, and the comparison of two pictures."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image

from filters.overlap.windows import MOST, WHOLE, Window, agreement, aligned, cut, thumbnail, window_hashes, windows
from tests.filters.overlap.pictures import cropped, scene


def test_hashes_of_crops_are_those_of_imagehash() -> None:
    image = scene(3)
    hashes, structured = window_hashes(thumbnail(image))
    assert structured.all()
    assert windows()[0] == WHOLE
    differing = []
    for number in range(0, len(windows()), 15):
        bits = np.unpackbits(np.array([hashes[number]], ">u8").view(np.uint8))
        wanted = imagehash.phash(cropped(image, *windows()[number])).hash.ravel()
        differing.append(int((bits != wanted).sum()))
    assert max(differing) <= 4, differing
    assert differing[0] <= 2


def test_windows_cut_at_most_a_fifth_off_each_axis() -> None:
    assert len(set(windows())) == 225
    for left, top, right, bottom in windows():
        assert left + right <= MOST + 1e-9
        assert top + bottom <= MOST + 1e-9


def test_blank_picture_has_no_structure() -> None:
    assert not window_hashes(thumbnail(Image.new("RGB", (50, 50), "white")))[1].any()


def test_window_is_moved_to_where_the_crop_was() -> None:
    cuts = (0.07, 0.02, 0.11, 0.08)
    image = scene(5, side=500)
    window, agrees = aligned(thumbnail(image), Window(0.05, 0.0, 0.1, 0.1), thumbnail(cropped(image, *cuts)))
    assert np.abs(np.array(window) - cuts).max() < 0.02
    assert agrees.correlation > 0.95
    assert agrees.changed == 0


def test_pictures_agree_with_themselves_and_not_with_blank_ones() -> None:
    picture, blank = cut(thumbnail(scene(1))), np.full((128, 128), 255, np.float32)
    assert agreement(picture, picture) == pytest.approx((1.0, 0.0))
    assert agreement(picture, 40 + picture / 2).changed == 0
    assert agreement(picture, blank) == (0.0, 1.0)
