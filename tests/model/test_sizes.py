from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import smart_resize

from model.sizes import Item, plan_sizes

BUDGET = 16384


def _image(height: int, width: int, merge: int = 1, frames: int = 1) -> Item:
    return Item(height, width, 14 * merge, 16, BUDGET, frames)


sides = st.integers(1, 6000)


@settings(max_examples=300)
@given(sides, sides, st.sampled_from([1, 2]))
def test_single_image_gets_the_size_of_transformers(height: int, width: int, merge: int) -> None:
    if max(height, width) > 200 * min(height, width):
        return
    f = 14 * merge
    theirs = smart_resize(height, width, f, 16 * f * f, BUDGET * f * f)
    assert plan_sizes([_image(height, width, merge)], BUDGET) == [theirs]


@settings(max_examples=200)
@given(st.lists(st.tuples(sides, sides, st.sampled_from([1, 2]), st.integers(1, 20)), min_size=1, max_size=30))
def test_sizes_are_between_the_minimum_and_the_budget(shapes: list[tuple[int, int, int, int]]) -> None:
    items = [_image(h, w, m, t) for h, w, m, t in shapes if max(h, w) <= 20 * min(h, w)]
    budget = 4000
    try:
        sizes = plan_sizes(items, budget)
    except ValueError as error:
        assert "raise max_tokens" in str(error)  # noqa: PT017
        assert sum(item.tokens(item.smallest()) for item in items) > budget
        return
    assert sum(item.tokens(size) for item, size in zip(items, sizes, strict=True)) <= budget
    for item, (height, width) in zip(items, sizes, strict=True):
        assert height % item.factor == width % item.factor == 0
        assert height * width // item.factor**2 >= 16


def test_equal_images_get_the_equal_shares_of_the_reference() -> None:
    """`simple_batched_resize`: floor(max_tokens * f^2 / n) pixels each."""
    cap = BUDGET * 196 // 9
    beta = math.sqrt(2000 * 3000 / cap)
    expected = math.floor(2000 / beta / 14) * 14, math.floor(3000 / beta / 14) * 14
    assert plan_sizes([_image(2000, 3000)] * 9, BUDGET) == [expected] * 9


def test_large_image_among_small_ones_keeps_most_of_the_budget() -> None:
    items = [_image(4000, 4000), *[_image(112, 112)] * 99]
    large, *small = plan_sizes(items, BUDGET)
    # They want 16,384 and 99 x 64 tokens. Equal shares would give it 163.
    assert items[0].tokens(large) == pytest.approx(BUDGET * 16384 / (16384 + 99 * 64), rel=0.02)
    assert all(size == small[0] for size in small)
    assert 30 <= items[1].tokens(small[0]) <= 64


def test_frames_of_a_clip_share_its_budget() -> None:
    """180 frames of 16:9 at 10240 tokens: 50 tokens each, 280 x 140 pixels (facts)."""
    (size,) = plan_sizes([_image(1080, 1920, 2, 180)], 10240)
    assert size == (140, 280)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (10, 200), (2000, 100), (3, 600)])
def test_extreme_aspect_ratios_keep_a_whole_patch(shape: tuple[int, int]) -> None:
    (size,) = plan_sizes([_image(*shape)], BUDGET)
    assert min(size) >= 14
    assert 16 <= size[0] * size[1] // 196 <= 64 or shape == (2000, 100)


def test_images_beyond_the_budget_at_minimum_size_are_refused() -> None:
    items = [_image(3000, 2000)] * 400
    sizes = plan_sizes(items, BUDGET)
    assert sum(items[0].tokens(size) for size in sizes) <= BUDGET
    with pytest.raises(ValueError, match=r"1200 images and clips need at least .* give fewer"):
        plan_sizes(items * 3, BUDGET)


@pytest.mark.parametrize("shape", [(1, 201), (0, 10)])
def test_strips_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="crop it"):
        plan_sizes([_image(*shape)], BUDGET)


def test_clip_of_many_frames_may_go_below_the_minimum() -> None:
    clip = Item(360, 640, 28, 128, 768, frames=48)
    (size,) = plan_sizes([clip], BUDGET)
    assert clip.tokens(size) <= 768
