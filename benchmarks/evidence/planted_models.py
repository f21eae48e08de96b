"""What models say while the pool is made: alt texts of photographs, and drawings that open_nsfw takes for unsafe."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from PIL import Image, ImageDraw
from planted_copies import as_jpeg

from captioners.offline.labels import LabelCaption
from core.images import decode
from filters.conse import Conse
from filters.nsfw import Nsfw

CERTAIN = 0.5  # probability of a label that becomes an alt text
UNSAFE = 0.8  # open_nsfw's authors: above it very likely unsafe

_SKIN = ("#f1c9a5", "#e8b48c", "#d9a07a", "#c68863", "#a86b4a", "#8d5524", "#ffdbac", "#e0ac69")
_SIDE = 400  # pixels, width and height of a drawing
_STARTS, _TRIES, _AT_ONCE = 24, 60, 6  # random drawings, changes of the best one, changes that are scored together
_ATTEMPTS = 2  # for each drawing that is wanted

Shape = tuple[int, int, int, int, str]
"""Left, top, width, height of an ellipse, in pixels, and its colour."""


def alt_texts(files: Sequence[Path]) -> dict[str, str]:
    """Return an alt text for each photograph whose most probable label has at least 0.5, by name: "a photo of a dome".

    The label is that of the whole photograph, by the classifier that `conse` embeds images with.
    """
    loaded = Conse().load()
    texts: dict[str, str] = {}
    for file in files:
        labels = loaded([loaded.prepare(decode(file.read_bytes()))])
        if labels["label_probability"][0].as_py() >= CERTAIN:
            texts[file.name] = LabelCaption(near=1)(pa.table(labels))["coarse_caption"][0].as_py()
    return texts


def unsafe_drawings(wanted: int, seed: int) -> list[bytes]:
    """Return up to so many JPEGs of ellipses in skin colours that open_nsfw scores above 0.8.

    Each is the best of 24 random drawings, changed at random while its score rises. Some do not get there: after twice
    as many attempts as drawings are wanted the search ends.
    """
    scorer = Nsfw().load()

    def scores(drawings: Sequence[Sequence[Shape]]) -> list[float]:
        images = [decode(drawing_as_jpeg(shapes)) for shapes in drawings]
        values: list[float] = scorer([scorer.prepare(image) for image in images])["nsfw"].to_pylist()
        return values

    drawn: list[bytes] = []
    for attempt in range(_ATTEMPTS * wanted):
        rng = random.Random(f"{seed} {attempt}")
        starts = [[_ellipse(rng) for _ in range(rng.randint(4, 8))] for _ in range(_STARTS)]
        best, shapes = max(zip(scores(starts), starts, strict=True))
        for _ in range(_TRIES):
            if best > UNSAFE:
                drawn.append(drawing_as_jpeg(shapes))
                break
            changed = list(_changed(shapes, rng))
            better, candidate = max(zip(scores(changed), changed, strict=True))
            if better > best:
                best, shapes = better, candidate
        if len(drawn) == wanted:
            break
    return drawn


def drawing_as_jpeg(shapes: Sequence[Shape]) -> bytes:
    image = Image.new("RGB", (_SIDE, _SIDE), shapes[0][-1])
    for left, top, width, height, colour in shapes[1:]:
        ImageDraw.Draw(image).ellipse((left, top, left + width, top + height), colour)
    return as_jpeg(image, 92)


def _ellipse(rng: random.Random) -> Shape:
    return (*(rng.randint(-60, _SIDE - 60) for _ in range(2)), *(rng.randint(40, 300) for _ in range(2)), _colour(rng))


def _colour(rng: random.Random) -> str:
    return rng.choice(_SKIN)


def _changed(shapes: Sequence[Shape], rng: random.Random) -> Iterator[list[Shape]]:
    """Yield drawings in which one ellipse is moved, or is another one."""
    for _ in range(_AT_ONCE):
        number = rng.randrange(len(shapes))
        left, top, width, height, colour = shapes[number]
        moved = [value + round(rng.gauss(0, 25)) for value in (left, top, width, height)]
        shape = (moved[0], moved[1], max(20, moved[2]), max(20, moved[3]), colour)
        yield [*shapes[:number], shape if rng.random() < 0.7 else _ellipse(rng), *shapes[number + 1 :]]
