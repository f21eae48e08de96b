"""Scenes of many shapes and sizes, as they are and squeezed into one square.

Two objects lie along the longer side: on the left and on the right, or at the top and at the bottom.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from evidence.arms.cut_outs import Materials
from evidence.arms.pool import conversation, write_lines
from evidence.arms.scenes import Scene, caption, draw, frequencies, random_scene

QUESTION = "What is there?"

SHAPES = (
    *((224, 56), (56, 224), (224, 84), (84, 224)),
    *((224, 112), (112, 224)),
    *((112, 140), (140, 140), (168, 168)),
)
"""Width and height in pixels, equally frequent. In blocks of 28 pixels: 16 to 36 tokens, 25 in the mean."""

SQUARE = 140
"""Side of the square, in pixels: 25 tokens."""

STRIP, OBLONG = 2.5, 1.5
"""Longer side by shorter side above which a shape is called a strip, or an oblong."""


def kind(size: tuple[int, int]) -> str:
    """Return `strip`, `oblong` or `square`."""
    ratio = max(size) / min(size)
    return "strip" if ratio > STRIP else "oblong" if ratio > OBLONG else "square"


def caption_of(scene: Scene, size: tuple[int, int]) -> str:
    """Return the caption of a scene of that shape."""
    said = caption(scene)
    if size[0] >= size[1]:
        return said
    return said.replace(" on the left", " at the top").replace(" on the right", " at the bottom")


def write_scenes(count: int, seed: str, materials: Materials, folder: Path) -> None:
    """Write the same scenes twice: FOLDER/any as they are, FOLDER/fixed as squares. All objects are equally frequent.

    Everything follows from `seed`. `shape` of an annotation is the scene's `kind`.
    """
    random, names = Random(seed), list(materials.objects)
    samples = []
    for way in ("any", "fixed"):
        (folder / way / "pictures").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        size = SHAPES[number % len(SHAPES)]
        scene = random_scene(names, frequencies(names, 0), random)
        picture = draw(scene, random, materials, size)
        path = f"pictures/{number:05d}.png"
        picture.save(folder / "any" / path, compress_level=1)
        picture.resize((SQUARE, SQUARE)).save(folder / "fixed" / path, compress_level=1)
        turns = conversation(f"<image>\n{QUESTION}", caption_of(scene, size))
        samples.append({"image": path, "shape": kind(size), "conversations": turns})
    for way in ("any", "fixed"):
        write_lines(samples, folder / way)
