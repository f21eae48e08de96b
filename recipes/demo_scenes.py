"""Draw the demo's scenes, and say what is in them: two coloured shapes side by side, captions, questions and answers.

A scene is a value. Its picture and all that is said of it are made out of that value, so what is said is true.

    a thing     one of 6 colours and one of 4 shapes: 24 things
    a scene     a thing on the left, another on the right, each small or large, on a plain ground or on a photograph
    a clip      one thing that moves to the left or to the right, on a plain ground
    an exam     scenes whose two things never stand together in training, in neither order: 28 of 276 pairs;
                and clips of things that training only shows standing still: 4 of 24
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from PIL import Image, ImageDraw

SIDE = 56
"""Side of a picture, in pixels: 4 x 4 patches of 14."""

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 150, 50),
    "blue": (40, 70, 230),
    "purple": (150, 50, 190),
    "orange": (240, 130, 20),
    "black": (20, 20, 20),
}
OUTLINE = (0, 0, 0)
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = {"small": 6, "large": 11}
"""Half of the side that a thing takes, in pixels."""

JITTER = 2
"""How far a thing lies from the middle of its half at most, in pixels to each side."""

GROUNDS = {"grey": (185, 185, 185), "pink": (240, 190, 205), "beige": (225, 205, 160)}
PHOTOGRAPH = "photograph"
"""The ground that is no colour."""

EXAM_PAIRS, EXAM_MOVING = 28, 4
"""How many pairs of things, and how many moving things, are kept for exams."""

FRAMES = 3
"""Frames of a clip, one a second."""


@dataclass(frozen=True, order=True)
class Thing:
    """A coloured shape."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Placed:
    """A thing in its size, "small" or "large"."""

    thing: Thing
    size: str

    def __str__(self) -> str:
        return f"{self.size} {self.thing}"


@dataclass(frozen=True)
class Scene:
    """Two different things on a ground: a name of `GROUNDS`, or `PHOTOGRAPH`."""

    left: Placed
    right: Placed
    ground: str


@dataclass(frozen=True)
class Clip:
    """A thing that moves to one side, "left" or "right", on a plain ground."""

    placed: Placed
    towards: str
    ground: str


THINGS = [Thing(colour, shape) for colour in COLOURS for shape in SHAPES]

Pair = tuple[Thing, Thing]


def pairs(seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs of different things that training may show, and those of the exams. No pair is in both."""
    every = list(combinations(sorted(THINGS), 2))
    Random(seed).shuffle(every)
    return every[EXAM_PAIRS:], every[:EXAM_PAIRS]


def moving_things(seed: int = 0) -> tuple[list[Thing], list[Thing]]:
    """Return the things that training may show in motion, and those of the exams."""
    every = sorted(THINGS)
    Random(seed).shuffle(every)
    return every[EXAM_MOVING:], every[:EXAM_MOVING]


def random_scene(among: Sequence[Pair], random: Random) -> Scene:
    """Return a scene with one of these pairs, in either order. Every fourth is on a photograph."""
    first, second = random.sample(random.choice(among), 2)
    ground = PHOTOGRAPH if random.random() < 1 / 4 else random.choice(list(GROUNDS))
    sizes = random.choices(list(SIZES), k=2)
    return Scene(Placed(first, sizes[0]), Placed(second, sizes[1]), ground)


def random_clip(among: Sequence[Thing], random: Random) -> Clip:
    """Return a clip of one of these things."""
    placed = Placed(random.choice(among), random.choice(list(SIZES)))
    return Clip(placed, random.choice(["left", "right"]), random.choice(list(GROUNDS)))


def clip_caption(clip: Clip) -> str:
    """Return the sentence that says what happens in a clip."""
    return f"A {clip.placed} moves to the {clip.towards}, on {clip.ground} ground."


def caption(scene: Scene) -> str:
    """Return the sentence that says all that a scene holds."""
    ground = "a photograph" if scene.ground == PHOTOGRAPH else f"{scene.ground} ground"
    return f"A {scene.left} on the left and a {scene.right} on the right, on {ground}."


def questions(scene: Scene, random: Random) -> list[tuple[str, str]]:
    """Return a question of each kind about a scene, with its answer."""
    side, placed = random.choice([("left", scene.left), ("right", scene.right)])
    sought, where = random.choice([(scene.left, "left"), (scene.right, "right")])
    present = [scene.left.thing, scene.right.thing]
    asked, answer = random.choice([(random.choice(present), "Yes."), (_other_thing(present, random), "No.")])
    return [
        (f"What is on the {side}?", f"A {placed}."),
        (f"Where is the {sought.thing}?", f"On the {where}."),
        (f"Is there a {asked}?", answer),
        ("Which one is larger?", _larger(scene)),
    ]


def _other_thing(present: Sequence[Thing], random: Random) -> Thing:
    """Return a thing that is not there, and that has the colour or the shape of one that is."""
    near = [t for t in THINGS if t not in present and any(t.colour == p.colour or t.shape == p.shape for p in present)]
    return random.choice(near)


def _larger(scene: Scene) -> str:
    if scene.left.size == scene.right.size:
        return "Neither."
    return f"The {(scene.left if scene.left.size == 'large' else scene.right).thing}."


def draw(scene: Scene, random: Random, photographs: Sequence[Image.Image]) -> Image.Image:
    """Return the picture of a scene, RGB, `SIDE` pixels on each side. Things lie near the middle of their halves.

    Args:
        scene: What to draw.
        random: Decides on what a scene leaves open.
        photographs: RGB, at least `SIDE` pixels on each side. A part of one is the ground of scenes on photographs.
    """
    picture = _ground(scene.ground, random, photographs)
    half = SIDE // 2
    for placed, begin in ((scene.left, 0), (scene.right, half)):
        radius = SIZES[placed.size]
        x = begin + half // 2 + random.randint(-JITTER, JITTER)
        _draw_thing(ImageDraw.Draw(picture), placed.thing, x, _height(random), radius)
    return picture


def draw_clip(clip: Clip, random: Random) -> list[Image.Image]:
    """Return the frames of a clip: the thing crosses the picture at one height, in equal steps."""
    radius = SIZES[clip.placed.size]
    y = _height(random)
    places = [radius + 1 + step * (SIDE - 2 * radius - 3) // (FRAMES - 1) for step in range(FRAMES)]
    frames = []
    for x in places if clip.towards == "right" else reversed(places):
        frame = Image.new("RGB", (SIDE, SIDE), GROUNDS[clip.ground])
        _draw_thing(ImageDraw.Draw(frame), clip.placed.thing, x, y, radius)
        frames.append(frame)
    return frames


def _ground(name: str, random: Random, photographs: Sequence[Image.Image]) -> Image.Image:
    if name != PHOTOGRAPH:
        return Image.new("RGB", (SIDE, SIDE), GROUNDS[name])
    photograph = random.choice(photographs)
    x, y = random.randint(0, photograph.width - SIDE), random.randint(0, photograph.height - SIDE)
    return photograph.crop((x, y, x + SIDE, y + SIDE))


def _height(random: Random) -> int:
    return SIDE // 2 + random.randint(-JITTER, JITTER)


def _draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, x: int, y: int, radius: int) -> None:
    """Draw a thing around (x, y), with an outline: so its shape is the same to see in all colours."""
    left, top, right, bottom, arm = x - radius, y - radius, x + radius, y + radius, 2 * radius // 5
    if thing.shape == "circle":
        pen.ellipse((left, top, right, bottom), COLOURS[thing.colour], OUTLINE, width=2)
        return
    corners = {
        "square": [(left, top), (right, top), (right, bottom), (left, bottom)],
        "triangle": [(x, top), (right, bottom), (left, bottom)],
        "cross": [
            *[
                (x - arm, top),
                (x + arm, top),
                (x + arm, y - arm),
                (right, y - arm),
                (right, y + arm),
                (x + arm, y + arm),
            ],
            *[
                (x + arm, bottom),
                (x - arm, bottom),
                (x - arm, y + arm),
                (left, y + arm),
                (left, y - arm),
                (x - arm, y - arm),
            ],
        ],
    }
    pen.polygon(corners[thing.shape], COLOURS[thing.colour], OUTLINE, width=2)
