"""Descriptions by known answers: they say what is measured, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captioners.offline.colours import colours, to_lab
from captioners.offline.describe import Describe
from captioners.offline.measurements import measure

FACTS = Describe().load()


def described(image: Image.Image, labels: list[str] | None = None, probabilities: list[float] | None = None) -> Any:
    return FACTS([FACTS.prepare(image, labels, probabilities)]).to_pylist()[0]


def noise(width: int, height: int, colour: tuple[int, int, int] = (200, 40, 40)) -> Image.Image:
    rng = np.random.default_rng(0)
    values = np.clip(np.array(colour) + rng.normal(0, 25, (height, width, 1)), 0, 255)
    return Image.fromarray(values.astype(np.uint8))


VARIED = [noise(30, 20, (level, 90, 60)) for level in range(0, 250, 10)]
"""Images enough for every way to say a thing."""


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 0, 0), "red"),
        ((20, 20, 22), "black"),
        ((250, 250, 248), "white"),
        ((128, 128, 128), "grey"),
        ((30, 60, 200), "blue"),
        ((120, 170, 230), "blue"),
        ((40, 120, 40), "green"),
        ((250, 220, 40), "yellow"),
        ((250, 140, 20), "orange"),
        ((110, 60, 30), "brown"),
        ((250, 180, 200), "pink"),
        ((120, 30, 130), "purple"),
    ],
)
def test_colours_have_their_common_names(rgb: tuple[int, int, int], name: str) -> None:
    assert colours(Image.new("RGB", (64, 64), rgb)) == ([name], [1.0])


def test_lab_values_of_known_colours_are_right() -> None:
    """Bruce Lindbloom's calculator, D65: white, sRGB's red, a mid grey."""
    lab = to_lab(np.array([[255, 255, 255], [255, 0, 0], [119, 119, 119]], float))
    assert np.allclose(lab, np.array([[100, 0, 0], [53.24, 80.09, 67.20], [50.03, 0, 0]]), atol=0.06)


def test_shares_of_colours_are_shares_of_the_area() -> None:
    image = Image.new("RGB", (100, 100), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, 100, 25))
    names, shares = colours(image)
    assert names == ["red", "blue"]
    assert shares == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.9, "(?<!probably) shows a tabby"),
        (0.89, "probably shows a tabby"),
        (0.5, "probably shows a tabby"),
        (0.49, "(may show|[Pp]erhaps it shows) a tabby"),
        (0.1, "(may show|[Pp]erhaps it shows) a tabby"),
    ],
)
def test_caption_names_the_class_with_its_certainty(probability: float, words: str) -> None:
    for image in VARIED:
        row = described(image, ["tabby", "abacus"], [probability, 0.01])
        assert re.search(words, row["short_caption"])
        assert re.search(words, row["detailed_caption"])
        assert "abacus" not in row["detailed_caption"]


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        (None, None),
        ([], []),
        (["tabby"], None),
        (["tabby"], [None]),
        (["tabby"], [float("nan")]),
        ([None], [0.9]),
        (["tabby"], [0.09]),
    ],
)
def test_caption_leaves_out_unknown_facts(labels: Any, probabilities: Any) -> None:
    row = described(noise(300, 200), labels, probabilities)
    for caption in (row["short_caption"], row["detailed_caption"]):
        assert not re.search("tabby|show|perhaps|could|None", caption, re.IGNORECASE)
    assert row["short_caption"] == "A wide image, nearly all red."


@pytest.mark.parametrize(
    ("labels", "probabilities", "sentence"),
    [
        (["pot", "vase"], [0.6, 0.2], "(It could also be|Less probably it is) a vase\\."),
        (["abacus", "ox", "tabby"], [0.3, 0.2, 0.1], "(may show|Perhaps it shows) an abacus, an ox or a tabby\\."),
        (["crane", "crane"], [0.5, 0.4], "^The image probably shows a crane\\. (?!.*crane)"),  # bird and machine
    ],
)
def test_other_classes_are_named_by_their_probability(
    labels: list[str], probabilities: list[float], sentence: str
) -> None:
    assert re.search(sentence, described(noise(300, 200), labels, probabilities)["detailed_caption"])


@pytest.mark.parametrize(
    ("size", "word", "format_"),
    [
        ((900, 300), "panoramic", "a panorama"),
        ((300, 200), "wide", "in landscape format"),
        ((200, 200), "square", " is square"),
        ((210, 200), "nearly square", "nearly square"),
        ((200, 300), "tall", "in portrait format"),
        ((100, 300), "tall and narrow", "in portrait format"),
    ],
)
def test_caption_names_the_shape(size: tuple[int, int], word: str, format_: str) -> None:
    row = described(noise(*size))
    assert row["short_caption"].startswith(f"A {word} image, ")
    assert format_ in row["detailed_caption"]


def test_image_without_colour_is_called_black_and_white() -> None:
    row = described(noise(200, 200, (128, 128, 128)))
    assert row["short_caption"] == "A square image, in black and white."
    assert "It is black and white, without any colour: " in row["detailed_caption"]
    assert not re.search("red|vivid|muted", row["detailed_caption"])


def test_image_with_little_colour_is_not_called_black_and_white() -> None:
    spot = noise(200, 200, (128, 128, 128))
    spot.paste((250, 20, 20), (0, 0, 12, 12))
    for image in (spot, noise(200, 200, (140, 128, 112))):  # and a sepia
        row = described(image)
        assert "black and white" not in row["short_caption"] + row["detailed_caption"]


@pytest.mark.parametrize(
    ("reds", "portion"),
    [(64, "practically all"), (48, "about three quarters"), (32, "about half"), (21, "about a third")],
)
def test_areas_are_described_in_words(reds: int, portion: str) -> None:
    image = Image.new("RGB", (64, 64), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, reds, 64))
    said = described(image)["detailed_caption"].lower()
    assert (
        f"red covers {portion}" in said
        or f"{portion} of it is red" in said
        or f"{portion} red" in said
        or (f"red {portion}" in said)
    )


@pytest.mark.parametrize(("column", "row"), [(0, 0), (1, 1), (2, 1), (1, 2)])
def test_region_of_most_detail_is_named(column: int, row: int) -> None:
    image = Image.new("RGB", (300, 300), (90, 90, 200))
    image.paste(noise(100, 100), (100 * column, 100 * row))
    where = {(0, 0): "in the upper left", (1, 1): "in the centre", (2, 1): "on the right", (1, 2): "at the bottom"}
    assert f"Most of its detail is {where[column, row]}." in described(image)["detailed_caption"]


def test_region_of_most_detail_has_at_least_half_of_it() -> None:
    image = noise(300, 300)
    image.paste((90, 90, 200), (0, 0, 300, 200))  # three fields at the bottom, a third each
    said = described(image)["detailed_caption"]
    assert "Most of its detail" not in said
    assert re.search("(Its detail is densest|There is more detail) (at the bottom|in the lower)", said)


def test_detail_everywhere_or_nowhere_names_no_region() -> None:
    even = described(noise(300, 300))["detailed_caption"]
    assert "spread fairly evenly" in even or "No part of it has much more detail" in even
    assert "There is hardly any detail on it." in described(Image.new("RGB", (99, 99), "navy"))["detailed_caption"]


@pytest.mark.parametrize(("level", "word"), [(20, "dark"), (230, "bright"), (120, "moderately bright")])
def test_caption_describes_the_light(level: int, word: str) -> None:
    row = described(Image.new("RGB", (50, 50), (level, level, level)))
    said = row["detailed_caption"].lower()
    assert (
        f"it is {word} all over and of low contrast." in said or f"all over, it is {word}; its contrast is low." in said
    )
    assert row["brightness"] == pytest.approx(level / 255, abs=0.01)


def test_photographs_differ_in_their_captions(photographs: list[Path]) -> None:
    pictures = [Image.open(path).convert("RGB") for path in photographs]
    rows = [described(picture, [f"thing {number % 5}"], [0.7]) for number, picture in enumerate(pictures)]
    assert len({row["short_caption"] for row in rows}) >= 0.8 * len(rows)
    assert len({row["detailed_caption"] for row in rows}) >= 0.9 * len(rows)
    unlike = {row["short_caption"].split("image")[0].split()[0] for row in rows}
    assert unlike == {"A", "This"}  # not all in the same words
    again = Describe().load()
    assert again([again.prepare(picture, ["thing 0"], [0.7]) for picture in pictures[:1]]).to_pylist() == rows[:1]


def test_batch_without_images_has_no_captions() -> None:
    assert FACTS([]).schema.equals(Describe.writes, check_metadata=True)
    assert FACTS([]).num_rows == 0


def test_text_in_the_image_is_read_when_ocr_is_on() -> None:
    pytest.importorskip("rapidocr")
    from PIL import ImageDraw, ImageFont

    sign = Image.new("RGB", (400, 120), "white")
    ImageDraw.Draw(sign).text((20, 30), "OPEN 24 HOURS", fill="black", font=ImageFont.load_default(32))
    reading = Describe(ocr=True).load()
    row = reading([reading.prepare(sign, None, None)]).to_pylist()[0]
    assert row["image_text"].replace(" ", "") == "OPEN24HOURS"
    assert f"The writing on it seems to be “{row['image_text']}”." in row["detailed_caption"]
    assert described(sign)["image_text"] is None
    assert "writing" not in described(sign)["detailed_caption"]


def test_missing_ocr_package_is_refused_with_the_package_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.pretrained.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"describe needs the package rapidocr: pip install 'vl3syn\[ocr\]'"):
        Describe(ocr=True).check_available()
    Describe().check_available()


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.binary(min_size=48, max_size=48))
def test_any_image_gets_two_captions_and_shares_up_to_1(width: int, height: int, pixels: bytes) -> None:
    image = Image.frombytes("RGB", (4, 4), pixels).resize((width, height))
    row = described(image, ["tabby"], [0.5])
    for caption in (row["short_caption"], row["detailed_caption"]):
        assert re.fullmatch(r"[A-Z].+[^. ]\.", caption)
        assert not re.search(r"  |, ,|\.\.| a [aeiou]", caption)
    assert 3 <= row["detailed_caption"].count(".") <= 6
    assert len(row["colours"]) == len(row["colour_shares"]) == len(set(row["colours"])) > 0
    assert sorted(row["colour_shares"], reverse=True) == row["colour_shares"]
    assert 0.7 < sum(row["colour_shares"]) <= 1 + 1e-6
    assert 0 <= row["brightness"] <= 1
    detail = measure(image, (), ()).detail
    assert detail is None or detail.sum() == pytest.approx(1)
