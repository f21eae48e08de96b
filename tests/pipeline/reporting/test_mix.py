"""The page of `vl3syn mix`: what it leaves out, it says."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from model.training.preview import Segment, ShownFrame, ShownMedium, ShownPiece, ShownSample
from pipeline.reporting import mix
from pipeline.reporting.mix import SourceView, mix_page

SIDE = 64


def medium(seed: int) -> ShownMedium:
    """An image that no JPEG makes small."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    return ShownMedium([ShownFrame(pixels, None, 16)], 1, 16, 16)


def sample(media: int = 1, segments: int = 1, pieces: int = 1) -> ShownSample:
    piece = ShownPiece([medium(n) for n in range(media)], [Segment("text", f"turn {n};", 3) for n in range(segments)])
    return ShownSample("one", [piece] * pieces)


def page(*sources: list[ShownSample]) -> str:
    return mix_page(
        "mine", [], [SourceView("first", f"source {n}", len(one), iter(one)) for n, one in enumerate(sources)]
    )


def test_every_source_has_pictures_when_the_page_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mix, "BUDGET", 40_000)  # some ten pictures
    sections = page([sample(20)], [sample(20)], [sample(1)]).split("<section")[2:]
    counts = [section.count("<img ") for section in sections]
    assert counts[0] >= 2
    assert counts[1] >= counts[0]
    assert counts[2] == 1
    assert sum(counts) < 20
    assert sections[0].count("left out: too many pictures") == 20 - counts[0]


def test_long_sample_is_cut_and_the_page_says_so() -> None:
    html = page([sample(media=26, segments=100, pieces=9)])
    assert html.count("<h4>piece ") == 4
    assert "<h4>piece 4 of 9</h4>" in html
    assert "left out: 5 more pieces" in html
    assert html.count("left out: 2 more media, 40 more segments") == 4
    assert html.count("turn 59;") == 4
    assert "turn 60;" not in html


def test_pixels_of_few_samples_are_in_memory_at_a_time() -> None:
    """Those of all of them may be gigabytes."""
    alive: set[int] = set()
    peaks = []

    def samples() -> Iterator[ShownSample]:
        for number in range(6):
            one = sample()
            alive.add(number)
            weakref.finalize(one.pieces[0].media[0], alive.discard, number)
            yield one
            del one
            gc.collect()
            peaks.append(len(alive))

    mix_page("mine", [], [SourceView("first", "source", 6, samples())])
    assert peaks == [1] * 6, "that which the page has just taken"
