"""Samples out of annotations: every form, and what can be wrong with one, with a file, with all of them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadSampleError
from model import Processor
from model.training.data.annotations import AnnotationSource
from tests.model import clips
from tests.model.training import training_data
from tests.model.training.lines import ANSWER, QUESTION, source, turns

PAGE = Path(__file__).parents[4] / "docs/training-data.md"


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Two images and a clip."""
    for number, name in enumerate(("a.png", "b.png")):
        (tmp_path / name).write_bytes(training_data.picture(number))
    (tmp_path / "clip.mp4").touch()  # not opened before it is wanted
    return tmp_path


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_media_of_every_kind_are_read(media: Path, suffix: str) -> None:
    entries = [
        {"image": "a.png", "conversations": turns("<image>\nWhat?", "It.")},
        {"image": ["a.png", "b.png"], "conversations": turns("See <image> and\n<image>\n!", "It.", "And?", "Yes.")},
        {"video": ["clip.mp4"], "fps": 2, "start": 1.5, "conversations": turns("<video>\nWhat?", "It.")},
        {"conversations": turns("What?", "It.")},
        {"image": "b.png", "video": "clip.mp4", "conversations": turns("<video><image>?", "It.")},
        {"image": ["a.png", "b.png"], "conversations": turns("Without marks?", "It.")},
    ]
    annotations = source(media, entries, suffix)
    first, second, film = (str(media / name) for name in ("a.png", "b.png", "clip.mp4"))
    image, other = ({"type": "image", "image": path} for path in (first, second))
    video = {"type": "video", "video": film}
    questions = [
        [image, "What?"],
        ["See", image, "and", other, "!"],
        [video | {"fps": 2, "start": 1.5}, "What?"],
        ["What?"],
        [video, other, "?"],
        [image, other, "Without marks?"],
    ]
    assert sum(annotations.blocks) == len(entries)
    for row, question in enumerate(questions):
        sample = annotations.sample(row)
        assert sample.name == f"notes: notes{suffix} {'line' if suffix == '.jsonl' else 'entry'} {row + 1}"
        assert [message["role"] for message in sample.conversation[:2]] == ["user", "assistant"]
        assert sample.conversation[0]["content"] == question
        assert sample.conversation[1]["content"] == "It."
    assert [message["content"] for message in annotations.sample(1).conversation[2:]] == [["And?"], "Yes."]


def test_labels_are_the_texts_and_whole_numbers_of_an_entry(media: Path) -> None:
    entry = {"conversations": turns("What?", "It."), "task_type": "Action Count", "level": 3, "score": 0.5, "of": ["a"]}
    assert source(media, [entry]).sample(0).labels == {"task_type": "Action Count", "level": 3}


def test_paths_are_relative_to_the_file_or_to_media(tmp_path: Path) -> None:
    for folder in ("notes", "photos/inner"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.png").write_bytes(training_data.picture(0))
    absolute = str(tmp_path / "photos/inner/a.png")

    def path(written: str, **others: Any) -> Any:
        entry = {"image": written, "conversations": [QUESTION, ANSWER]}
        return source(tmp_path / "notes", [entry], **others).sample(0).conversation[0]["content"][0]["image"]

    assert path("a.png") == str(tmp_path / "notes/a.png")
    assert path("../notes/a.png") == str(tmp_path / "notes/a.png")
    assert path("inner/a.png", media=str(tmp_path / "photos")) == absolute
    assert path(absolute, media=str(tmp_path / "photos")) == absolute


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize(
    "named",
    ["{top}/other/a.png", "../other/a.png", "./inner/../../other/a.png", "link.png", "linked/a.png", "/dev/zero"],
)
def test_outside_media_are_refused_unless_roots_allow_them(tmp_path: Path, kind: str, named: str) -> None:
    """Absolute, upwards, by a link to a file or a folder; a folder whose name begins alike is another one."""
    for folder in ("notes/inner", "other", "notes-more"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "other/a.png").write_bytes(training_data.picture(0))
    (tmp_path / "notes/link.png").symlink_to(tmp_path / "other/a.png")
    (tmp_path / "notes/linked").symlink_to(tmp_path / "other")
    path = named.format(top=tmp_path)
    entry = {kind: path, "conversations": turns("What?", "It.")}
    for roots in ([], [str(tmp_path / "notes-more")], [str(tmp_path / "othe")]):
        with pytest.raises(
            BadSampleError, match=r"line 1: .* lies outside of .*: .* allow its folder by `roots:`"
        ) as error:
            source(tmp_path / "notes", [entry], roots=roots).sample(0)
        assert "\n" not in str(error.value)
    allowed = source(tmp_path / "notes", [entry], roots=[str(tmp_path / "other"), "/dev"])
    if path == "/dev/zero":
        with pytest.raises(BadSampleError, match="/dev/zero: no such file"):  # no regular one
            allowed.sample(0)
    else:
        assert allowed.sample(0).conversation[0]["content"][0][kind] == str(tmp_path / "other/a.png")


def test_media_folder_may_be_a_link(tmp_path: Path) -> None:
    for folder in ("notes", "disk"):
        (tmp_path / folder).mkdir()
    (tmp_path / "disk/a.png").write_bytes(training_data.picture(0))
    (tmp_path / "photos").symlink_to(tmp_path / "disk")
    entry = {"image": "a.png", "conversations": [QUESTION, ANSWER]}
    sample = source(tmp_path / "notes", [entry], media=str(tmp_path / "photos")).sample(0)
    assert sample.conversation[0]["content"][0]["image"] == str(tmp_path / "disk/a.png")


def test_pipe_beside_the_annotations_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BadSampleError, match="no such file"):
        source(tmp_path, [{"image": "a.png", "conversations": [QUESTION, ANSWER]}]).sample(0)


BAD: dict[str, tuple[Any, str]] = {
    "more marks": (
        {"image": ["a.png"], "conversations": turns("<image><image>?", "It.")},
        "more <image> marks than im",
    ),
    "more images": (
        {"image": ["a.png", "b.png"], "conversations": turns("<image>?", "It.")},
        "more images than <image>",
    ),
    "mark of a video": (
        {"image": "a.png", "conversations": turns("<video>?", "It.")},
        "more <video> marks than videos",
    ),
    "no file": ({"image": "c.png", "conversations": turns("<image>?", "It.")}, r"c\.png: no such file"),
    "a folder": ({"image": ".", "conversations": turns("<image>?", "It.")}, "a folder, not a file: name the images"),
    "a long name": ({"image": "x" * 5000, "conversations": turns("<image>?", "It.")}, "no such file"),
    "a name with a null": ({"image": "a\0b", "conversations": turns("<image>?", "It.")}, "no path: embedded null"),
    "half a character": ({"image": "\ud800.png", "conversations": turns("<image>?", "It.")}, "\ufffd.png: no path: "),
    "bytes for a path": (
        {"image": "data:image/png;base64," + "iVBOR/" * 5000, "conversations": turns("<image>?", "It.")},
        "data:image/png;base64,iVBOR/.{160,180}: no such file: 30,022 characters are no path",
    ),
    "a link of the web": (
        {"image": "http://x/a.png", "conversations": turns("<image>?", "It.")},
        "addresses are not op",
    ),
    "a number for a path": ({"image": 7, "conversations": turns("<image>?", "It.")}, "a path must be a text, not 7"),
    "cut off": ('{"image": "a.png", "conv', "no JSON: "),
    "nested": ("[" * 100_000, "no JSON: "),
    "a number of 5,000 digits": (f'{{"n": {"9" * 5000}}}', "no JSON: "),
    "no number for a turn": ('{"conversations": [NaN, Infinity]}', "a turn must be"),
    "no number for a path": ('{"image": NaN, "messages": []}', "no conversation: "),
    "a list": ([1, 2], "must be an object with `conversations`"),
    "null": (None, "must be an object with `conversations`"),
    "no conversation": ({"image": "a.png"}, "no conversation: `conversations` must be a list"),
    "a text for turns": ({"conversations": "What? It."}, "no conversation: `conversations` must be a list"),
    "a turn without words": ({"conversations": [{"from": "human"}, ANSWER]}, "a turn must be"),
    "a turn of null": ({"conversations": [None, ANSWER]}, "a turn must be"),
    "an unknown speaker": (
        {"conversations": [QUESTION | {"from": "bot"}]},
        "turn 0 is from 'bot': use human, gpt or sys",
    ),
    "no answer": ({"image": "a.png", "conversations": [QUESTION]}, "turns go user: a question, its answer"),
    "answers before a question": (
        {"conversations": [ANSWER, ANSWER, *turns("A")]},
        "turns go assistant, assistant, user",
    ),
    "answer first": ({"conversations": [ANSWER]}, "turns go assistant"),
    "system alone": ({"conversations": [{"from": "system", "value": "Be short."}]}, "turns go system"),
    "images of a stream": (
        {"stream": True, "video": "clip.mp4", "image": "a.png", "conversation": turns("A", "B")},
        "a stream has one video, and no image",
    ),
    "no film of a stream": ({"stream": True, "conversation": []}, "a stream has one video"),
    "a stream of nothing": ({"stream": True, "video": "clip.mp4"}, "a stream without an answer: nothing"),
    "a stream of text": ({"stream": True, "video": "clip.mp4", "conversation": "Hi"}, "must be a list of turns"),
    "a start that is no number": (
        {"stream": True, "video": "clip.mp4", "start_time": "now", "conversation": [{}]},
        "start_time: 'now': give seconds",
    ),
}


@pytest.mark.parametrize(
    ("what", "suffix"),
    # A text is a line that is no JSON, which a list as a whole cannot have.
    [
        (what, suffix)
        for what, (entry, _) in BAD.items()
        for suffix in (".jsonl", ".json")[: 2 - isinstance(entry, str)]
    ],
)
def test_bad_sample_is_a_one_line_error_and_the_next_is_read(media: Path, what: str, suffix: str) -> None:
    entry, reason = BAD[what]
    annotations = source(media, [entry, {"image": "a.png", "conversations": [QUESTION, ANSWER]}], suffix)
    with pytest.raises(ValueError, match=reason) as error:
        annotations.sample(0)
    assert str(error.value).startswith(f"notes: notes{suffix} {'line' if suffix == '.jsonl' else 'entry'} 1: ")
    assert "\n" not in str(error.value)
    assert annotations.sample(1).conversation[1]["content"] == "It."


def test_line_with_invalid_utf8_is_a_bad_sample(media: Path) -> None:
    file = media / "notes.jsonl"
    good = json.dumps({"conversations": turns("What?", "Ça.")}, ensure_ascii=False).encode()
    file.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\xff\xfe\x00{\r\n" + good)
    annotations = AnnotationSource("notes", str(file))
    assert [annotations.sample(row).conversation[1]["content"] for row in (0, 2)] == ["Ça."] * 2
    with pytest.raises(ValueError, match=r"notes\.jsonl line 2: no JSON: "):
        annotations.sample(1)


def test_empty_lines_are_skipped_and_line_numbers_are_kept(media: Path) -> None:
    good = [json.dumps({"conversations": turns("What?", str(number))}) for number in range(3)]
    annotations = source(media, ["", good[0], "  ", "\t", good[1], good[2], "", ""])
    assert annotations.blocks == (3,)
    samples = [annotations.sample(row) for row in range(3)]
    assert [sample.conversation[1]["content"] for sample in samples] == ["0", "1", "2"]
    assert [sample.name for sample in samples] == [f"notes: notes.jsonl line {line}" for line in (2, 5, 6)]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("notes.jsonl", None, r"notes\.jsonl: cannot be read: No such file"),
        ("notes.json", None, r"notes\.json: cannot be read: No such file"),
        ("notes.jsonl", "", r"notes\.jsonl: no samples in it"),
        ("notes.jsonl", "\n  \n", r"notes\.jsonl: no samples in it"),
        ("notes.json", "", r"notes\.json: no JSON: "),
        ("notes.json", "[]", r"notes\.json: no samples in it"),
        ("notes.json", '{"a": 1}', "must be a list of samples"),
        ("notes.json", '{"a": 1}\n{"a": 2}', r"one object per line goes into \.jsonl"),
        ("notes.json", "[" * 100_000, "no JSON: "),
    ],
)
def test_invalid_annotation_file_is_refused(tmp_path: Path, name: str, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=reason) as error:
        AnnotationSource("notes", str(tmp_path / name))
    assert "\n" not in str(error.value)


def examples() -> list[dict[str, Any]]:
    """Those of docs/training-data.md."""
    return [json.loads(text) for text in re.findall(r"```json\n(.*?)\n```", PAGE.read_text(), re.S)]


def test_examples_of_the_docs_are_read(tmp_path: Path) -> None:
    for number, name in enumerate(("a.jpg", "b.jpg")):
        (tmp_path / name).write_bytes(training_data.picture(number))
    clips.write(tmp_path / "clip.mp4", [k / 5 for k in range(50)])
    (tmp_path / "frames").mkdir()
    for number in range(9):
        (tmp_path / f"frames/{number}.png").write_bytes(training_data.picture(number))
    entries = examples()
    assert len(entries) == 9
    annotations, processor = source(tmp_path, entries), Processor.tiny()
    for row, entry in enumerate(entries):
        tensors = processor(annotations.sample(row).conversation, labels=True, generation_prompt=False)
        learned = processor.decode(tensors["labels"][tensors["labels"] >= 0])
        turns = entry.get("conversations") or entry["conversation"]
        assert learned == "".join(
            t.get("value", t.get("content")) for t in turns if "gpt" in t.values() or "assistant" in t.values()
        )
