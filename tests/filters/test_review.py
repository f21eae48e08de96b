"""The stage that holds marks of people: it knows of none by itself."""

from __future__ import annotations

import pyarrow as pa

from filters.review import Review


def test_image_that_nobody_marked_passes_a_rule_on_wrong_ones() -> None:
    facts = Review()(pa.table({"format": ["JPEG", None]}))
    assert facts.to_pylist() == [
        {"review_wrong": 0, "review_good": 0, "review_unsure": 0, "review_note": None},
        {"review_wrong": 0, "review_good": 0, "review_unsure": 0, "review_note": None},
    ]
    assert facts.schema.types == Review.writes.types
