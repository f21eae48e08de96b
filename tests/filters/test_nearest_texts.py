"""The nearest texts: those of a full search, in any batch, and ties in the order of the texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import nearest_texts
from filters.nearest_texts import NearestTexts

CPU = torch.device("cpu")


def unit(dice: np.random.Generator, rows: int, dimensions: int) -> np.ndarray:
    vectors = dice.normal(size=(rows, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_nearest_texts_of_known_vectors_are_right() -> None:
    texts = np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8]], np.float16)
    numbers, cosines = NearestTexts(texts, CPU).search(np.array([[1, 0], [0, 1]], np.float32), 3)
    assert numbers.tolist() == [[0, 3, 1], [1, 3, 0]]
    assert cosines == pytest.approx(np.array([[1, 0.6, 0], [1, 0.8, 0]]), abs=1e-3)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 99), images=st.integers(0, 30), texts=st.integers(4, 40), count=st.integers(1, 4),
    copies=st.integers(0, 3),
)  # fmt: skip
def test_search_equals_a_sort_of_all_cosines(seed: int, images: int, texts: int, count: int, copies: int) -> None:
    dice = np.random.default_rng(seed)
    vectors, near = unit(dice, texts, 24), unit(dice, images, 24).astype(np.float32)
    vectors[texts - copies :] = vectors[:copies]  # equal vectors: the first one wins
    exact = np.array([[np.dot(i.astype(float), t.astype(float)) for t in vectors] for i in near], np.float32)
    expected = [np.lexsort((np.arange(texts), -row))[:count].tolist() for row in exact]
    numbers, cosines = NearestTexts(vectors, CPU).search(near, count)
    assert numbers.tolist() == expected
    assert cosines.shape == (images, count)
    assert all((np.diff(row) <= 0).all() for row in cosines)


def test_image_has_the_same_texts_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(0)
    vectors, images = unit(dice, 700, 64), unit(dice, 60, 64).astype(np.float32)
    vectors[350:] = vectors[:350] + np.float16(1e-4)  # pairs that a matrix product may take for each other
    search = NearestTexts(vectors, CPU)
    numbers, cosines = search.search(images, 5)
    monkeypatch.setattr(nearest_texts, "_PAIRS", 7)
    for size in (1, 7, 59):
        parts = [search.search(images[start : start + size], 5) for start in range(0, 60, size)]
        assert np.array_equal(np.concatenate([part[0] for part in parts]), numbers)
        assert np.array_equal(np.concatenate([part[1] for part in parts]), cosines)
    monkeypatch.setattr(nearest_texts, "_AT_ONCE", 1500)
    assert np.array_equal(search.search(images, 5)[0], numbers)


def test_texts_that_are_all_equal_are_sorted_by_number() -> None:
    vectors = np.tile(unit(np.random.default_rng(1), 1, 16), (50, 1))
    numbers, _ = NearestTexts(vectors, CPU).search(vectors[:9].astype(np.float32), 3)
    assert numbers.tolist() == [[0, 1, 2]] * 9


def test_rounding_of_the_matrix_product_decides_nothing() -> None:
    """All cosines are equal, as sums of the same numbers in other orders, which float32 rounds in other ways."""
    dice = np.random.default_rng(2)
    one = unit(dice, 1, 256)[0]
    vectors = np.stack([dice.permutation(one) for _ in range(400)])
    image = np.full((1, 256), 0.0617, np.float32)
    assert len(np.unique(image @ vectors.astype(np.float32).T)) > 1
    numbers, _ = NearestTexts(vectors, CPU).search(image, 3)
    assert numbers.tolist() == [[0, 1, 2]]
