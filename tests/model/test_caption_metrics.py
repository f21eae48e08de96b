"""Metrics against numbers worked out by hand or published."""

from __future__ import annotations

import math
from typing import Any

import pytest

from model.caption_metrics import CLIP_PREFIX, caption_metrics, clip_score


def test_identical_texts_have_full_marks() -> None:
    texts = ["A dog runs on the beach.", "4"]
    metrics = caption_metrics(texts, texts)
    assert (metrics.chrf, metrics.rouge_l, metrics.exact) == (pytest.approx(100), 1.0, 1.0)
    assert (metrics.count, metrics.rouge_l_count) == (2, 2)
    assert "nc:6|nw:0" in metrics.chrf_signature


def test_different_texts_have_zero_marks() -> None:
    metrics = caption_metrics(["xyz"], ["a dog"])
    assert (metrics.chrf, metrics.rouge_l, metrics.exact) == (0.0, 0.0, 0.0)


def test_chrf_of_a_known_pair_is_right() -> None:
    """Precision is 1; recall 2 of 3 letters, 1 of 2 pairs, mean 7/12; longer n-grams the text has none.

    F with recall counted twice: 5 * 7/12 / (4 + 7/12) = 7/11.
    """
    assert caption_metrics(["ab"], ["abc"]).chrf == pytest.approx(700 / 11)


def test_chrf_is_of_the_corpus_not_a_mean() -> None:
    """Counts are summed first. Letters: hits 2 + 0, given 2 + 1, wanted 3 + 1. Pairs: hits 1, given 1, wanted 2."""
    precision, recall = (2 / 3 + 1) / 2, (2 / 4 + 1 / 2) / 2
    expected = 100 * 5 * precision * recall / (4 * precision + recall)
    assert caption_metrics(["ab", "x"], ["abc", "y"]).chrf == pytest.approx(expected)


def test_rouge_l_equals_the_published_example() -> None:
    """Lin 2004, section 3.1: S2 and S3 against S1; here precision and recall are equal, so F1 is that number."""
    reference = "police killed the gunman"
    assert caption_metrics(["police kill the gunman"], [reference]).rouge_l == pytest.approx(3 / 4)
    assert caption_metrics(["the gunman kill police"], [reference]).rouge_l == pytest.approx(2 / 4)
    both = caption_metrics(["police kill the gunman", "the gunman kill police"], [reference] * 2)
    assert both.rouge_l == pytest.approx(5 / 8)


def test_rouge_l_is_f1_where_precision_and_recall_differ() -> None:
    """Three of three words against three of five: 2 * 1 * 0.6 / 1.6."""
    metrics = caption_metrics(["The cat sat!"], ["the cat sat down there"])
    assert metrics.rouge_l == pytest.approx(0.75)


def test_rouge_l_is_nan_for_texts_its_library_cannot_read() -> None:
    chinese = caption_metrics(["一只猫"], ["一只猫"])
    assert math.isnan(chinese.rouge_l)
    assert (chinese.rouge_l_count, chinese.chrf) == (0, pytest.approx(100))
    mixed = caption_metrics(["一只猫", "a cat"], ["一只猫", "a cat"])
    assert (mixed.rouge_l, mixed.rouge_l_count) == (1.0, 1)


def test_exact_match_ignores_case_and_space_only() -> None:
    metrics = caption_metrics([" yes\n", "RED  car", "4."], ["Yes", "red car", "4"])
    assert metrics.exact == pytest.approx(2 / 3)


def test_texts_and_references_must_come_in_pairs() -> None:
    for texts, references in (([], []), (["a"], ["a", "b"])):
        with pytest.raises(ValueError, match=f"{len(texts)} texts for {len(references)} references"):
            caption_metrics(texts, references)


@pytest.mark.parametrize(
    ("image", "text", "score"),
    [([1, 0], [2, 0], 2.5), ([3, 4], [1, 0], 1.5), ([0, 1], [1, 0], 0.0), ([-1, 0], [1, 0], 0.0)],
    ids=["same direction", "cosine 0.6", "at right angles", "opposite"],
)
def test_clip_score_of_known_embeddings_is_right(image: list[float], text: list[float], score: float) -> None:
    calls: list[tuple[Any, str]] = []

    def encode(picture: Any, words: str) -> tuple[Any, Any]:
        calls.append((picture, words))
        return image, text

    assert clip_score(b"image", "A dog.", encode) == pytest.approx(score)
    assert calls == [(b"image", CLIP_PREFIX + "A dog.")]


def test_empty_caption_has_a_clip_score_of_zero() -> None:
    assert clip_score(b"image", " ", lambda image, text: ([1.0], [1.0])) == 0.0
