"""Rows with one broken value, in every format: rejected with a reason in words, and the rest is imported."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.importing import Imported, import_source
from tests.model.training.data.importers.object_files import answers
from tests.model.training.data.importers.published.broken_values import broken_rows, changed
from tests.model.training.data.importers.published.fixtures import PUBLISHED

PYTHON_ERROR = re.compile(r"\w+Error: ")


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_broken_values_are_rejected_in_words_and_no_row_lost(name: str, tmp_path: Path) -> None:
    broken = broken_rows(PUBLISHED[name], tmp_path)
    result = between_good_rows(name, broken, tmp_path)
    assert result.report.rows >= len(broken) + 2
    assert result.rejected
    assert [reason for reason in result.reasons if PYTHON_ERROR.match(reason)] == []


def between_good_rows(name: str, broken: list[Any], folder: Path) -> Imported:
    """Import broken rows between two good ones. The records of the good ones must be there."""
    published = PUBLISHED[name]
    good = published.rows[0]
    for place in ("alone", "all"):
        (folder / place).mkdir()
    source, options = published.write_rows(folder / "alone", [good])
    alone = import_source(name, source, None, folder / "alone/out", options=options)
    source, options = published.write_rows(folder / "all", [good, *broken, good])
    result = import_source(name, source, None, folder / "all/out", options=options)
    counts = Counter(answers(result))
    assert [text for text in answers(alone) if counts[text] < 2] == []
    return result


HUGE = 10**400  # JSON has whole numbers of any length, and no float is as large
OUTSIDE = [350, 20, 100, 60]  # of a picture of 400 x 200
SPANS = ("location", "7")
PHRASE = ("short_captions", 0, "details", 0)


@pytest.mark.parametrize(
    ("name", "place", "value", "reason"),
    [
        ("captioned-tars", ("caption",), 7, "no text in `caption`: 7"),
        ("coco", (1, 0, "bbox", 2), HUGE, "no box: "),
        ("finevideo", ("json",), [], "no description: `json` has no object"),
        ("grand", ("objects", 0, "id"), [], "no id of an object: []"),
        ("grand", (*PHRASE, "tokens_positive"), 7, "no begin and end of a phrase: 7 of 'a pot'"),
        ("grand", (*PHRASE, "tokens_positive"), [0, 5.0], "no begin and end of a phrase: [0, 5.0]"),
        ("imagebind-llm", ("url",), "", "a medium without a path: ''"),
        ("infovqa", ("image_local_name",), None, "a medium without a path: None"),
        ("infovqa", ("answers",), [], "no answers: "),
        ("koala36m", ("caption",), "", "empty caption: "),
        ("koala36m", ("timestamp",), "['0:00:04', '0:00:01']", "the clip ends at 1 s, before it starts at 4 s"),
        ("llava", ("references",), [7], "no texts in `references`: [7]"),
        ("minigpt4", ("caption",), " ", "empty caption: "),
        ("momentor", ("qa", 0, "variables"), 7, "not an object: int"),
        ("nextgqa", ("duration",), None, "no time in `duration`: None"),
        ("nextgqa", SPANS, 7, "no list of spans: 7"),
        ("nextgqa", SPANS, [[2.5, 1.0]], "a span ends before it starts: 2.5-1 s"),
        ("nextgqa", SPANS, [[1.0, 90.0]], "span outside of the film: "),
        ("objects365", (1, 0, "category_id"), 7, "an unknown category: 7"),
        ("objects365", (1, 0, "bbox"), OUTSIDE, "box [350.0, 20.0, 100.0, 60.0] (pixel_xywh) reaches outside"),
        ("openvid", ("video",), "", "a medium without a path: ''"),
        ("openvid", ("caption",), " ", "empty caption: "),
        ("openvid", ("seconds",), "long", "no time in `seconds`: 'long'"),
        ("osprey", ("annotation", 0, "segmentation", 0, 0), HUGE, "no polygon: "),
        ("penguin-recap-i", ("conversations",), "x", "no conversation: 'x'"),
        ("penguin-recap-i", ("conversations", 0, "from"), "bot", "unknown speaker: 'bot'"),
        ("penguin-recap-i", ("conversations", 1, "value"), "", "empty answer: turn 1"),
        ("queryd", (0, 1, 0), 7, "no texts in `captions`: [7, 'sits']"),
        ("qvhighlights", ("relevant_clip_ids",), 7, "no list of numbers in `relevant_clip_ids`: 7"),
        ("qvhighlights", ("relevant_clip_ids", 0), "x", "no list of numbers in `relevant_clip_ids`: ['x', "),
        ("sharegpt4video", ("timestamp",), 7, "no list in `timestamp`: 7"),
        ("sharegpt4video", ("captions", 0, "idx"), "x", "no number of a key frame in `idx`: 'x'"),
        ("textocr", (1, 0, "utf8_string"), 7, "no text in `utf8_string`: 7"),
        ("textocr", (1, 0, "bbox"), OUTSIDE, "box [350.0, 20.0, 100.0, 60.0] (pixel_xywh) reaches outside"),
        ("textocr", (0, "width"), None, "no size of the picture: [None, 200]"),
        ("vitt", ("annotations",), [], "no tags: `annotations` is empty"),
        ("vtimellm", ("meta",), 7, "not an object: int"),
        ("vtimellm", ("meta", "token"), "x", "not an object: str"),
    ],
    ids=lambda value: "huge" if value == HUGE else None,
)  # fmt: skip
def test_one_broken_value_has_its_reason(
    name: str, place: tuple[Any, ...], value: Any, reason: str, tmp_path: Path
) -> None:
    result = between_good_rows(name, [changed(PUBLISHED[name].rows[0], place, value)], tmp_path)
    assert [said[: len(reason)] for said in result.reasons[:1]] == [reason]
    assert len({(row["file"], row["line"]) for row in result.rejected}) == 1
