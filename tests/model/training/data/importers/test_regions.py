"""Boxes in six systems as text of VideoLLaMA3: converted with the size of the original picture."""

from __future__ import annotations

import pytest

from core.boxes import BoxSystem
from core.errors import BadSampleError
from model.training.data.importers.regions import Picture, grounded, located, picture_of
from model.training.data.importers.turns import image

WIDE = Picture(image("a.jpg", width=400, height=200), 400, 200)


@pytest.mark.parametrize(
    ("box", "system"),
    [
        ((40, 20, 100, 60), "pixel_xywh"),
        ((40, 20, 140, 80), "pixel_xyxy"),
        ((0.1, 0.1, 0.25, 0.3), "fraction_xywh"),
        ((0.1, 0.1, 0.35, 0.4), "fraction_xyxy"),
        ((100, 100, 350, 400), "norm1000_xyxy"),
        ((0.1, 0.3, 0.35, 0.45), "padded_fraction_xyxy"),  # 100 pixels of padding above and below
    ],
)
def test_same_place_in_six_systems_is_one_text(box: tuple[float, ...], system: BoxSystem) -> None:
    assert WIDE.text(box, system) == "[100,100,350,400]"
    turn = located(WIDE, [("cup", [box])], system)  # type: ignore[list-item]  # four numbers
    assert turn.text == "<ref>cup</ref>[[100,100,350,400]]"
    assert (turn.regions[0].box, turn.regions[0].system) == (box, system)


def test_phrases_of_a_sentence_get_their_boxes() -> None:
    turn = grounded(WIDE, "A man on a chair.", [(9, 16, [(0, 0, 40, 20)]), (0, 5, [(40, 20, 140, 80)])], "pixel_xyxy")
    assert turn.text == "<ref>A man</ref>[[100,100,350,400]] on <ref>a chair</ref>[[0,0,100,100]]."
    named = [turn.text[begin:end] for begin, end in (region.phrase or (0, 0) for region in turn.regions)]
    assert named == ["A man", "a chair"]


@pytest.mark.parametrize("places", [(0, 5, 4, 9), (0, 5, 10, 99), (3, 3, 5, 6)])
def test_phrases_that_overlap_are_refused(places: tuple[int, int, int, int]) -> None:
    one, two = places[:2], places[2:]
    with pytest.raises(BadSampleError, match="phrases overlap, or lie outside of the text"):
        grounded(WIDE, "A man on a chair.", [(*one, [(0, 0, 40, 20)]), (*two, [(0, 0, 40, 20)])], "pixel_xyxy")


@pytest.mark.parametrize("size", [(0, 5), (1 << 31, 5), (5, "5"), (True, 5), (5, None), (None, None)])
def test_picture_without_a_size_is_refused(size: tuple[object, object]) -> None:
    with pytest.raises(BadSampleError, match="no size of the picture"):
        picture_of(image("a.jpg"), {"width": size[0], "height": size[1]}, {})
