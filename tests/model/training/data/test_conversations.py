"""One form for everything that is learned, boxes and times as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import Processor
from model.training.data.conversations import from_turns, streaming
from model.training.data.grounding import box_text, boxes_of, grounding_text, ocr_text, span_text, spans_of
from tests.model import clips

Turn = dict[str, Any]


def say(*values: str) -> list[Turn]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


def test_media_replace_their_marks() -> None:
    conversation = from_turns(say("A <image>\nB<video> <image>", "C", "<image>\n\nD", "E <image>"), [1, 2, 3], ["film"])
    one, two, three = ({"type": "image", "image": number} for number in (1, 2, 3))
    assert [message["content"] for message in conversation] == [
        ["A ", one, "B", {"type": "video", "video": "film"}, " ", two],
        "C",
        [three, "\nD"],
        "E <image>",  # an assistant's words are words
    ]


def test_system_message_is_accepted_only_first() -> None:
    system = {"from": "system", "value": "Be <image> short."}
    conversation = from_turns([system, *say("A", "B")], ["x"])
    assert conversation[0] == {"role": "system", "content": "Be <image> short."}
    assert conversation[1]["content"] == [{"type": "image", "image": "x"}, "A"]
    with pytest.raises(ValueError, match="turns go user, assistant, system"):
        from_turns([*say("A", "B"), system])


@pytest.mark.parametrize("names", [("human", "gpt"), ("user", "assistant")])
def test_both_names_of_a_speaker_are_accepted(names: tuple[str, str]) -> None:
    conversation = from_turns([{"from": names[0], "value": "A"}, {"from": names[1], "value": "B"}])
    assert [message["role"] for message in conversation] == ["user", "assistant"]


sides = st.integers(1, 8000)


@st.composite
def images_with_boxes(draw: st.DrawFn) -> tuple[int, int, list[tuple[float, float, float, float]]]:
    width, height = draw(sides), draw(sides)
    shares = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)
    result = []
    for _ in range(draw(st.integers(0, 5))):
        (x0, x1), (y0, y1) = draw(shares), draw(shares)
        result.append((x0 * width, y0 * height, x1 * width, y1 * height))
    return width, height, result


@given(images_with_boxes(), st.booleans())
def test_boxes_are_read_back_within_half_a_thousandth(
    drawn: tuple[int, int, list[tuple[float, float, float, float]]], spaced: bool
) -> None:
    width, height, boxes = drawn
    text = box_text(boxes, width, height)
    assert re.fullmatch(r"\[(\[\d+,\d+,\d+,\d+\],?)*\]", text)
    assert all(0 <= int(number) <= 1000 for number in re.findall(r"\d+", text))
    result = boxes_of(f"In 2020 {text.replace(',', ', ') if spaced else text} or [1, 2].", width, height)
    assert len(result) == len(boxes)
    for ours, theirs in zip(result, boxes, strict=True):
        for at, side in enumerate((width, height) * 2):
            assert abs(ours[at] - theirs[at]) <= side / 2000 * (1 + 1e-9)


@given(images_with_boxes(), st.lists(st.text(st.characters(exclude_characters="[]")), min_size=5, max_size=5))
def test_boxes_within_a_text_are_read_back(
    drawn: tuple[int, int, list[tuple[float, float, float, float]]], names: list[str]
) -> None:
    width, height, boxes = drawn
    expected = boxes_of(box_text(boxes, width, height), width, height)
    assert boxes_of(ocr_text(list(zip(names, boxes, strict=False)), width, height), width, height) == expected
    things = [(name, boxes[at : at + 2]) for name, at in zip(names, range(0, len(boxes), 2), strict=False)]
    assert boxes_of(grounding_text(things, width, height), width, height) == expected


def test_grounding_and_ocr_have_the_form_of_the_paper() -> None:
    boxes = [(0.0, 0.0, 100.0, 50.0), (25.0, 10.0, 75.0, 50.0)]
    assert grounding_text([("cats", boxes), ("lamp", [])], 100, 50) == (
        "<ref>cats</ref>[[0,0,1000,1000],[250,200,750,1000]]\n<ref>lamp</ref>[]"
    )
    assert ocr_text([("STOP", boxes[1])], 100, 50) == "STOP <box>[250,200,750,1000]</box>"


def test_four_numbers_that_are_not_a_box_are_ignored() -> None:
    assert boxes_of("[1,2,3] [0,0,1001,5] [5,0,4,9] [0,9,4,5] [1,2,3,4,5] [0,0,12345,1]", 10, 10) == []


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 11, 5), (6, 0, 5, 5), (0, 6, 5, 5), (0, 0, float("nan"), 5)])
def test_invalid_box_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="in an image of 10x10: give x0 <= x1, y0 <= y1 within it"):
        box_text([box], 10, 10)


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)).map(sorted)))
def test_spans_are_read_back_within_a_twentieth_of_a_second(drawn: list[list[float]]) -> None:
    spans = [(start, end) for start, end in drawn]
    result = spans_of(f"At {span_text(spans)}, 3 to 4.")
    assert len(result) == len(spans)
    for ours, theirs in zip(result, spans, strict=True):
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= 0.05 + 1e-6


def test_invalid_spans_are_refused_in_writing_ignored_in_reading() -> None:
    for span in [(2.0, 1.0), (-1.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)]:
        with pytest.raises(ValueError, match="give 0 <= start <= end"):
            span_text([span])
    assert span_text([(1.0, 2.0), (7.25, 9.0)]) == "1.0-2.0 s, 7.2-9.0 s"
    assert spans_of("5-3 s, 3-4 sheep, 10 - 12.5s") == [(10.0, 12.5)]


def test_stream_turn_follows_the_frames_up_to_its_time() -> None:
    turns: list[Turn] = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Tell me.", "time": 2},
        {"role": "assistant", "content": "One.", "time": 2.0},
        {"role": "assistant", "content": "Two.", "time": 5.5},
        {"role": "user", "content": "And now?", "time": 6.0},
        {"role": "user", "content": "Well?"},
        {"role": "assistant", "content": "Three.", "time": 7.0},
    ]

    def seen(start: float, end: float) -> Turn:
        return {"type": "video", "video": "film", "start": start, "end": end, "fps": 2}

    assert streaming("film", turns, 1.0, fps=2) == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [seen(1, 2), "Tell me."]},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": [seen(2, 5.5)]},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": [seen(5.5, 6), "And now?", "Well?", seen(6, 7)]},
        {"role": "assistant", "content": "Three."},
    ]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "the last to speak must be an assistant"),
        ([("user", "A", 1)], "the last to speak must be an assistant"),
        ([("user", "A", 1), ("assistant", "B", 2), ("user", "C", 3)], "the last to speak must be an assistant"),
        ([("user", "A", 3), ("assistant", "B", 2)], "turn 1 at 2 s comes before 3 s: sort turns by time"),
        ([("user", "A", 1), ("assistant", "B", 1), ("assistant", "C", 1)], "turn 2: an answer at 1 s to nothing new"),
        ([("assistant", "B", 0)], "turn 0: an answer at 0 s to nothing new"),
        ([("user", "A", 1), ("system", "B", 1)], "turn 1 must be .* system comes first"),
        ([("bot", "A", 1)], "turn 0 must be"),
        ([("user", None, 1)], "turn 0 must be"),
        ([("user", "A", "soon")], "time of turn 0: 'soon': give seconds, 0 or more"),
        ([("user", "A", None)], "time of turn 0: None: give seconds, 0 or more"),
        ([("user", "A", float("nan"))], "time of turn 0: nan: give seconds"),
        ([("user", "A", -1)], "time of turn 0: -1: give seconds"),
    ],
)
def test_invalid_stream_is_refused(turns: list[tuple[Any, Any, Any]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        streaming("film", [{"role": role, "content": text, "time": time} for role, text, time in turns])


def test_stream_is_in_order_and_its_comments_are_learned(tmp_path: Path) -> None:
    film = clips.write(tmp_path / "film.mp4", [k / 5 for k in range(40)])
    turns: list[Turn] = [
        {"role": "user", "content": "Tell me.", "time": 2.0},
        {"role": "assistant", "content": "One.", "time": 2.0},
        {"role": "assistant", "content": "Two.", "time": 4.0},
        {"role": "assistant", "content": "Three.", "time": 4.5},
    ]
    processor = Processor.tiny()
    tensors = processor(streaming(str(film), turns), labels=True, generation_prompt=False)
    read = processor.decode(tensors["input_ids"])
    parts = re.findall(r"Time [\d.]+s|Tell me\.|One\.|Two\.|Three\.", read)
    assert parts == [
        "Time 0.0s",
        "Time 1.0s",
        "Tell me.",
        "One.",
        "Time 2.0s",
        "Time 3.0s",
        "Two.",
        "Time 4.0s",
        "Three.",
    ]
    assert processor.decode(tensors["labels"][tensors["labels"] >= 0]) == "One.Two.Three."
    assert tensors["grid_thw"][:, 0].tolist() == [2, 2, 1]
