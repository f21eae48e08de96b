"""Records in trainers' forms: what each form says, and what it refuses to say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from core.errors import BadSampleError
from core.records import Licence, Medium, Part, Record, Region, Source, Span, Turn
from manifests.renderers import RENDERERS, left_beside

FILM = Medium(key="v0", type="video", path="v.mp4")
IMAGE = Medium(key="i0", type="image", path="a.jpg")
ANSWER = Turn(role="assistant", parts=(Part(text="It."),))


def asked(*parts: str | Medium, **others: Any) -> Turn:
    made = (Part(text=part) if isinstance(part, str) else Part(media=part.key) for part in parts)
    return Turn(role="user", parts=tuple(made), **others)


def record(turns: list[Turn], *media: Medium, **others: Any) -> Record:
    return Record(id="set/1/1", source=Source(dataset="set"), media=media, turns=tuple(turns), **others)


def refusal(form: str, made: Record) -> str:
    with pytest.raises(BadSampleError) as raised:
        RENDERERS[form](made)
    return str(raised.value)


def test_media_of_both_kinds_stand_where_they_are_shown() -> None:
    made = record([asked("See ", FILM, " and ", IMAGE, "?"), ANSWER], IMAGE, FILM)
    turns = [{"from": "human", "value": "See <video> and <image>?"}, {"from": "gpt", "value": "It."}]
    entry = {"id": "set/1/1", "image": "a.jpg", "video": "v.mp4", "conversations": turns}
    assert RENDERERS["videollama3"](made) == RENDERERS["llava"](made) == entry
    content = [
        {"type": "text", "text": "See "},
        {"type": "video_url", "video_url": {"url": "v.mp4"}},
        {"type": "text", "text": " and "},
        {"type": "image_url", "image_url": {"url": "a.jpg"}},
        {"type": "text", "text": "?"},
    ]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "It."}]
    assert RENDERERS["openai"](made) == {"messages": messages}


SILENT = ANSWER.model_copy(update={"learn": False})
SECOND = Medium(key="v1", type="video", path="w.mp4", start=2.0)
CLIP = FILM.model_copy(update={"start": 2.0, "end": 9.0})


def test_clip_has_its_times_and_its_clock() -> None:
    made = record([asked(CLIP), ANSWER], CLIP)
    entry = RENDERERS["videollama3"](made)
    assert (entry["start"], entry["end"], entry["times_from_start"]) == (2.0, 9.0, True)
    cut = CLIP.model_copy(update={"is_cut": True})
    assert RENDERERS["videollama3"](record([asked(cut), ANSWER], cut)).keys() == {"id", "video", "conversations"}


@pytest.mark.parametrize(
    ("forms", "made", "reason"),
    [
        (["videollama3", "llava"], record([asked("a <image>"), ANSWER]), "<image> as text"),
        (["videollama3", "llava"], record([asked("a"), SILENT]), "an answer that is not"),
        (list(RENDERERS), record([asked("a", learn=True), ANSWER]), "(a turn of user|a question) that is learned"),
        (["llava"], record([asked("a"), asked("b"), ANSWER]), "turns that are not question, answer"),
        (["llava"], record([Turn(role="system", parts=(Part(text="a"),)), asked("a"), ANSWER]), "turns that are not"),
        (["llava", "openai"], record([asked(CLIP), ANSWER], CLIP), "a clip of a film"),
        (["llava", "openai"], record([asked("a", time=1.0), ANSWER], FILM), "a stream"),
        (["videollama3"], record([asked("a", time=1.0), ANSWER], FILM, IMAGE), "a stream of other media"),
        (
            ["videollama3"],
            record([asked("a", time=1.0), Turn(role="stream"), ANSWER], FILM),
            "a stretch of film as a turn",
        ),
        (["videollama3", "llava"], record([asked("a"), ANSWER], IMAGE), "the medium i0 is in no turn"),
        (
            ["videollama3"],
            record([asked(FILM, SECOND), ANSWER], FILM, SECOND),
            "several films with other times",
        ),
        (
            ["videollama3", "llava"],
            record([asked("a"), Turn(role="assistant", parts=(Part(media="i0"),))], IMAGE),
            "a medium in a turn of assistant",
        ),
    ],
)
def test_what_a_form_cannot_say_is_refused(forms: list[str], made: Record, reason: str) -> None:
    for form in forms:
        assert re.match(reason, refusal(form, made))


def test_mark_in_an_answer_is_text_for_videollama3_only() -> None:
    made = record([asked("a"), Turn(role="assistant", parts=(Part(text="<image>"),))])
    assert RENDERERS["videollama3"](made)["conversations"][1]["value"] == "<image>"
    assert refusal("llava", made).startswith("<image> as text")


def test_what_stays_beside_the_text_is_named() -> None:
    turn = ANSWER.model_copy(
        update={
            "spans": (Span(media="v0", start=0, end=1),),
            "regions": (Region(media="v0", box=(0, 0, 1, 1), system="norm1000_xyxy"),),
        }
    )
    made = record([asked(FILM), turn], FILM, licence=Licence(name="MIT"))
    assert left_beside(made) == ["licence", "spans", "regions"]
    assert left_beside(record([asked("a"), ANSWER])) == []
