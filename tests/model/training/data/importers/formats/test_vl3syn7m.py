"""VL3-Syn7M: the keys are guessed, said in the report, and refused where two may be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.importing import import_entries


@pytest.mark.parametrize(
    ("entry", "image", "text"),
    [
        ({"image": "0/1.jpg", "caption": "A red kettle."}, "image", "caption"),
        ({"url": "https://a.example/1.jpg?x=1", "recaption": "A red kettle.", "size": "4 x 4"}, "url", "recaption"),
        ({"key": "0/1.webp", "url": "https://a.example/1", "said": "A red kettle."}, "key", "said"),
        ({"image": ["1.jpg"], "conversations": [{"from": "human", "value": "<image>\nDescribe the image."},
          {"from": "gpt", "value": "A red kettle."}]}, "image", "conversations"),
    ],
)  # fmt: skip
def test_keys_are_guessed_and_the_guess_is_reported(tmp_path: Path, entry: Any, image: str, text: str) -> None:
    imported = import_entries(tmp_path, "vl3syn7m", [entry])
    (record,) = imported.records
    assert record.turns[0].text.strip() == "Describe the image."
    assert record.turns[1].text == "A red kettle."
    value = entry[image]
    assert record.media[0].path == (value if isinstance(value, str) else value[0])
    assert list(imported.report.notes.counted) == [f"guessed that the image is in `{image}` and the text in `{text}`"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (
            {"image": "1.jpg", "image2": "2.jpg", "caption": "A kettle."},
            "it is not clear which key has the image: image and",
        ),
        (
            {"image": "1.jpg", "short_caption": "A kettle.", "long_caption": "A red one."},
            "it is not clear which key has the",
        ),
        (
            {"image": "1.jpg", "a": "one text", "b": "two texts"},
            "it is not clear which key has the text: a and b; give --set",
        ),
        ({"image": "1.jpg", "id": "7"}, "it is not clear which key has the text: none of image, id"),
        ({"caption": "A kettle."}, "it is not clear which key has the image: none of caption"),
    ],
)
def test_ties_are_refused(tmp_path: Path, entry: dict[str, Any], reason: str) -> None:
    good = {"image": "1.jpg", "caption": "A kettle."}
    imported = import_entries(tmp_path, "vl3syn7m", [good, entry])
    assert len(imported.records) == 1
    assert imported.reasons[0].startswith(reason)


def test_set_decides_a_tie(tmp_path: Path) -> None:
    entry = {"image": "1.jpg", "short_caption": "A kettle.", "long_caption": "A red one."}
    options = {"text": "long_caption", "question": "What is it?"}
    (record,) = import_entries(tmp_path, "vl3syn7m", [entry], options=options).records
    assert [turn.text for turn in record.turns] == ["What is it?", "A red one."]
