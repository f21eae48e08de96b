"""Annotations as other trainers write them: read where they say the same as ours, else refused by name."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadSampleError
from model.training.data.annotations import AnnotationSource
from tests.model.training import data

OURS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
TEXT = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]
THEIRS = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "It."}]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Two images, a clip that nobody opens, a folder of frames."""
    for number, name in enumerate(("a.png", "b.png", "frames/1.png", "frames/2.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data.picture(number))
    (tmp_path / "clip.mp4").touch()
    return tmp_path


def read(folder: Path, entry: Any) -> list[tuple[str, Any]]:
    """Role and content of each message; of media the kind and the name of the file."""
    (folder / "notes.jsonl").write_text(json.dumps(entry))
    sample = AnnotationSource("notes", str(folder / "notes.jsonl")).sample(0)
    return [(message["role"], _named(message["content"])) for message in sample.conversation]


def _named(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [part if isinstance(part, str) else (part["type"], Path(part[part["type"]]).name) for part in content]


ONE = [("user", [("image", "a.png"), "What?"]), ("assistant", "It.")]
FILM = [("user", [("video", "clip.mp4"), "What?"]), ("assistant", "It.")]
NONE = [("user", ["What?"]), ("assistant", "It.")]


@pytest.mark.parametrize("nothing", ["", None, [], [""], [None], [[]], {}])
@pytest.mark.parametrize("key", ["image", "images", "video", "videos"])
def test_a_text_whose_media_are_empty_is_a_text(media: Path, key: str, nothing: Any) -> None:
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
         [("user", ["Is ", ("image", "b.png"), " as ", ("image", "a.png")]), ("assistant", "It.")]),
        ({"messages": parts({"type": "video"}, {"type": "text", "text": "What?"}), "videos": ["clip.mp4"]}, FILM),
        ({"conversations": OURS, "video": "clip.mp4"}, FILM),  # LLaVA-Video's mark
        ({"conversations": TEXT, "video": ["clip.mp4"]}, FILM),
    ],
)  # fmt: skip
def test_other_words_for_the_same_are_read_as_ours(media: Path, entry: Any, expected: Any) -> None:
    assert read(media, entry) == expected


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"video": "frames", "conversations": TEXT}, "/frames: a folder, not a file: .* a film as a folder of frames"),
        ({"image": "frames", "conversations": OURS}, "/frames: a folder, not a file: name the images in it"),
        ({"video": ["a.png", "b.png"], "conversations": TEXT}, "a film as a list of its frames is not read: make it"),
        ({"videos": [["a.png", "b.png"]], "messages": THEIRS}, "a film as a list of its frames is not read: make it"),
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
def test_what_means_something_else_is_refused_by_its_name(media: Path, entry: Any, reason: str) -> None:
    with pytest.raises(BadSampleError, match=f"^notes: notes.jsonl line 1: .*{reason}") as error:
        read(media, entry)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def answered(**keys: Any) -> dict[str, Any]:
    """An image, a question, and an answer with further keys."""
    return {"image": "a.png", "conversations": [OURS[0], OURS[1] | keys]}


def refused(folder: Path, entry: Any, reason: str) -> None:
    with pytest.raises(BadSampleError, match=f"^notes: notes.jsonl line 1: {reason}"):
        read(folder, entry)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_path", "a.png"),
        ("image_url", "http://x/a.png"),
        ("img", "a.png"),
        ("Image", "a.png"),
        ("imagePaths", ["a.png"]),
        ("imagefile", "a"),
        ("image_1", "a.png"),
        ("image_base64", "iVBOR"),
        ("image_files", ["a.png"]),
        ("image_info", [{"image_name": "a.png", "matched_text_index": 0}]),
        ("frames", ["1.png", "2.png"]),
        ("video_path", "clip.mp4"),
        ("media", [{"path": "a.png"}]),
        ("pixel_values", [[0.5]]),
        ("max_pixels", 100),
        ("video_id", "clip.mp4"),
        ("file_name", "a.png"),
        ("url", "http://x/a.jpg?size=2"),
    ],
)
def test_media_of_another_name_are_refused_by_name(media: Path, key: str, value: Any) -> None:
    reason = f"`{key}`: (media of this name|pixels) are not read"
    refused(media, {key: value, "conversations": TEXT}, reason)
    refused(media, {"conversations": [TEXT[0] | {key: value}, TEXT[1]]}, reason)


@pytest.mark.parametrize("key", ["image", "images", "video"])
def test_media_of_a_turn_are_refused_by_name(media: Path, key: str) -> None:
    refused(media, {"conversations": [TEXT[0] | {key: "a.png"}, TEXT[1]]}, f"`{key}`: media of this name")
    refused(media, {"image": "a.png", "messages": [TEXT[0] | {key: ["a.png"]}, TEXT[1]]}, f"`{key}`: media of")


@pytest.mark.parametrize("key", ["image2", "frames", "video_path", "left_image"])
def test_media_beside_those_that_are_read_are_refused(media: Path, key: str) -> None:
    refused(media, {"image": "a.png", key: "b.png", "conversations": OURS}, f"`{key}`: media of this name")


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "000000033471", "width": 640, "height": 480},  # LLaVA, InternVL
        {"id": 7, "url": "http://x/a.jpg", "blip_caption": "a cat"},  # LLaVA-Pretrain
        {"id": "identity", "data_source": "ai2d(cauldron)", "metadata": {"image": "a.png"}},  # LLaVA-OneVision
        {"sample_id": 3, "metadata": {"dataset": "x", "split": "train"}, "choice_list": None},  # M4-Instruct
        {"source": "vqav2", "relevance_min": 4, "image_correspondence_ratings": [5]},  # FineVision
        {"image_id": "COCO_val2014_1.jpg", "image_size": [640, 480], "num_images": 1, "image_source": "coco"},
        {"image_url": "http://x/1.jpg", "image_path": "/mnt/photos/a.png", "image_caption": "a cat"},
        {"image_hash": "f00", "image_width": 640, "image_license": "CC0", "has_audio": False, "audio": None},
        {"video_length": 12.5, "video_fps": 30, "frame_count": 375, "num_frames": 64, "video_topic": "cooking"},
        {"split": "train", "label": "cat", "tools": "[]", "tool_calls": [], "rejected": None, "images": []},
        {"weight": 1, "loss_scale": "1.0", "kto_tag": True, "label": True, "is_rejected": False},
        {"reasoning_type": "spatial", "requires_reasoning": True, "reason": "clean", "annotation_tool": "cvat"},
        {
            "train_id": 5,
            "training_split": "b",
            "train_on_inputs": False,
            "image_name": "a",
            "max_pixels": None,
            "framework": "torch",
            "system_prompt": "",
        },
    ],
)
def test_keys_about_a_sample_are_passed_over(media: Path, entry: dict[str, Any]) -> None:
    assert read(media, {"image": "a.png", "conversations": OURS, **entry}) == ONE


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "wgByO4Y_0", "model": "", "image_id": "000000033471", "num_images": 0},
        {"source": "sharegpt.jpg", "lang": "en", "video_id": "clip", "video_length": 0, "image_source": None},
        {"image_size": [640, 480], "frames": 64, "url": "https://x/y", "file": "part-1.jsonl", "multi_image": "no"},
    ],
)
def test_keys_about_a_text_are_passed_over(media: Path, entry: dict[str, Any]) -> None:
    assert read(media, {"conversations": TEXT, **entry}) == NONE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss", False),
        ("loss", "false"),
        ("loss_scale", 0),
        ("loss_scale", 0.3),
        ("weight", 0.5),
        ("weight", "0"),
        ("train", False),
        ("training", False),
        ("training_detail", [{"begin_offset": 0, "train": False}]),
        ("label", False),
        ("kto_tag", False),
        ("mask", True),
    ],
)
def test_an_answer_that_is_not_learned_is_refused(media: Path, key: str, value: Any) -> None:
    reason = f"`{key}`: every answer is learned, all with weight 1"
    refused(media, answered(**{key: value}), reason)
    if key != "mask":  # beside the turns it is a mask of the image
        refused(media, answered() | {key: value}, reason)


def test_an_answer_that_is_learned_by_name_is_read(media: Path) -> None:
    assert read(media, answered(loss=True, weight=1.0, train="true", loss_scale="1", mask=False, label=None)) == ONE


def test_a_question_that_is_to_be_learned_is_refused(media: Path) -> None:
    for value in (True, 1, "true"):
        refused(media, {"messages": [TEXT[0] | {"train": value}, TEXT[1]]}, "`train`: only answers are learned")
    refused(media, {"messages": TEXT, "train_on_inputs": True}, "`train_on_inputs`: only answers are learned")
    assert read(media, {"messages": [TEXT[0] | {"train": False, "weight": 0, "loss": 0}, TEXT[1]]}) == NONE


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("rejected_messages", THEIRS, "what an assistant should not say"),
        ("rejected_images", ["a.png"], ""),
        ("tool_calls", [{"type": "function", "function": {"name": "f"}}], "calls of tools"),
        ("function_call", {"name": "f"}, "calls of tools"),
        ("reasoning_content", "Hm.", "thoughts are not read"),
        ("system_prompt", "Be brief.", "not read: name it `system`"),
    ],
)
def test_other_keys_that_change_a_sample_are_refused(media: Path, key: str, value: Any, reason: str) -> None:
    refused(media, answered(**{key: value}), f"`{key}`: {reason}")
    refused(media, answered() | {key: value}, f"`{key}`: {reason}")


def test_two_names_of_one_thing_are_refused_if_they_differ(media: Path) -> None:
    refused(media, answered(content="No."), "`value` and `content` of a turn are both given, and differ")
    refused(media, answered(role="user"), "`from` and `role` of a turn are both given, and differ")
    assert read(media, answered(role="assistant", content="It.")) == ONE


@pytest.mark.parametrize(
    "mark",
    [
        *"<image1> <image_1> <|image_1|> <IMAGE> <Image> <ImageHere> <|image|> [IMG] <img> <image/>".split(),
        *["<image 1>", "<|vision_start|><|image_pad|><|vision_end|>", "<start_of_image>", "[Image 1]"],
    ],
)
def test_marks_of_other_trainers_are_refused_by_name(media: Path, mark: str) -> None:
    asked = [{"from": "human", "value": f"Is {mark} a cat?"}, OURS[1]]
    refused(media, {"image": "a.png", "conversations": asked}, re.escape(f"the mark {mark.split('><')[0]}"))
    words = read(media, {"conversations": asked})
    assert words == [("user", [f"Is {mark} a cat?"]), ("assistant", "It.")]


def test_marks_of_other_trainers_beside_ours_are_words(media: Path) -> None:
    asked = [{"from": "human", "value": "<image>\nWhat does <img> do in <image 1>?"}, OURS[1]]
    told = read(media, {"image": "a.png", "conversations": asked})
    assert told[0] == ("user", [("image", "a.png"), "What does <img> do in <image 1>?"])


def test_parts_of_media_outside_of_a_question_are_refused(media: Path) -> None:
    image, said = {"type": "image"}, {"type": "text", "text": "Here."}
    answer = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": [image, said]}]
    refused(media, {"images": ["a.png"], "messages": answer}, '{"type": "image"} in an answer')
    system = [{"role": "system", "content": [image, said]}, *TEXT]
    refused(media, {"images": ["a.png"], "messages": system}, '{"type": "image"} in an answer or a system')


def test_a_mark_in_a_part_of_text_is_refused(media: Path) -> None:
    asked = parts({"type": "image"}, {"type": "text", "text": "What is <image>?"})
    refused(media, {"images": ["a.png"], "messages": asked}, "<image> in a part of text is ambiguous")
    asked = parts({"type": "image"}, {"type": "text", "text": "What?"})
    asked[1]["content"] = [{"type": "text", "text": "<image> is a mark."}]
    assert read(media, {"images": ["a.png"], "messages": asked})[1] == ("assistant", "<image> is a mark.")


def test_one_empty_answer_among_good_ones_is_refused(media: Path) -> None:
    for empty in ("", " \n"):
        turns = [*OURS, TEXT[0], {"from": "gpt", "value": empty}]
        refused(media, {"image": "a.png", "conversations": turns}, "message 3: an answer without words")
    stream = [{"role": "user", "content": "Tell.", "time": 1}, {"role": "assistant", "content": "", "time": 2}]
    refused(media, {"stream": True, "video": "clip.mp4", "conversation": stream}, "message 1: an answer without")


def test_a_path_with_a_bracket_is_qwen_form_and_html_words(media: Path) -> None:
    asked = [{"from": "human", "value": "Picture 1: <img>a<b.png</img> What?"}, OURS[1]]
    refused(media, {"conversations": asked}, "Qwen-VL's form")
    ours = [{"from": "human", "value": "<img><image></img> What?"}, OURS[1]]
    assert read(media, {"image": "a.png", "conversations": ours})[0][1] == ["<img>", ("image", "a.png"), "</img> What?"]
    html = [OURS[0], {"from": "gpt", "value": "<img>logo</img>"}]
    assert read(media, {"image": "a.png", "conversations": html})[1] == ("assistant", "<img>logo</img>")


@pytest.mark.parametrize(
    "piece", ["<img>", "<img> ", "<|image", "[image ", "<image", ".jpg?", "a.", "</img>", "image_"]
)
def test_long_texts_and_keys_are_checked_quickly(media: Path, piece: str) -> None:
    long, begin = piece * 100_000, time.process_time()
    asked = [{"from": "human", "value": long}, TEXT[1]]
    said = read(media, {"conversations": asked, "note": f"{long} ", "pad" + long: 1, "notes": [f"{long}\n"] * 3})
    assert said[0] == ("user", [long])
    with suppress(BadSampleError):  # the mark <img> is refused, the others are words
        assert read(media, {"image": "a.png", "conversations": asked})[0] == ("user", [("image", "a.png"), long])
    assert time.process_time() - begin < 2


def test_keys_of_a_stream_are_checked_as_others_are(media: Path) -> None:
    asked = {"role": "user", "content": "Tell.", "time": 1}
    stream = {"stream": True, "video": "clip.mp4", "end_time": 9.0}
    told = {"role": "assistant", "content": "A door.", "time": 2}
    assert read(media, stream | {"conversation": [asked, told | {"weight": 1}]})[1] == ("assistant", "A door.")
    refused(media, stream | {"conversation": [asked, told | {"loss": False}]}, "`loss`: every answer is learned")
    refused(media, stream | {"conversation": [asked | {"image": "a.png"}, told]}, "`image`: media of this name")
    refused(media, stream | {"conversation": [asked, told], "kto_tag": False}, "`kto_tag`: every answer is")
    refused(media, stream | {"conversation": [asked, told], "system": "Be brief."}, "`system`: not read beside a")
    refused(media, stream | {"conversation": [asked, told], "conversations": TEXT}, "`conversation` and `conver")
