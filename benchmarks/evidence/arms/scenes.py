"""Scenes of named cut-outs on plain grounds or photographs, and the sentence that says what is in each.

    a scene     one object, or one on the left and another one on the right; on a coloured ground or on a photograph

A scene is a value. Its picture and its caption are made out of that value, so the caption is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageOps

from .cut_outs import LONGEST, Materials

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

INCOMPLETE = 0.7
"""Probability that a true alt text of a raw pool names one object and nothing else."""

_JITTER = 6  # pixels, how far an object lies from the middle of its half at most
_SIZES = (0.85, 1.0)  # of a cut-out's full size
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
    ground = "a photograph" if scene.ground == PHOTOGRAPH else f"{with_article(scene.ground)} ground"
    if len(scene.objects) == 1:
        said = with_article(scene.objects[0])
    else:
        left, right = map(with_article, scene.objects)
        said = f"{left} on the left and {right} on the right"
    return f"{said[0].upper()}{said[1:]}, on {ground}."


def incomplete_captions(scene: Scene) -> list[str]:
    """Return the sentences that are true, but name one object only, and not the ground."""
    said = map(with_article, scene.objects)
    return [f"{one[0].upper()}{one[1:]}." for one in said]


def alt_text(scene: Scene, incomplete: float, random: Random) -> str:
    """Return a true sentence, which is incomplete with this probability, 0 to 1."""
    return random.choice(incomplete_captions(scene)) if random.random() < incomplete else caption(scene)


def with_article(name: str) -> str:
    """Return `an owl`, `a duck`."""
    return f"{_ARTICLES[name[0] in 'aeiou']} {name}"


def draw(scene: Scene, random: Random, materials: Materials, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Return the picture of a scene, RGB.

    Size, place, mirroring and the part of a photograph are left to `random`.

    Args:
        scene: What it shows. Two objects lie along the longer side.
        random: Decides all that the scene does not say.
        materials: What it is made of.
        size: Width and height, in pixels; `LONGEST` to `GROUND` each.
    """
    picture = ground(scene.ground, random, materials.photographs, size)
    share, across = max(size) // len(scene.objects), min(size)
    for number, name in enumerate(scene.objects):
        placed = varied(materials.objects[name], random)
        jitter = min(2 * _JITTER, (across - LONGEST) // 2)
        middle = (
            number * share + share // 2 + random.randint(-_JITTER, _JITTER),
            across // 2 + random.randint(-jitter, jitter),
        )
        x, y = middle if size[0] >= size[1] else middle[::-1]
        picture.paste(placed, (x - placed.width // 2, y - placed.height // 2), placed)
    return picture


def varied(image: Image.Image, random: Random, sizes: tuple[float, float] = _SIZES) -> Image.Image:
    """Return a cut-out at a random share of its size, and perhaps mirrored."""
    scale = random.uniform(*sizes)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    return ImageOps.mirror(image) if random.random() < 0.5 else image


def ground(name: str, random: Random, photographs: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image:
    """Return a ground, RGB, of a width and height in pixels: one colour, or a part of a photograph."""
    if name != PHOTOGRAPH:
        return Image.new("RGB", size, GROUNDS[name])
    photograph = random.choice(photographs)
    x, y = (random.randint(0, whole - side) for whole, side in zip(photograph.size, size, strict=True))
    return photograph.crop((x, y, x + size[0], y + size[1]))
