"""Copies of a benchmark's images are found, whatever was done to them; other pictures are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from PIL import Image, ImageEnhance

from core.images import decode
from filters.overlap.copies import CopyIndex, CopyMatch, benchmark_image
from tests.filters.overlap.pictures import cropped, jpeg, png, scene, slide

Change = Callable[[Image.Image], bytes]


def index_of(images: Sequence[bytes]) -> CopyIndex:
    return CopyIndex([benchmark_image(row, data, decode(data)) for row, data in enumerate(images)])


def search(index: CopyIndex, encoded: bytes) -> list[CopyMatch]:
    return index.search(encoded, decode(encoded, 128), decode)


@pytest.fixture(scope="module")
def scenes() -> CopyIndex:
    return index_of([png(scene(seed)) for seed in range(5)])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("file", png),
        ("pixels", lambda image: png(image) + b"behind its end"),
        ("picture", lambda image: jpeg(image, 60)),
        ("picture", lambda image: jpeg(image.resize((150, 130)), 80)),
        ("picture", lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.2), 90)),
        ("crop", lambda image: jpeg(cropped(image, 0.1, 0.02, 0.03, 0.09), 85)),
        ("crop", lambda image: jpeg(cropped(image, 0.0, 0.2, 0.17, 0.0), 85)),
        ("crop", lambda image: jpeg(cropped(image, 0.1, 0.1, 0.1, 0.1), 85)),
    ],
)
def test_copy_is_found_and_called_what_it_is(scenes: CopyIndex, kind: str, change: Change) -> None:
    for seed in (1, 4):
        assert [(match.row, match.kind) for match in search(scenes, change(scene(seed)))] == [(seed, kind)]


def test_picture_of_which_the_benchmark_has_a_crop_is_found() -> None:
    index = index_of([png(cropped(scene(seed), 0.04, 0.1, 0.12, 0.03)) for seed in range(3)])
    assert [(match.row, match.kind) for match in search(index, jpeg(scene(2)))] == [(2, "crop")]


def test_other_picture_and_mirrored_copy_are_not_found(scenes: CopyIndex) -> None:
    for image in (scene(77), slide(1), scene(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
        assert search(scenes, jpeg(image)) == []


def test_other_text_on_the_same_template_is_not_found() -> None:
    index = index_of([png(slide(seed)) for seed in range(4)])
    assert [match.row for match in search(index, jpeg(slide(2)))] == [2]
    assert [search(index, jpeg(slide(seed))) for seed in range(10, 13)] == [[]] * 3


def test_all_rows_of_a_picture_are_found() -> None:
    """Benchmarks ask many questions about one picture."""
    index = index_of([png(scene(0))] * 12 + [png(scene(0)) + b"behind its end", png(scene(1))])
    copies = search(index, jpeg(scene(0)))
    assert [(match.row, match.kind) for match in copies] == [(row, "picture") for row in range(13)]
    kinds = [match.kind for match in search(index, png(scene(0)))]
    assert kinds == ["file"] * 12 + ["pixels"]
    assert len(index) == 2


def test_blank_pictures_are_found_by_their_pixels_only() -> None:
    index = index_of([png(Image.new("RGB", (40, 40), "white"))])
    assert search(index, png(Image.new("RGB", (40, 40), (254, 254, 254)))) == []
    (match,) = search(index, png(Image.new("RGB", (40, 40), "white")) + b"more")
    assert match.kind == "pixels"


def test_distance_counts_the_bits_of_the_perceptual_hashes(scenes: CopyIndex) -> None:
    (exact,), (again,) = search(scenes, png(scene(3))), search(scenes, jpeg(scene(3), 30))
    assert exact.distance == 0
    assert 0 <= again.distance <= 6


def test_empty_index_finds_nothing() -> None:
    assert search(index_of([]), png(scene(1))) == []
