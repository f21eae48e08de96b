"""Choose the size at which each image and frame is encoded, within a token budget (arXiv 2501.13106, section 2.1).

One token covers f x f pixels, f = patch side x merge size. An item is an image, or a video with all its frames.

1. An item alone: round its sides to the nearest multiple of f, shrink it to its maximum, grow it to its minimum, as
   transformers' `smart_resize` does.
2. If all items together want more tokens than the budget, each gets the same fraction of what it wants, but at least
   its minimum. So a large page among small icons keeps most of the budget, and equal items get equal shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import BadSampleError

MAX_RATIO = 200
"""Maximum ratio of the longer side to the shorter one, as in transformers."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Item:
    """An image or a video to be sized.

    Attributes:
        height: Original height, in pixels.
        width: Original width, in pixels.
        factor: f, the side of a token in pixels.
        min_tokens: Minimum tokens of an image or of each frame. A video gets fewer if `max_tokens` requires it.
        max_tokens: Maximum tokens of an image or of a whole video.
        frames: Number of frames; 1 for an image.
        name: Name for messages.
    """

    height: int
    width: int
    factor: int
    min_tokens: int
    max_tokens: int
    frames: int = 1
    name: str = "image"

    def tokens(self, size: Size) -> int:
        """Return the number of tokens of all frames at a size."""
        return self.frames * size[0] * size[1] // self.factor**2

    def fit(self, max_pixels: int | None = None) -> Size:
        """Return height and width, multiples of f, with at most `max_pixels` per frame and within the item's maximum.

        Raises:
            BadSampleError: A side is 0, or more than 200 times the other.
        """
        own_limit = self.max_tokens * self.factor**2 // self.frames
        most = own_limit if max_pixels is None else min(own_limit, max_pixels)
        return _fit(self.height, self.width, self.factor, self.min_tokens * self.factor**2, most, self.name)

    def smallest(self) -> Size:
        """Return the smallest size with `min_tokens` per frame, or `fit()` if that is smaller."""
        return min(
            self.fit(),
            _scaled(self.height, self.width, self.factor, self.min_tokens * self.factor**2, math.ceil),
            key=self.tokens,
        )


def plan_sizes(items: Sequence[Item], budget: int) -> list[Size]:
    """Return the height and width of every item, multiples of its f, together at most `budget` tokens.

    Raises:
        BadSampleError: The items exceed the budget even at their minimum, or an item has no valid size.
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
        left -= max(_total(items, sizes) - budget, 1)  # sides are at least f, so an item can exceed its share
    return sizes


def _total(items: Sequence[Item], sizes: Sequence[Size]) -> int:
    return sum(item.tokens(size) for item, size in zip(items, sizes, strict=True))


def _shrink(items: Sequence[Item], sizes: Sequence[Size], least: Sequence[int], budget: int) -> list[Size]:
    """Return each item's size at its share of the budget, or at its minimum if the share is smaller."""
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
        # Integer arithmetic, so that a share that is a square number of pixels stays one.
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
        if grown[0] * grown[1] <= max_pixels:  # transformers may grow beyond the maximum, or shrink below the minimum
            size = grown
    return max(size[0], factor), max(size[1], factor)


def _scaled(height: int, width: int, factor: int, pixels: int, whole: Callable[[float], int]) -> Size:
    """Return sides with about `pixels` in all, rounded by `whole` to multiples of f, in transformers' order."""
    if whole is math.floor:
        beta = math.sqrt(height * width / pixels)
        return max(whole(height / beta / factor), 1) * factor, max(whole(width / beta / factor), 1) * factor
    beta = math.sqrt(pixels / (height * width))
    return whole(height * beta / factor) * factor, whole(width * beta / factor) * factor
