"""One form for everything that is learned, boxes and times as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import Processor
from model.training.data.conversations import from_turns, streaming
from tests.model import clips
from tests.model.training import training_data

Turn = dict[str, Any]
PROCESSOR = Processor.tiny()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A film of 2 s."""
    return str(clips.write(tmp_path_factory.mktemp("film") / "film.mp4", [k / 5 for k in range(10)], size=(28, 28)))


def say(*values: str) -> list[Turn]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


def test_media_replace_their_marks() -> None:
    conversation = from_turns(say("A <image>\nB<video> <image>", "C", "<image>\n\nD", "E <image>"), [1, 2, 3], ["film"])
    one, two, three = ({"type": "image", "image": number} for number in (1, 2, 3))
    assert [message["content"] for message in conversation] == [
        ["A", one, "B", {"type": "video", "video": "film"}, two],
        "C",
        [three, "D"],
        "E <image>",  # an assistant's words are words
    ]


PIECES = st.lists(st.text(" \n\t\r\u00a0ab", max_size=5), min_size=1, max_size=4)


@given(PIECES)
@settings(max_examples=25)
@pytest.mark.parametrize("mark", ["<image>", "<video>"])
def test_tokens_of_questions_equal_the_original_ones(film: str, mark: str, pieces: list[str]) -> None:
    """The rule of DAMO-NLP-SG/VideoLLaMA3: `_convert_normal` of train.py, then the template of processor.py."""
    medium = {"<image>": "<|image_pad|>\n", "<video>": "Time 0.0s:<|video_pad|>,Time 1.0s:<|video_pad|>\n"}[mark]
    media = [training_data.picture(1) if mark == "<image>" else film] * (len(pieces) - 1)
    chunks = [chunk.strip() for chunk in mark.join(pieces).split(mark)]
    expected = f"<|im_start|>user\n{medium.join(chunks)}<|im_end|>\n<|im_start|>assistant\n It.\n<|im_end|>\n"

    turns = say(mark.join(pieces), " It.\n")
    conversation = from_turns(turns, media, []) if mark == "<image>" else from_turns(turns, [], media)
    ids = PROCESSOR(conversation, labels=True, generation_prompt=False)["input_ids"].tolist()
    placeholders = set(PROCESSOR.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"]))
    once = [id_ for number, id_ in enumerate(ids) if id_ not in placeholders or id_ != ids[number - 1]]
    assert once == PROCESSOR.tokenizer(expected)["input_ids"]


@pytest.mark.parametrize("text", [" \n What? \n\n", "What?", "  "])
def test_question_without_media_is_stripped_but_not_its_answer(text: str) -> None:
    expected = [text.strip()] if text.strip() else []
    assert [message["content"] for message in from_turns(say(text, " It.\n"))] == [expected, " It.\n"]


@pytest.mark.parametrize(
    ("spoken", "kept"),
    [
        ("AQA", "QA"),
        ("AAQAQA", "QAQA"),
        ("QQA", "QQA"),
        ("QAQQQA", "QAQQQA"),
        ("QAA", "QAA"),
        ("QAQ", "QA"),
        ("AQQAAQQ", "QQAA"),
        ("ASQA", "SQA"),
        ("SAQA", "SAQA"),
        ("SQQA", "SQQA"),
    ],
)
def test_turns_out_of_order_are_kept_as_in_the_original(spoken: str, kept: str) -> None:
    """The original begins with the first question or system message. A last question has nothing that is learned."""
    names = {"S": "system", "Q": "human", "A": "gpt"}
    roles = {"S": "system", "Q": "user", "A": "assistant"}
    conversation = from_turns([{"from": names[who], "value": f"{who}{n}"} for n, who in enumerate(spoken)])
    assert [message["role"] for message in conversation] == [roles[who] for who in kept]
    begin = spoken.index(kept)
    texts = [f"{who}{n}" for n, who in enumerate(spoken)][begin : begin + len(kept)]
    assert ["".join(message["content"]) for message in conversation] == texts
    row = PROCESSOR(conversation, labels=True, generation_prompt=False)
    expected = "".join(
        f"<|im_start|>{message['role']}\n{text}<|im_end|>\n" for message, text in zip(conversation, texts, strict=True)
    )
    assert row["input_ids"].tolist() == PROCESSOR.tokenizer(expected)["input_ids"]
    learned = "".join(text for text in texts if text[0] == "A")
    assert PROCESSOR.decode(row["labels"][row["labels"] >= 0]) == learned


def test_media_keep_their_questions_when_turns_are_trimmed() -> None:
    turns = [{"from": "gpt", "value": ""}, *say("What?", "It.", "<image>And?")]
    assert [message["content"] for message in from_turns(turns, [1])] == [["What?"], "It."]
    first = {"type": "image", "image": 1}
    turns = [{"from": "gpt", "value": "Hi <image>."}, *say("What?", "It.")]
    assert from_turns(turns, [1])[0]["content"] == [first, "What?"]
    with pytest.raises(ValueError, match="message 2: an answer without words"):
        from_turns([{"from": "gpt", "value": "Hi."}, *say("What?", " ")])


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

    def seen(until: float, end: float = 7.0) -> Turn:
        return {"type": "video", "video": "film", "start": 1.0, "end": end, "until": until, "fps": 2}

    expected = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [seen(2), "Tell me."]},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": [seen(5.5)]},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": [seen(6), "And now?", "Well?", seen(7)]},
        {"role": "assistant", "content": "Three."},
    ]
    assert streaming("film", turns, 1.0, fps=2) == expected
    longer = streaming("film", turns, 1.0, 60, fps=2)
    assert longer[1]["content"][0] == seen(2, 60)
    assert [message["role"] for message in longer] == [message["role"] for message in expected]


def test_answers_of_a_stream_may_follow_without_frames() -> None:
    """All turns are kept, as in the reference; what follows the last answer teaches nothing."""
    turns: list[Turn] = [
        {"role": "assistant", "content": "One.", "time": 1},
        {"role": "assistant", "content": "Two.", "time": 1},
        {"role": "assistant", "content": "Three."},
        {"role": "user", "content": "And?", "time": 3},
    ]
    frames = {"type": "video", "video": "film", "start": 0.0, "end": 3.0, "until": 1.0}
    assert streaming("film", turns) == [
        {"role": "user", "content": [frames]},
        *({"role": "assistant", "content": text} for text in ("One.", "Two.", "Three.")),
    ]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "a stream without an answer: nothing to learn in it"),
        ([("user", "A", 1)], "a stream without an answer: nothing to learn in it"),
        ([("user", "A", 3), ("assistant", "B", 2)], "turn 1 at 2 s comes before 3 s: sort turns by time"),
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


@pytest.mark.parametrize(
    ("end", "reason"), [("soon", "end_time: 'soon': give seconds, 0 or more"), (0.5, "end_time 0.5 s comes before")]
)
def test_invalid_end_time_is_refused(end: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        streaming("film", [{"role": "assistant", "content": "A", "time": 2}], 1.0, end)


def reference(turns: list[Turn], start: float, end: float, fps: float, max_frames: int) -> list[str]:
    """Frames and comments in the order of `_convert_stream` in VideoLLaMA3's train.py, for a film of any frame rate."""
    times = [k / fps for k in range(1000) if start <= k / fps <= end]
    if len(times) > max_frames:
        times = [times[k] for k in np.linspace(0, len(times) - 1, max_frames, dtype=int)]
    order = []
    for turn in turns:
        while times and times[0] <= turn["time"]:
            order.append(f"Time {times.pop(0) - start:.1f}s")
        order.append(turn["content"])
    return order


@pytest.mark.parametrize("max_frames", [180, 5])
@pytest.mark.parametrize(("start", "end", "fps"), [(0.0, 7.0, 1), (2.0, 7.0, 1), (0.0, 7.5, 2), (1.0, 4.5, 2)])
def test_stream_has_the_order_and_times_of_the_reference(
    tmp_path: Path, start: float, end: float, fps: float, max_frames: int
) -> None:
    """One grid over the film, times from its start, frames up to and with a turn's time, one limit for all of them."""
    film = clips.write(tmp_path / "film.mp4", [k / 5 for k in range(40)])
    times = [(who, time) for who, time in (("user", 2.0), ("assistant", 2.0), ("assistant", 2.4), ("assistant", 5.0))]
    times += [("assistant", 5.0), ("user", 6.0), ("assistant", 7.0)]
    turns: list[Turn] = [{"role": who, "content": f"<{k}>", "time": time} for k, (who, time) in enumerate(times)]
    processor = Processor.tiny()
    messages = streaming(str(film), turns, start, end, fps=fps, max_frames=max_frames)
    row = processor(messages, labels=True, generation_prompt=False)
    read = re.findall(r"Time [\d.]+s|<\d>", processor.decode(row["input_ids"]))
    assert read == reference(turns, start, end, fps, max_frames)
    learned = "".join(turn["content"] for turn in turns if turn["role"] == "assistant")
    assert processor.decode(row["labels"][row["labels"] >= 0]) == learned


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
    times = [f"Time {k}.0s" for k in range(5)]
    assert parts == [*times[:3], "Tell me.", "One.", *times[3:], "Two.", "Three."]
    assert processor.decode(tensors["labels"][tensors["labels"] >= 0]) == "One.Two.Three."
    assert tensors["grid_thw"][:, 0].tolist() == [3, 2]
    assert "Two.<|im_end|>\n<|im_start|>assistant\nThree." in processor.tokenizer.decode(tensors["input_ids"])
