"""Changed copies of images, which the benchmarks plant among their originals."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image, ImageEnhance

from core.images import decode


def as_jpeg(image: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def scaled(image: Image.Image) -> Image.Image:
    return image.resize((round(0.9 * image.width), round(0.9 * image.height)), Image.Resampling.LANCZOS)


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Without `share` of the width and height on each side."""
    left, top = round(share * image.width), round(share * image.height)
    return image.crop((left, top, image.width - left, image.height - top))


PLANTED: dict[str, Callable[[bytes], bytes]] = {
    "exact": lambda data: data,
    "JPEG of quality 60": lambda data: as_jpeg(decode(data), 60),
    "scaled to 90 %": lambda data: as_jpeg(scaled(decode(data)), 90),
    "cropped by 2 %": lambda data: as_jpeg(cropped(decode(data), 0.02), 90),
}
"""Copies that must be found."""

FURTHER: dict[str, Callable[[bytes], bytes]] = {
    "cropped by 5 %": lambda data: as_jpeg(cropped(decode(data), 0.05), 90),
    "mirrored": lambda data: as_jpeg(decode(data).transpose(Image.Transpose.FLIP_LEFT_RIGHT), 90),
    "brightness × 1.2": lambda data: as_jpeg(ImageEnhance.Brightness(decode(data)).enhance(1.2), 90),
}
"""Copies for information."""
