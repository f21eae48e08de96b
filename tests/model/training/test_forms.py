"""Annotations as other trainers write them: read where they say the same as ours, else refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadSampleError
from model.training.annotations import AnnotationSource
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


@pytest.mark.parametrize("nothing", ["", None, [], [""], [None]])
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
        ({"image": ["a.png", ""], "conversations": OURS}, "a folder, not a file"),
        ({"images": [{"bytes": "iVBOR", "path": "a.png"}], "messages": THEIRS}, "a path must be a text, not {'bytes'"),
        ({"audios": ["a.wav"], "messages": THEIRS}, "`audios`: sound is not read"),
        ({"audio": "a.wav", "video": "clip.mp4", "conversations": TEXT}, "`audio`: sound is not read"),
        ({"tools": "[{}]", "messages": THEIRS, "images": ["a.png"]}, "`tools`: calls of tools are not read"),
        ({"messages": THEIRS, "images": ["a.png"], "rejected_response": "No."}, "`rejected_response`: what an"),
        ({"messages": [THEIRS[0], THEIRS[1] | {"loss": False}], "images": ["a.png"]}, r"not to be learned \(`loss`"),
        ({"messages": [THEIRS[0], THEIRS[1] | {"weight": 0}], "images": ["a.png"]}, r"not to be learned \(`loss`"),
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
        ({"prompt": "What?", "chosen": "It.", "rejected": "No."}, "`rejected`: what an assistant should not say"),
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
