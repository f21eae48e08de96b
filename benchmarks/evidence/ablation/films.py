"""Films in which one object moves on a plain ground, and the sentence that says which way.

    film       one object moves from the middle to the left, right, top or bottom
    caption    An owl on a grey ground moves left.

The first frame does not tell which way: who sees only that one and guesses has a loss of ln 4, 1.39 nats, on the
direction. Each frame has grain as of a camera, and x264 encodes it: so what stands still changes a little from frame
to frame, as in real films.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from evidence.arms.cut_outs import Materials
from evidence.arms.pool import conversation, write_lines
from evidence.arms.scenes import GROUNDS, SIDE, varied, with_article

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Where an object moves, as steps in x and y."""

QUESTION = "What happens?"

MOVES = "moves"
"""The word of a caption before the direction."""

SECONDS, RATE = 3, 2
"""Length of a film, and its frames per second. One frame per second is sampled."""

GRAIN, CRF = 0.4, 23
"""Standard deviation of the grain, in grey levels, and x264's setting of quality, its default."""

TRAVEL = 32
"""Pixels from the first place of the object to its last one."""

# Without mbtree, which looks ahead: it would encode the first frame of a film by where its object moves later.
_X264 = {"crf": str(CRF), "threads": "1", "x264-params": "mbtree=0"}
_OBJECTS = (0.55, 0.67)  # of a cut-out's full size: at most 38 pixels, so that it stays inside
_STARTS = (34, 40)  # the first x and y, for all directions the same: 34 - 32 and 40 + 32 + 38 are inside


def kind() -> dict[str, float]:
    """Return the settings that make other films if they change."""
    return {"seconds": SECONDS, "rate": RATE, "grain": GRAIN, "crf": CRF, "travel": TRAVEL}


@dataclass(frozen=True)
class Film:
    """A film.

    Attributes:
        mover: The object.
        direction: A key of `DIRECTIONS`.
        ground: A name of `GROUNDS`.
    """

    mover: str
    direction: str
    ground: str


def random_film(names: Sequence[str], random: Random) -> Film:
    """Return a film of any object, direction and ground."""
    return Film(random.choice(names), random.choice(list(DIRECTIONS)), random.choice(list(GROUNDS)))


def caption(film: Film) -> str:
    """Return the sentence that says what moves which way, on which ground."""
    said = f"{with_article(film.mover)} on {with_article(film.ground)} ground {MOVES} {film.direction}."
    return said[0].upper() + said[1:]


def frames(film: Film, random: Random, materials: Materials) -> Iterator[Image.Image]:
    """Yield the frames of a film without grain: RGB, `SIDE` pixels wide and high."""
    mover = varied(materials.objects[film.mover], random, _OBJECTS)
    step_x, step_y = DIRECTIONS[film.direction]
    start_x, start_y = random.randint(*_STARTS), random.randint(*_STARTS)
    for number in range(SECONDS * RATE):
        moved = round(TRAVEL * number / (SECONDS * RATE - 1))
        frame = Image.new("RGB", (SIDE, SIDE), GROUNDS[film.ground])
        frame.paste(mover, (start_x + step_x * moved, start_y + step_y * moved), mover)
        yield frame


def encode(pictures: Iterator[Image.Image], path: Path, seed: int) -> None:
    """Write pictures as an H.264 film with grain."""
    import av
    import numpy as np

    noise = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options=dict(_X264))
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            grain = noise.normal(0, GRAIN, (SIDE, SIDE, 1))
            pixels = (np.asarray(picture) + grain).round().clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def write_films(count: int, seed: str, materials: Materials, folder: Path) -> None:
    """Write films and FOLDER/annotations.jsonl. Everything follows from `seed`."""
    random = Random(seed)
    (folder / "films").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        film = random_film(list(materials.objects), random)
        path = f"films/{number:05d}.mp4"
        encode(frames(film, random, materials), folder / path, random.randrange(1 << 32))
        lines.append({"video": path, "conversations": conversation(f"<video>\n{QUESTION}", caption(film))})
    write_lines(lines, folder)
