"""What the benchmarks of training are fed with: a mixture of captions, questions, several images, clips and text.

The paper does not tell lengths. These are drawn with a fixed seed: images of any resolution and short and long answers,
as in its mixtures. Mean about 800 tokens, some of nearly 4,000; longer ones are drawn again, since in training images
and clips shrink to a budget. Of 100 samples

     25  short captions      an image, an answer of about 18 tokens
     30  detailed captions   an image, about 170
     20  questions           an image, one to six questions of about 15 tokens, answers of about 25
      8  several images      two to four, one question, an answer of about 80
     10  text                a question of about 60 tokens, an answer of about 250
      7  clips               8 to 64 frames of 10 x 18 patches, merged 2 x 2, an answer of about 100

An image has about 440 patches, as of 340 x 250 pixels, mostly 160 to 1,200, each of which is a token. All of these are
log-normal about their medians.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

SHARES = {"short": 25, "detailed": 30, "questions": 20, "images": 8, "text": 10, "clip": 7}
LONGEST = 4000

_MESSAGE = 5  # tokens of ChatML around a message
_TIME = 8  # of the time before a frame
_FRAME = (10, 18)


@dataclass(frozen=True)
class Drawn:
    """A sample, of which only sizes are known.

    Attributes:
        kind: A key of `SHARES`.
        images: Height and width of each, patches; a clip has one.
        frames: Of a clip, else 0.
        turns: Tokens of each question and of its answer.
    """

    kind: str
    images: tuple[tuple[int, int], ...]
    frames: int
    turns: tuple[tuple[int, int], ...]

    @property
    def patches(self) -> int:
        """All that the encoder sees."""
        return sum(height * width for height, width in self.images) * max(self.frames, 1)

    @property
    def visual(self) -> int:
        """Their tokens."""
        return self.patches // 4 if self.frames else self.patches

    @property
    def tokens(self) -> int:
        """Of the whole conversation."""
        text = sum(question + answer + 2 * _MESSAGE for question, answer in self.turns)
        return self.visual + self.frames * _TIME + text


def draw(
    count: int, seed: int, kinds: Sequence[str] = tuple(SHARES), scale: float = 1.0, longest: int = LONGEST
) -> list[Drawn]:
    """Samples of some kinds, with texts and images (by area) `scale` times as large, of at most so many tokens."""
    dice = random.Random(seed)
    weights = [SHARES[kind] for kind in kinds]
    drawn: list[Drawn] = []
    while len(drawn) < count:
        one = _sample(dice, dice.choices(kinds, weights)[0], scale)
        if one.tokens <= longest:
            drawn.append(one)
    return drawn


def _sample(dice: random.Random, kind: str, scale: float) -> Drawn:
    def words(median: int, sigma: float) -> int:
        return max(round(scale * _lognormal(dice, median, sigma)), 2)

    def image() -> tuple[int, int]:
        area, ratio = scale * min(max(_lognormal(dice, 440, 0.6), 64), 3400), _lognormal(dice, 1, 0.3)
        return max(round(math.sqrt(area / ratio)), 4), max(round(math.sqrt(area * ratio)), 4)

    if kind == "short":
        return Drawn(kind, (image(),), 0, ((words(8, 0.3), words(18, 0.35)),))
    if kind == "detailed":
        return Drawn(kind, (image(),), 0, ((words(10, 0.3), words(170, 0.45)),))
    if kind == "questions":
        turns = tuple((words(15, 0.5), words(25, 0.8)) for _ in range(dice.randint(1, 6)))
        return Drawn(kind, (image(),), 0, turns)
    if kind == "images":
        pictures = tuple(image() for _ in range(dice.randint(2, 4)))
        return Drawn(kind, pictures, 0, ((words(25, 0.5), words(80, 0.6)),))
    if kind == "text":
        return Drawn(kind, (), 0, ((words(60, 1.0), words(250, 0.8)),))
    return Drawn(kind, (_FRAME,), dice.randint(8, 64), ((words(15, 0.5), words(100, 0.6)),))


def _lognormal(dice: random.Random, median: float, sigma: float) -> float:
    return dice.lognormvariate(math.log(median), sigma)
