"""Labelled pools for benchmarks: mildly augmented photographs, and cut-outs on transparent ground, with heavy tails."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from core.images import decode
from filters.conse import Conse

Ints = npt.NDArray[np.int64]
Point = tuple[float, float]

CANVAS = 256  # pixels, width and height of a letter or shape
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
COLOURS = ("#c03030", "#2060c0", "#208040", "#202020")
SEQUENCES = ("bikes-", "left", "im.00")  # stills that are much alike
_LONGEST = 512  # pixels, of a photograph


@dataclass(frozen=True)
class Original:
    """One image that copies are made of.

    Attributes:
        label: What it shows: the series of a photograph, the letter or shape of a cut-out.
        name: Its own, unlike all others.
        image: RGB, or RGBA for a cut-out.
    """

    label: str
    name: str
    image: Image.Image


def photographs(files: Sequence[Path]) -> list[Original]:
    """The files, at most 512 pixels wide and high. Those whose names differ in numbers alone have one label."""
    originals = []
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        image.thumbnail((_LONGEST, _LONGEST))
        originals.append(Original(re.split(r"[\d_.-]", file.stem)[0] or file.stem, file.name, image))
    return originals


def cut_outs(files: Sequence[Path]) -> list[Original]:
    """Letters and digits in three styles, shapes in four colours, and ovals out of photographs: RGBA."""
    originals = [
        Original(character, f"{character} {stroke}", _letter(character, stroke, COLOURS[(n + stroke) % len(COLOURS)]))
        for n, character in enumerate(CHARACTERS)
        for stroke in (0, 4, 8)
    ]
    originals += [
        Original(shape, f"{shape} {colour}", _drawn(draw, colour))
        for shape, draw in SHAPES.items()
        for colour in COLOURS
    ]
    several = (photo for photo in photographs(files) if not photo.name.startswith(SEQUENCES))
    return originals + [Original(photo.label, photo.name, _oval(photo.image)) for photo in several]


def _letter(character: str, stroke: int, colour: str) -> Image.Image:
    font = ImageFont.load_default(180)
    return _drawn(lambda d, c: d.text((128, 128), character, c, font, anchor="mm", stroke_width=stroke), colour)


def _drawn(draw: Callable[[ImageDraw.ImageDraw, str], Any], colour: str) -> Image.Image:
    image = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    draw(ImageDraw.Draw(image), colour)
    return image


def _corners(count: int, inner: float = 1.0) -> list[Point]:
    """Of a regular polygon, or of a star if every second corner lies further in (`inner`, a share of the radius)."""
    turns = np.arange(count if inner == 1 else 2 * count)
    angles = 2 * np.pi * turns / len(turns) - np.pi / 2
    radii = 100 * np.where(turns % 2, inner, 1.0)
    return [(128 + r * np.cos(a), 128 + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]


SHAPES: dict[str, Callable[[ImageDraw.ImageDraw, str], Any]] = {
    "circle": lambda d, c: d.ellipse((28, 28, 228, 228), c),
    "square": lambda d, c: d.rectangle((38, 38, 218, 218), c),
    "triangle": lambda d, c: d.polygon(_corners(3), c),
    "pentagon": lambda d, c: d.polygon(_corners(5), c),
    "star": lambda d, c: d.polygon(_corners(5, 0.4), c),
    "ring": lambda d, c: d.ellipse((28, 28, 228, 228), outline=c, width=36),
    "cross": lambda d, c: d.polygon(
        [(98, 28), (158, 28), (158, 98), (228, 98), (228, 158), (158, 158)]  # noqa: RUF005  # in two lines
        + [(158, 228), (98, 228), (98, 158), (28, 158), (28, 98), (98, 98)],
        c,
    ),
    "arrow": lambda d, c: d.polygon([(20, 98), (130, 98), (130, 40), (236, 128), (130, 216), (130, 158), (20, 158)], c),
}


def _oval(photograph: Image.Image) -> Image.Image:
    """A photograph that is transparent outside of an oval with a soft edge."""
    width, height = photograph.size
    mask = Image.new("L", photograph.size, 0)
    ImageDraw.Draw(mask).ellipse((0.08 * width, 0.08 * height, 0.92 * width, 0.92 * height), 255)
    image = photograph.convert("RGBA")
    image.putalpha(mask.filter(ImageFilter.GaussianBlur(2)))
    return image


def heavy_tail(classes: int, images: int) -> Ints:
    """A class per image: class r has a share of the images that falls as 1 / r, and at least one."""
    shares = 1 / np.arange(1, classes + 1)
    sizes = np.maximum(1, np.round(shares / shares.sum() * images)).astype(int)
    return np.repeat(np.arange(classes), sizes)


def copies(originals: Sequence[Original], origins: Ints, dice: np.random.Generator) -> Iterator[Image.Image]:
    """An augmented copy of the original of each number in `origins`."""
    for number in origins:
        yield augmented(originals[number].image, dice)


def strays(originals: Sequence[Original], count: int, dice: np.random.Generator) -> Iterator[Image.Image]:
    """Pictures like no other: copies of two originals, one over the other, half of each."""
    for one, other in dice.integers(0, len(originals), (count, 2)):
        below, above = (augmented(originals[number].image, dice) for number in (one, other))
        yield Image.blend(below, above.resize(below.size), 0.5)


def embed(images: Iterable[Image.Image]) -> pa.Array:
    """Unit vectors in float16, one per image."""
    encoder = Conse().load()
    prepared = map(encoder.prepare, images)
    parts = []
    while batch := list(islice(prepared, 64)):
        parts.append(encoder(batch)["image_embedding"].combine_chunks())
    return pa.concat_arrays(parts)


def augmented(image: Image.Image, dice: np.random.Generator) -> Image.Image:
    """A mild change, as `decode` shows it: RGB.

    Of a photograph 75 to 100 % of each side, mirrored or not; a cut-out is scaled by that and put down somewhere on its
    canvas, whole. Both are turned by up to 8 degrees, and their brightness changes by up to a fifth.
    """
    share = dice.uniform(0.75, 1)
    width, height = int(image.width * share), int(image.height * share)
    left = int(dice.integers(0, image.width - width + 1))
    top = int(dice.integers(0, image.height - height + 1))
    if image.mode == "RGBA":
        moved = Image.new("RGBA", image.size, (0, 0, 0, 0))
        moved.paste(image.resize((width, height)), (left, top))
        return _seen(moved, dice)
    part = image.crop((left, top, left + width, top + height))
    return _seen(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if dice.random() < 0.5 else part, dice)


def _seen(image: Image.Image, dice: np.random.Generator) -> Image.Image:
    turned = image.rotate(dice.uniform(-8, 8), Image.Resampling.BILINEAR)
    changed = ImageEnhance.Brightness(turned).enhance(dice.uniform(0.8, 1.2))
    data = io.BytesIO()
    if image.mode == "RGBA":
        changed.save(data, "PNG")
    else:
        changed.save(data, "JPEG", quality=int(dice.integers(50, 95)))
    return decode(data.getvalue())
