"""chrF of one text: what it is by its definition."""

from __future__ import annotations

import pytest

from core.chrf import chrf, corpus_chrf


def test_chrf_of_one_text_is_that_of_its_corpus() -> None:
    score, signature = corpus_chrf(["a red dog"], ["a red fox"])
    assert chrf("a red dog", "a red fox") == score
    assert signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_chrf_is_the_f2_of_character_sequences() -> None:
    """ "ab" and "ac": 1 of 2 single characters, 0 of 1 pair; no longer sequences."""
    assert chrf("ab", "ac") == pytest.approx(25.0)
    assert (chrf("a red dog", "a red dog"), chrf("xy", "ab"), chrf("", "ab")) == (100.0, 0.0, 0.0)
