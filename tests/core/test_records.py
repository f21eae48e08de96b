"""The record: what it refuses, and that JSON gives it back exactly."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.boxes import SYSTEMS, to_pixels, to_thousandths
from core.errors import BadSampleError
from core.records import Record, Turn

FILM = {"key": "v0", "type": "video", "path": "a.mp4", "start": 10.0, "end": 70.0}
MINIMAL: dict[str, Any] = {"id": "set/1/1", "source": {"dataset": "set"}, "turns": [{"role": "user", "parts": []}]}


def record(**changes: Any) -> Record:
    return Record.model_validate({**MINIMAL, "media": [FILM], **changes})


def turn(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", **fields}]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"turns": turn(parts=[{"media": "i0"}])}, "speaks of the medium 'i0'"),
        ({"turns": turn(parts=[{"text": "a", "media": "v0"}])}, "a part is a text or a medium"),
        ({"turns": turn(parts=[{}])}, "a part is a text or a medium"),
        ({"turns": turn(time=math.nan)}, "greater than or equal|finite"),
        ({"turns": turn(time=-1.0)}, "greater than or equal"),
        ({"turns": turn(time="7")}, "valid number"),
        ({"turns": turn(spans=[{"media": "v0", "start": 5, "end": 2}])}, "span 5-2 s ends before it starts"),
        ({"turns": turn(spans=[{"media": "v0", "start": 5, "end": math.inf}])}, "finite|less than"),
        ({"turns": turn(parts=[{"text": "\ud83d"}])}, "not valid Unicode"),
        ({"turns": []}, "at least 1"),
        ({"media": [FILM, FILM]}, "two media have the same key"),
        ({"media": [FILM | {"end": 10.0}]}, "the clip ends at 10 s"),
        ({"media": [FILM | {"type": "image"}]}, "an image has no times"),
        ({"media": [FILM | {"path": ""}]}, "a path is empty"),
        ({"choices": {"options": ["a", "b"], "answer_index": 2}}, "answer 2 of 2 options"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_record_refuses_what_makes_no_sense(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        record(**changes)


@pytest.mark.parametrize(
    ("box", "system", "reason"),
    [
        ([0, 0, 1001.5, 5], "norm1000_xyxy", "outside"),
        ([0, 0, 1.2, 0.5], "fraction_xyxy", "outside"),
        ([0.5, 0, 0.6, 0.5], "fraction_xywh", "outside"),
        ([5, 0, 4, 9], "pixel_xyxy", "edge before the other"),
        ([5, 0, -4, 9], "pixel_xywh", "edge before the other"),
        ([-9, 0, 4, 9], "pixel_xyxy", "outside"),
        ([0, 0, math.nan, 1], "pixel_xyxy", "finite"),
        ([0, 0, 1, 1], "percent", "Input should be 'norm1000_xyxy'"),
    ],
)
def test_region_refuses_a_box_that_is_none(box: list[float], system: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        record(turns=turn(regions=[{"media": "v0", "box": box, "system": system}]))


SAME_BOX = {
    "norm1000_xyxy": (250, 200, 750, 600),
    "pixel_xyxy": (100, 40, 300, 120),
    "pixel_xywh": (100, 40, 200, 80),
    "fraction_xyxy": (0.25, 0.2, 0.75, 0.6),
    "fraction_xywh": (0.25, 0.2, 0.5, 0.4),
    "padded_fraction_xyxy": (0.25, 0.35, 0.75, 0.55),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_one_box_in_six_systems_is_the_same_pixels(system: Any) -> None:
    assert to_pixels(SAME_BOX[system], system, 400, 200) == pytest.approx((100, 40, 300, 120))
    assert to_thousandths(SAME_BOX[system], system, 400, 200) == (250, 200, 750, 600)


def test_box_outside_of_its_picture_is_refused() -> None:
    with pytest.raises(BadSampleError, match="outside of a picture of 400x200"):
        to_pixels((0, 0, 300, 260), "pixel_xyxy", 400, 200)


def test_learned_by_default_are_answers() -> None:
    assert [Turn(role=role).is_learned for role in ("system", "user", "assistant", "stream")] == [
        False,
        False,
        True,
        False,
    ]
    assert not Turn(role="assistant", learn=False).is_learned


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
SECONDS = st.floats(0, 1e6)
TURNS = st.builds(
    lambda role, text, time, learn, start, more: {
        "role": role,
        "parts": [{"media": "v0"}, {"text": text}],
        "time": time,
        "learn": learn,
        "spans": [{"media": "v0", "start": start, "end": start + more}],
        "regions": [{"media": "v0", "box": [start, more, start, more], "system": "pixel_xywh", "phrase": [0, 1]}],
    },
    st.sampled_from(["user", "assistant"]),
    TEXTS,
    st.none() | SECONDS,
    st.none() | st.booleans(),
    SECONDS,
    SECONDS,
)


@given(st.lists(TURNS, min_size=1, max_size=3), TEXTS, st.lists(TEXTS, max_size=2))
def test_record_comes_back_from_json_exactly(turns: list[dict[str, Any]], name: str, transforms: list[str]) -> None:
    made = record(turns=turns, transforms=transforms, licence={"name": name, "non_commercial": False})
    text = made.to_json()
    assert Record.from_json(text) == made
    assert Record.from_json(text).to_json() == text
    assert "\n" not in text
    assert json.loads(text)["licence"] == {"non_commercial": False} | ({"name": name} if name != "unknown" else {})
