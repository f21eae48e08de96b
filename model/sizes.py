"""At what size each image and frame is encoded, within a budget of tokens (arXiv 2501.13106, 2.1; facts of the code).

One token is a square of f x f pixels, f = patch side x merge size. An item is an image, or a clip with all its frames.

1. Alone, an item gets sides rounded to the nearest multiple of f, shrunk to its own maximum, grown to its minimum:
   transformers' `smart_resize`.
2. If all items together want more than the budget, each gets the same share of what it wants, but never less than
   its minimum. So one large page among small icons keeps most of the budget, and equal items get equal shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import BadSampleError

MAX_RATIO = 200
"""Longest side over shortest, as in transformers."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Item:
    """An image or a clip to be sized.

    Attributes:
        height: Pixels as they come.
        width: Pixels as they come.
        factor: f, pixels per token's side.
        min_tokens: Of an image or one frame; of a clip that may not have so many for all frames, fewer.
        max_tokens: Of an image or a whole clip.
        frames: 1 for an image.
        name: For messages.
    """

    height: int
    width: int
    factor: int
    min_tokens: int
    max_tokens: int
    frames: int = 1
    name: str = "image"

    def tokens(self, size: Size) -> int:
        """Tokens of all frames at that size."""
        return self.frames * size[0] * size[1] // self.factor**2

    def fit(self, max_pixels: int | None = None) -> Size:
        """Height and width, multiples of f, for at most that many pixels per frame (its own maximum by default).

        Raises:
            BadSampleError: No pixels, or a side more than 200 times the other.
        """
        own = self.max_tokens * self.factor**2 // self.frames
        most = own if max_pixels is None else min(own, max_pixels)
        return _fit(self.height, self.width, self.factor, self.min_tokens * self.factor**2, most, self.name)

    def smallest(self) -> Size:
        """The least that keeps its minimum, or what its maximum allows."""
        return min(
            self.fit(),
            _scaled(self.height, self.width, self.factor, self.min_tokens * self.factor**2, math.ceil),
            key=self.tokens,
        )


def plan_sizes(items: Sequence[Item], budget: int) -> list[Size]:
    """Height and width of every item, multiples of its f, together at most `budget` tokens.

    Raises:
        BadSampleError: The items do not fit even at their minimum, or one has no size.
    """
    sizes = [item.fit() for item in items]
    if _total(items, sizes) <= budget:
        return sizes
    least = [item.tokens(item.smallest()) for item in items]
    if sum(least) > budget:
        raise BadSampleError(
            f"{len(items)} images and clips need at least {sum(least)} tokens, the budget is {budget}: "
            "give fewer images or frames, or raise max_tokens"
        )
    left = budget
    while _total(items, sizes := _shrink(items, sizes, least, left)) > budget:
        left -= max(_total(items, sizes) - budget, 1)  # a side cannot be less than f: an item took more than its share
    return sizes


def _total(items: Sequence[Item], sizes: Sequence[Size]) -> int:
    return sum(item.tokens(size) for item, size in zip(items, sizes, strict=True))


def _shrink(items: Sequence[Item], sizes: Sequence[Size], least: Sequence[int], budget: int) -> list[Size]:
    """Each item at its share of the budget, those with less than their minimum at their minimum."""
    wanted = [item.tokens(size) for item, size in zip(items, sizes, strict=True)]
    at_least: set[int] = set()
    while True:
        left = max(budget - sum(least[i] for i in at_least), 0)
        rest = sum(wanted[i] for i in range(len(items)) if i not in at_least)
        poor = {i for i in range(len(items)) if i not in at_least and left * wanted[i] <= least[i] * rest}
        if not poor:
            break
        at_least |= poor
    return [
        item.smallest()
        if i in at_least
        # In whole numbers, so that a share that is a square number of pixels stays one.
        else item.fit(left * wanted[i] * item.factor**2 // (rest * item.frames))
        for i, item in enumerate(items)
    ]


def _fit(height: int, width: int, factor: int, min_pixels: int, max_pixels: int, name: str) -> Size:
    if min(height, width) < 1 or max(height, width) > MAX_RATIO * min(height, width):
        raise BadSampleError(
            f"{name} of {width} x {height} pixels: crop it, sides may differ {MAX_RATIO} times at most"
        )
    size = round(height / factor) * factor, round(width / factor) * factor
    if size[0] * size[1] > max_pixels:
        size = _scaled(height, width, factor, max_pixels, math.floor)
    if size[0] * size[1] < min_pixels:
        grown = _scaled(height, width, factor, min_pixels, math.ceil)
        if grown[0] * grown[1] <= max_pixels:  # transformers grows beyond the maximum, and shrinks below the minimum
            size = grown
    return max(size[0], factor), max(size[1], factor)


def _scaled(height: int, width: int, factor: int, pixels: int, whole: Callable[[float], int]) -> Size:
    """Sides of about that many pixels in all, rounded to multiples of f by `whole`, in transformers' order of steps."""
    if whole is math.floor:
        beta = math.sqrt(height * width / pixels)
        return max(whole(height / beta / factor), 1) * factor, max(whole(width / beta / factor), 1) * factor
    beta = math.sqrt(pixels / (height * width))
    return whole(height * beta / factor) * factor, whole(width * beta / factor) * factor
