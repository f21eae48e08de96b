"""Annotations as other trainers write them: read where they say the same as ours, else refused by name."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadSampleError
from tests.model.training.lines import FILM, NONE, ONE, OURS, TEXT, THEIRS, read, refused


@pytest.mark.parametrize("nothing", ["", None, [], [""], [None], [[]], {}])
@pytest.mark.parametrize("key", ["image", "images", "video", "videos"])
def test_sample_with_empty_media_is_a_text(media: Path, key: str, nothing: Any) -> None:
    assert read(media, {key: nothing, "conversations": TEXT}) == NONE


def parts(*content: dict[str, Any]) -> list[dict[str, Any]]:
    """A question and an answer of parts, as TRL writes them."""
    return [
        {"role": "user", "content": list(content)},
        {"role": "assistant", "content": [{"type": "text", "text": "It."}]},
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"messages": THEIRS, "images": ["a.png"]}, ONE),
        ({"messages": THEIRS, "images": "a.png"}, ONE),
        ({"messages": THEIRS, "image": ["a.png"], "videos": None}, ONE),
        ({"conversations": OURS, "images": ["a.png"], "tools": "", "system": ""}, ONE),
        ({"conversations": THEIRS, "image": "a.png"}, ONE),
        ({"conversations": TEXT, "images": ["a.png"]}, ONE),
        ({"conversations": TEXT, "images": ["a.png"], "system": "Be brief."}, [("system", "Be brief."), *ONE]),
        ({"messages": [{"role": "system", "content": "Be brief."}, *THEIRS], "images": ["a.png"]},
         [("system", "Be brief."), *ONE]),
        ({"messages": parts({"type": "image"}, {"type": "text", "text": "What?"}), "images": ["a.png"]}, ONE),
        ({"messages": parts({"type": "image", "text": None}, {"type": "text", "text": "What?"}), "images": ["a.png"]},
         ONE),
        ({"messages": parts({"type": "text", "text": "Is "}, {"type": "image"}, {"type": "text", "text": " as "},
                            {"type": "image"}), "images": ["b.png", "a.png"]},
         [("user", ["Is", ("image", "b.png"), "as", ("image", "a.png")]), ("assistant", "It.")]),
        ({"messages": parts({"type": "video"}, {"type": "text", "text": "What?"}), "videos": ["clip.mp4"]}, FILM),
        ({"conversations": OURS, "video": "clip.mp4"}, FILM),  # LLaVA-Video's mark
        ({"conversations": TEXT, "video": ["clip.mp4"]}, FILM),
    ],
)  # fmt: skip
def test_equivalent_forms_are_read_equally(media: Path, entry: Any, expected: Any) -> None:
    assert read(media, entry) == expected


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"video": ".", "conversations": TEXT}, ".* is no frame: leave only the film's frames there"),
        ({"image": "frames", "conversations": OURS}, "/frames: a folder, not a file: name the images in it"),
        ({"video": ["a.png", "b.png"], "conversations": TEXT}, "a film as a list of its frames is not read: name"),
        ({"videos": [["a.png", "b.png"]], "messages": THEIRS}, "a film as a list of its frames is not read: name"),
        ({"image": "a.png", "images": ["a.png"], "messages": THEIRS}, "`image` and `images` are both given"),
        ({"conversations": OURS, "messages": THEIRS}, "`conversations` and `messages` are both given"),
        ({"image": ["a.png", ""], "conversations": OURS}, "image 2 of 2 is empty: leave it out"),
        ({"images": [{"bytes": "iVBOR", "path": "a.png"}], "messages": THEIRS}, "a path must be a text, not {'bytes'"),
        ({"audios": ["a.wav"], "messages": THEIRS}, "`audios`: sound is not read"),
        ({"audio": "a.wav", "video": "clip.mp4", "conversations": TEXT}, "`audio`: sound is not read"),
        ({"tools": "[{}]", "messages": THEIRS, "images": ["a.png"]}, "`tools`: calls of tools are not read"),
        ({"messages": THEIRS, "images": ["a.png"], "rejected_response": "No."}, "`rejected_response`: what an"),
        ({"messages": [THEIRS[0], THEIRS[1] | {"loss": False}], "images": ["a.png"]}, "`loss`: every answer is l"),
        ({"messages": [THEIRS[0], THEIRS[1] | {"weight": 0}], "images": ["a.png"]}, "`weight`: every answer is"),
        ({"messages": [{"role": "user", "content": "<image>Where is <bbox>?"}, THEIRS[1]], "images": ["a.png"],
          "objects": {"ref": [], "bbox": [[1, 2, 3, 4]]}}, "`objects`: marks <bbox> and <ref-object> are not read"),
        ({"conversations": [{"from": "user", "value": "Picture 1: <img>a.png</img>\nWhat?"}, OURS[1]]},
         "Qwen-VL's form with <img>PATH</img> in a text is not read"),
        ({"messages": parts({"type": "image", "image": "a.png"})}, "a part of `content` is .*'a.png'.*: give"),
        ({"messages": parts({"type": "image_url", "image_url": {"url": "a.png"}})}, "a part of `content` is .*: give"),
        ({"messages": parts({"type": "audio"})}, "a part of `content` is {'type': 'audio'}: give"),
        ({"messages": [{"role": "user", "content": ["What?"]}]}, "a part of `content` is 'What.': give"),
        ({"messages": [{"role": "user", "content": None, "tool_calls": []}]}, "a turn must be"),
        ({"messages": [{"role": "tool", "content": "7"}]}, "turn 0 is from 'tool': use human, gpt or system"),
        ({"query": "What?", "response": "It.", "history": []}, "ms-swift's form with `query` and `response`"),
        ({"instruction": "What?", "input": "", "output": "It."}, "Alpaca's form is not read"),
        ({"prompt": "What?", "completion": "It."}, "TRL's form with `prompt` and `completion` is not read"),
        ({"prompt": "What?", "chosen": "It.", "rejected": "No."}, "a form with `chosen` and `rejected`"),
        ({"video": "clip.mp4", "QA": [{"q": "What?", "a": "It."}]}, "VideoChat's form is not read"),
        ({"video_id": "clip", "q": "What?", "a": "It."}, "Video-ChatGPT's form is not read"),
        ({"image": "a.png", "question": "What?", "answer": "It."}, "a table of questions is not read"),
        ({"images": ["a.png"], "texts": [{"user": "What?", "assistant": "It."}]}, "FineVision's form is not read"),
        ({"text": "It."}, "plain text is not read: `conversations` must be a list of turns .* or `messages` one"),
        ({"image_path": "a.png", "caption": "It."}, r"or `messages` one .*; its keys are \['image_path', 'caption'\]"),
        ({}, "its keys are none"),
    ],
)  # fmt: skip
def test_unsupported_form_is_refused_by_name(media: Path, entry: Any, reason: str) -> None:
    with pytest.raises(BadSampleError, match=f"^notes: notes.jsonl line 1: .*{reason}") as error:
        read(media, entry)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "mark",
    [
        *"<image1> <image_1> <|image_1|> <IMAGE> <Image> <ImageHere> <|image|> [IMG] <img> <image/>".split(),
        *["<image 1>", "<|vision_start|><|image_pad|><|vision_end|>", "<start_of_image>", "[Image 1]"],
    ],
)
def test_marks_of_other_trainers_are_refused_by_name(media: Path, mark: str) -> None:
    question = [{"from": "human", "value": f"Is {mark} a cat?"}, OURS[1]]
    refused(media, {"image": "a.png", "conversations": question}, re.escape(f"the mark {mark.split('><')[0]}"))
    words = read(media, {"conversations": question})
    assert words == [("user", [f"Is {mark} a cat?"]), ("assistant", "It.")]


def test_marks_of_other_trainers_beside_image_marks_are_words(media: Path) -> None:
    question = [{"from": "human", "value": "<image>\nWhat does <img> do in <image 1>?"}, OURS[1]]
    conversation = read(media, {"image": "a.png", "conversations": question})
    assert conversation[0] == ("user", [("image", "a.png"), "What does <img> do in <image 1>?"])


def test_parts_of_media_outside_of_a_question_are_refused(media: Path) -> None:
    image, said = {"type": "image"}, {"type": "text", "text": "Here."}
    answer = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": [image, said]}]
    refused(media, {"images": ["a.png"], "messages": answer}, '{"type": "image"} in an answer')
    system = [{"role": "system", "content": [image, said]}, *TEXT]
    refused(media, {"images": ["a.png"], "messages": system}, '{"type": "image"} in an answer or a system')


def test_mark_in_a_part_of_text_is_refused(media: Path) -> None:
    question = parts({"type": "image"}, {"type": "text", "text": "What is <image>?"})
    refused(media, {"images": ["a.png"], "messages": question}, "<image> in a part of text is ambiguous")
    question = parts({"type": "image"}, {"type": "text", "text": "What?"})
    question[1]["content"] = [{"type": "text", "text": "<image> is a mark."}]
    assert read(media, {"images": ["a.png"], "messages": question})[1] == ("assistant", "<image> is a mark.")


def test_empty_answer_among_good_ones_is_refused(media: Path) -> None:
    for empty in ("", " \n"):
        turns = [*OURS, TEXT[0], {"from": "gpt", "value": empty}]
        refused(media, {"image": "a.png", "conversations": turns}, "message 3: an answer without words")
    stream = [{"role": "user", "content": "Tell.", "time": 1}, {"role": "assistant", "content": "", "time": 2}]
    refused(media, {"stream": True, "video": "clip.mp4", "conversation": stream}, "message 1: an answer without")


def test_path_in_qwen_form_is_refused_and_html_is_words(media: Path) -> None:
    question = [{"from": "human", "value": "Picture 1: <img>a<b.png</img> What?"}, OURS[1]]
    refused(media, {"conversations": question}, "Qwen-VL's form")
    ours = [{"from": "human", "value": "<img><image></img> What?"}, OURS[1]]
    assert read(media, {"image": "a.png", "conversations": ours})[0][1] == ["<img>", ("image", "a.png"), "</img> What?"]
    html = [OURS[0], {"from": "gpt", "value": "<img>logo</img>"}]
    assert read(media, {"image": "a.png", "conversations": html})[1] == ("assistant", "<img>logo</img>")


@pytest.mark.parametrize(
    "piece",
    [
        *("<img>", "[image ", ".jpg?", "image_"),
        *(pytest.param(p, marks=pytest.mark.thorough) for p in ("<img> ", "<|image", "<image", "a.", "</img>")),
    ],
)
def test_long_texts_and_keys_are_checked_in_linear_time(media: Path, piece: str) -> None:
    long, begin = piece * 100_000, time.process_time()
    question = [{"from": "human", "value": long}, TEXT[1]]
    said = read(media, {"conversations": question, "note": f"{long} ", "pad" + long: 1, "notes": [f"{long}\n"] * 3})
    assert said[0] == ("user", [long.strip()])
    with suppress(BadSampleError):  # the mark <img> is refused, the others are words
        assert read(media, {"image": "a.png", "conversations": question})[0] == (
            "user",
            [("image", "a.png"), long.strip()],
        )
    assert time.process_time() - begin < 2


def test_unknown_keys_of_a_stream_are_refused(media: Path) -> None:
    question = {"role": "user", "content": "Tell.", "time": 1}
    stream = {"stream": True, "video": "clip.mp4", "end_time": 9.0}
    answer = {"role": "assistant", "content": "A door.", "time": 2}
    assert read(media, stream | {"conversation": [question, answer | {"weight": 1}]})[1] == ("assistant", "A door.")
    refused(media, stream | {"conversation": [question, answer | {"loss": False}]}, "`loss`: every answer is learned")
    refused(media, stream | {"conversation": [question | {"image": "a.png"}, answer]}, "`image`: media of this name")
    refused(media, stream | {"conversation": [question, answer], "kto_tag": False}, "`kto_tag`: every answer is")
    refused(media, stream | {"conversation": [question, answer], "system": "Be brief."}, "`system`: not read beside a")
    refused(media, stream | {"conversation": [question, answer], "conversations": TEXT}, "`conversation` and `conver")
