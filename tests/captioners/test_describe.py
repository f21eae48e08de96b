"""Descriptions by known answers: they say what is measured, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captioners.colours import colours, name_of, to_lab
from captioners.describe import Describe
from captioners.measured import measure

FACTS = Describe().load()


def described(image: Image.Image, labels: list[str] | None = None, probabilities: list[float] | None = None) -> Any:
    return FACTS([FACTS.prepare(image, labels, probabilities)]).to_pylist()[0]


def noise(width: int, height: int, colour: tuple[int, int, int] = (200, 40, 40)) -> Image.Image:
    rng = np.random.default_rng(0)
    values = np.clip(np.array(colour) + rng.normal(0, 25, (height, width, 1)), 0, 255)
    return Image.fromarray(values.astype(np.uint8))


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
def test_colours_have_the_names_that_people_give_them(rgb: tuple[int, int, int], name: str) -> None:
    assert name_of(np.array(rgb, float)) == name


def test_lab_is_that_of_known_colours() -> None:
    """Bruce Lindbloom's calculator, D65: white, sRGB's red, a mid grey."""
    found = to_lab(np.array([[255, 255, 255], [255, 0, 0], [119, 119, 119]], float))
    assert np.allclose(found, [[100, 0, 0], [53.24, 80.09, 67.20], [50.03, 0, 0]], atol=0.06)


def test_shares_of_colours_are_shares_of_the_area() -> None:
    image = Image.new("RGB", (100, 100), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, 100, 25))
    names, shares = colours(image)
    assert names == ["red", "blue"]
    assert shares == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize(
    ("probability", "words"), [(0.9, " shows a tabby"), (0.4, "probably shows a tabby"), (0.15, "may show a tabby")]
)
def test_a_class_is_named_with_how_sure_it_is(probability: float, words: str) -> None:
    row = described(noise(300, 200), ["tabby", "abacus"], [probability, 0.01])
    assert words in row["short_caption"]
    assert words in row["detailed_caption"]
    assert "abacus" not in row["detailed_caption"]


@pytest.mark.parametrize(("labels", "probabilities"), [(None, None), ([], []), (["tabby"], [0.05])])
def test_what_is_not_known_is_not_guessed(labels: Any, probabilities: Any) -> None:
    row = described(noise(300, 200), labels, probabilities)
    assert "tabby" not in row["short_caption"] + row["detailed_caption"]
    assert row["short_caption"] == "A wide image, mostly red."


@pytest.mark.parametrize(
    ("size", "word"), [((900, 300), "panoramic"), ((300, 200), "wide"), ((200, 200), "square"), ((200, 300), "tall")]
)
def test_the_shape_is_told(size: tuple[int, int], word: str) -> None:
    assert described(noise(*size))["short_caption"].startswith(f"A {word} image")


def test_without_colour_it_is_black_and_white() -> None:
    row = described(noise(200, 200, (128, 128, 128)))
    assert row["short_caption"] == "A square image, in black and white."
    assert "red" not in row["detailed_caption"]


@pytest.mark.parametrize(("column", "row"), [(0, 0), (1, 1), (2, 1), (1, 2)])
def test_detail_is_found_where_it_is(column: int, row: int) -> None:
    image = Image.new("RGB", (300, 300), (90, 90, 200))
    image.paste(noise(100, 100), (100 * column, 100 * row))
    where = {(0, 0): "top left", (1, 1): "centre", (2, 1): "right", (1, 2): "bottom"}[column, row]
    assert f"most of its detail is at the {where}." in described(image)["detailed_caption"]


@pytest.mark.parametrize(("level", "word"), [(20, "dark"), (230, "bright"), (120, "moderately bright")])
def test_light_is_told(level: int, word: str) -> None:
    row = described(Image.new("RGB", (50, 50), (level, level, level)))
    assert f"It is {word} and of low contrast." in row["detailed_caption"]
    assert row["brightness"] == pytest.approx(level / 255, abs=0.01)


def test_photographs_differ_in_their_captions(photographs: list[Path]) -> None:
    pictures = [Image.open(path).convert("RGB") for path in photographs]
    rows = [described(picture) for picture in pictures]
    assert len({row["detailed_caption"] for row in rows}) >= 0.8 * len(rows)
    assert [described(picture) for picture in pictures[:3]] == rows[:3]


def test_writing_is_read_where_it_is_asked_for() -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    from PIL import ImageDraw, ImageFont

    sign = Image.new("RGB", (400, 120), "white")
    ImageDraw.Draw(sign).text((20, 30), "OPEN 24 HOURS", fill="black", font=ImageFont.load_default(32))
    reading = Describe(ocr=True).load()
    row = reading([reading.prepare(sign, None, None)]).to_pylist()[0]
    assert row["image_text"].replace(" ", "") == "OPEN24HOURS"
    assert f"It has writing on it: “{row['image_text']}”." in row["detailed_caption"]
    assert described(sign)["image_text"] is None
    assert "writing" not in described(sign)["detailed_caption"]


def test_ocr_that_is_not_installed_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filters.weights.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"describe needs the package rapidocr_onnxruntime: pip install 'vl3syn\[ocr\]'"
    ):
        Describe(ocr=True).ready()
    Describe().ready()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.binary(min_size=48, max_size=48))
def test_any_image_has_two_captions_and_shares_of_one(width: int, height: int, pixels: bytes) -> None:
    image = Image.frombytes("RGB", (4, 4), pixels).resize((width, height))
    row = described(image, ["tabby"], [0.5])
    assert row["short_caption"].endswith(".")
    assert row["detailed_caption"].endswith(".")
    assert sum(row["colour_shares"]) == pytest.approx(1, abs=1e-5)
    assert measure(image, (), ()).detail.sum() == pytest.approx(1)
