"""Pictures for tests of overlaps: a scene with structure, a page of words on a template, and ways to change them."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_WORDS = "revenue market quarter team product launch customer budget forecast region sales margin plan audit".split()


def scene(seed: int, side: int = 320) -> Image.Image:
    """A coloured picture of soft shapes, as photographs have; another one for each seed."""
    dice = np.random.default_rng(seed)
    coarse = Image.fromarray(dice.integers(0, 256, (9, 9, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    fine = Image.fromarray(dice.integers(0, 256, (40, 40, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return Image.blend(coarse, fine, 0.3)


def slide(seed: int) -> Image.Image:
    """A page with a bar and a title; the words are others for each seed."""
    dice = random.Random(seed)
    page = Image.new("RGB", (800, 600), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(26)
    draw.rectangle((0, 0, 800, 90), fill=(20, 60, 120))
    for line in range(6):
        draw.text((60, 130 + 70 * line), " ".join(dice.choices(_WORDS, k=4)), fill="black", font=font)
    return page


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Without shares of the width and height on the four sides."""
    width, height = image.size
    box = (left * width, top * height, width - right * width, height - bottom * height)
    return image.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))


def png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def jpeg(image: Image.Image, quality: int = 60) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()
