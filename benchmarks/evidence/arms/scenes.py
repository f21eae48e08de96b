"""Scenes of named cut-outs on plain grounds or photographs, and the sentence that says what is in each.

    a scene     one object, or one on the left and another one on the right; on a coloured ground or on a photograph

A scene is a value. Its picture and its caption are made out of that value, so the caption is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageOps

from .cut_outs import Materials

SIDE = 112
"""Side of a picture, in pixels: 8 x 8 patches of 14."""

GROUNDS = {"grey": (170, 170, 170), "pink": (240, 190, 205), "beige": (225, 205, 160), "blue": (150, 180, 230)}
PHOTOGRAPH = "photograph"
"""The ground that is no colour."""

PAIRS = 0.6
"""Share of the scenes with two objects."""

ON_PHOTOGRAPHS = 1 / 3
"""Share of the scenes on a photograph."""

ZIPF = 1.3
"""How steeply the frequency of an object falls with its rank in a raw pool."""

_JITTER = 6  # pixels, how far an object lies from the middle of its half at most
_SIZES = (0.75, 1.0)  # of a cut-out's full size
_ARTICLES = {True: "an", False: "a"}


@dataclass(frozen=True)
class Scene:
    """One object or two, from left to right, on a ground: a name of `GROUNDS`, or `PHOTOGRAPH`."""

    objects: tuple[str, ...]
    ground: str


def frequencies(names: Sequence[str], exponent: float) -> list[float]:
    """Return the weight of each object, 1 / rank ** exponent. 0 makes all alike."""
    return [1 / rank**exponent for rank in range(1, len(names) + 1)]


def random_scene(names: Sequence[str], weights: Sequence[float], random: Random) -> Scene:
    """Return a scene whose objects are drawn by their weights. Two objects of a scene are different."""
    count = 2 if random.random() < PAIRS else 1
    objects: list[str] = []
    while len(objects) < count:
        (name,) = random.choices(names, weights)
        if name not in objects:
            objects.append(name)
    ground = PHOTOGRAPH if random.random() < ON_PHOTOGRAPHS else random.choice(list(GROUNDS))
    return Scene(tuple(objects), ground)


def caption(scene: Scene) -> str:
    """Return the sentence that says all that a scene holds."""
    ground = "a photograph" if scene.ground == PHOTOGRAPH else f"{_with_article(scene.ground)} ground"
    if len(scene.objects) == 1:
        said = _with_article(scene.objects[0])
    else:
        left, right = map(_with_article, scene.objects)
        said = f"{left} on the left and {right} on the right"
    return f"{said[0].upper()}{said[1:]}, on {ground}."


def _with_article(name: str) -> str:
    return f"{_ARTICLES[name[0] in 'aeiou']} {name}"


def draw(scene: Scene, random: Random, materials: Materials) -> Image.Image:
    """Return the picture of a scene, RGB, `SIDE` pixels wide and high.

    Size, place, mirroring and the part of a photograph are left to `random`.
    """
    picture = _ground(scene.ground, random, materials.photographs)
    share = SIDE // len(scene.objects)
    for number, name in enumerate(scene.objects):
        placed = _changed(materials.objects[name], random)
        x = number * share + share // 2 + random.randint(-_JITTER, _JITTER) - placed.width // 2
        y = SIDE // 2 + random.randint(-2 * _JITTER, 2 * _JITTER) - placed.height // 2
        picture.paste(placed, (x, y), placed)
    return picture


def _changed(image: Image.Image, random: Random) -> Image.Image:
    scale = random.uniform(*_SIZES)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    return ImageOps.mirror(image) if random.random() < 0.5 else image


def _ground(name: str, random: Random, photographs: Sequence[Image.Image]) -> Image.Image:
    if name != PHOTOGRAPH:
        return Image.new("RGB", (SIDE, SIDE), GROUNDS[name])
    photograph = random.choice(photographs)
    x, y = random.randint(0, photograph.width - SIDE), random.randint(0, photograph.height - SIDE)
    return photograph.crop((x, y, x + SIDE, y + SIDE))
