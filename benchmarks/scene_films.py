"""Films with known cuts: moving patterns and photographs, flashes, fades, dissolves and hard cuts.

The photographs are those of installed wheels (scikit-image, mvtb-data), else generated clouds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

FPS = 25
Picture = npt.NDArray[np.uint8]
Shot = Callable[[int], Picture]
"""The picture of a shot by the number of its frame: uint8 (height, width, 3)."""

_WHEELS = (("skimage", "data"), ("mvtbdata", "images"))
_LARGEST = 2**20  # bytes of a photograph; larger ones take seconds to decode
_DROPPED = 0.3  # share of the frames that a film of variable rate leaves out


@dataclass
class Truth:
    """What happens in a film, in seconds.

    Attributes:
        cuts: Times of the first frames after hard cuts.
        gradual: Start and end of fades and dissolves.
        flashes: Times of flashes of one or two frames.
        length: Length of the film.
    """

    cuts: list[float] = field(default_factory=list)
    gradual: list[tuple[float, float]] = field(default_factory=list)
    flashes: list[float] = field(default_factory=list)
    length: float = 0.0


@dataclass(frozen=True)
class Score:
    """How well found cuts fit the hard cuts of a film: numbers of cuts, and shares from 0 to 1."""

    right: int
    found: int
    true: int

    @property
    def precision(self) -> float:
        return self.right / max(self.found, 1)

    @property
    def recall(self) -> float:
        return self.right / max(self.true, 1)

    @property
    def f1(self) -> float:
        return 2 * self.right / max(self.found + self.true, 1)


def compare(found: Sequence[float], true: Sequence[float], tolerance: float = 0.1) -> Score:
    """Match found cuts with true ones, one to one, each with the nearest within `tolerance` seconds."""
    pairs = sorted((abs(f - t), f, t) for f in found for t in true if abs(f - t) <= tolerance + 1e-9)
    used_found: set[float] = set()
    used_true: set[float] = set()
    for _, f, t in pairs:
        if f not in used_found and t not in used_true:
            used_found.add(f)
            used_true.add(t)
    return Score(len(used_true), len(found), len(true))


def render(
    path: Path,
    seed: int,
    shots: int = 20,
    size: tuple[int, int] = (320, 180),
    codec: str = "libx264",
    is_variable: bool = False,
) -> Truth:
    """Write a film of some shots; most follow one another by a hard cut. Every frame that is kept has its own time.

    Args:
        path: The file; its ending chooses the container.
        seed: Another seed gives another film.
        shots: Number of shots.
        size: Width and height in pixels.
        codec: FFmpeg's name of the encoder.
        is_variable: Whether frames are left out by chance, never the first after a hard cut.
    """
    import av

    truth = Truth()
    rng, dropping = random.Random(seed), random.Random(f"dropped {seed}")
    with av.open(str(path), "w") as output:
        stream = output.add_stream(
            codec, rate=FPS, options={"preset": "ultrafast", "crf": "20"} if codec == "libx264" else {}
        )
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 2_000_000
        stream.codec_context.time_base = stream.time_base = Fraction(1, FPS)
        for number, picture in enumerate(_frames(rng, shots, size, truth)):
            at = number / FPS
            if is_variable and at not in truth.cuts and dropping.random() < _DROPPED:
                continue
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return truth


def _frames(rng: random.Random, shots: int, size: tuple[int, int], truth: Truth) -> Iterator[Picture]:
    """Yield the pictures of a film, and write into `truth` what happens, before the picture where it does."""
    photographs = _photographs(rng)
    number, faded = 0, 0  # `faded`: frames of the next shot that the last transition has shown
    shot = _shot(rng, size, photographs)
    for index in range(shots):
        frames = rng.randint(30, 90)
        flash = rng.randint(18, frames - 10) if rng.random() < 0.1 else None
        if flash is not None:
            truth.flashes.append((number + flash - faded) / FPS)
        for k in range(faded, frames):
            flashed = flash is not None and flash <= k < flash + 2
            picture = shot(k)
            yield _blend(picture, np.full_like(picture, 255), 0.7) if flashed else picture
            number += 1
        if index == shots - 1:
            break
        following, faded = _shot(rng, size, photographs), 0
        chance, steps = rng.random(), rng.randint(12, 25)
        if chance < 0.8:
            truth.cuts.append(number / FPS)
        else:
            truth.gradual.append((number / FPS, (number + steps) / FPS))
            for k in range(steps):
                yield _transition(shot(frames + k), following(k), (k + 1) / (steps + 1), black=chance > 0.9)
            number, faded = number + steps, steps
        shot = following
    truth.length = number / FPS


def _transition(before: Picture, after: Picture, share: float, black: bool) -> Picture:
    if not black:
        return _blend(before, after, share)
    dark = np.zeros_like(before)
    return _blend(before, dark, 2 * share) if share < 0.5 else _blend(dark, after, 2 * share - 1)


def _blend(one: Picture, other: Picture, share: float) -> Picture:
    return (one * (1 - share) + other * share).astype(np.uint8)


def _shot(rng: random.Random, size: tuple[int, int], photographs: Sequence[Image.Image]) -> Shot:
    kind = rng.choice([_pan, _pan, _shake, _zoom, _still, _grating, _boxes])
    return kind(rng, size, rng.choice(photographs))


def _pan(rng: random.Random, size: tuple[int, int], photograph: Image.Image) -> Shot:
    """A photograph, seen through a window that moves by up to 4 pixels a frame."""
    picture, speed, angle = _covering(photograph, size, 1.8), rng.uniform(0.5, 4), rng.uniform(0, 2 * math.pi)
    return lambda k: _window(picture, size, speed * k * math.cos(angle), speed * k * math.sin(angle))


def _shake(rng: random.Random, size: tuple[int, int], photograph: Image.Image) -> Shot:
    """A photograph in a window that jitters, as a camera in a hand."""
    picture, jitter = _covering(photograph, size, 1.4), rng.randrange(2**31)

    def shot(k: int) -> Picture:
        steps = random.Random(jitter + k)
        return _window(picture, size, 8 * math.sin(k / 9) + steps.uniform(-1, 1), steps.uniform(-1, 1))

    return shot


def _zoom(rng: random.Random, size: tuple[int, int], photograph: Image.Image) -> Shot:
    """A photograph that comes nearer by 0.5 % a frame."""
    picture = Image.fromarray(_covering(photograph, size, 1.5))

    def shot(k: int) -> Picture:
        width, height = (side * 0.995**k for side in picture.size)
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, (left, top, left + width, top + height)))

    return shot


def _still(rng: random.Random, size: tuple[int, int], photograph: Image.Image) -> Shot:
    """A photograph that does not move, with the noise of a sensor."""
    picture, seed = _window(_covering(photograph, size, 1.0), size, 0, 0).astype(np.int16), rng.randrange(2**31)

    def shot(k: int) -> Picture:
        noise = np.random.default_rng(seed + k).integers(-5, 6, picture.shape, np.int16)
        return (picture + noise).clip(0, 255).astype(np.uint8)

    return shot


def _grating(rng: random.Random, size: tuple[int, int], photograph: Image.Image) -> Shot:
    """Waves of two colours that move."""
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    angle, period, speed = rng.uniform(0, math.pi), rng.uniform(20, 90), rng.uniform(0.02, 0.15)
    colours = np.array([[rng.randrange(256) for _ in range(3)] for _ in range(2)], np.float64)
    phase = (columns * math.cos(angle) + rows * math.sin(angle)) * 2 * math.pi / period

    def shot(k: int) -> Picture:
        share = (np.sin(phase + speed * k)[..., None] + 1) / 2
        return (colours[0] * share + colours[1] * (1 - share)).astype(np.uint8)

    return shot


def _boxes(rng: random.Random, size: tuple[int, int], photograph: Image.Image) -> Shot:
    """Boxes that cross a photograph at up to 6 pixels a frame."""
    ground = _window(_covering(photograph, size, 1.0), size, 0, 0)
    boxes = [
        (rng.randrange(size[0]), rng.randrange(size[1]), rng.uniform(-6, 6), [rng.randrange(256) for _ in range(3)])
        for _ in range(4)
    ]

    def shot(k: int) -> Picture:
        picture = ground.copy()
        for left, top, speed, colour in boxes:
            x = round(left + speed * k) % size[0]
            picture[top : top + 40, x : x + 40] = colour
        return picture

    return shot


def _covering(photograph: Image.Image, size: tuple[int, int], margin: float) -> Picture:
    """Scale a photograph so that it covers `margin` times the frame."""
    scale = margin * max(size[0] / photograph.width, size[1] / photograph.height)
    sides = math.ceil(photograph.width * scale), math.ceil(photograph.height * scale)
    return np.asarray(photograph.resize(sides, Image.Resampling.BICUBIC))


def _window(picture: Picture, size: tuple[int, int], x: float, y: float) -> Picture:
    """Cut a frame out of a picture, at an offset from its middle; a window that would leave it turns round."""
    offsets = []
    for offset, side, whole in ((y, size[1], picture.shape[0]), (x, size[0], picture.shape[1])):
        room = whole - side
        place = (room // 2 + round(offset)) % (2 * room) if room else 0
        offsets.append(min(place, 2 * room - place))
    top, left = offsets
    return np.ascontiguousarray(picture[top : top + size[1], left : left + size[0]])


def _photographs(rng: random.Random) -> list[Image.Image]:
    files: list[Path] = []
    for package, inside in _WHEELS:
        spec = find_spec(package)
        if spec and spec.origin:
            files += sorted((Path(spec.origin).parent / inside).rglob("*"))
    files = [file for file in files if file.suffix in (".png", ".jpg") and 20_000 < file.stat().st_size < _LARGEST]
    if not files:
        return [_clouds(rng) for _ in range(12)]
    return [_opened(file) for file in rng.sample(files, min(12, len(files)))]


def _opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        photograph = image.convert("RGB")
    photograph.thumbnail((800, 800))
    return photograph


def _clouds(rng: random.Random) -> Any:
    coarse = Image.frombytes("RGB", (12, 8), rng.randbytes(12 * 8 * 3)).resize((600, 400), Image.Resampling.BICUBIC)
    fine = Image.frombytes("RGB", (300, 200), rng.randbytes(300 * 200 * 3)).resize((600, 400))
    return Image.blend(coarse, fine, 0.2)
