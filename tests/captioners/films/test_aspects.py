"""Aspects of questions: built-in sets, files, mappings, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captioners.films.aspects import read_aspects
from captioners.films.questions import Questions
from core.errors import UserError
from core.settings import parse

NAME = "lower-case letters, digits, _ and -"
VIDEOLLAMA3 = ["temporal", "spatial", "object_description", "time_order"]


def names(written: Any) -> list[str]:
    return [name for aspect in read_aspects(written) for name in aspect]


def test_default_aspects_are_the_four_of_videollama3() -> None:
    assert list(Questions().asked.aspects) == names("videollama3") == VIDEOLLAMA3


def test_llava_video_has_sixteen_aspects_with_examples() -> None:
    aspects = read_aspects("llava-video")
    assert len(aspects) == 16
    assert all('Example: "' in text for aspect in aspects for text in aspect.values())


def test_aspects_of_a_file_and_a_mapping_follow_a_set(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("# ours\nsound: what one\nhears\n\nrisk: what is dangerous\n")
    read = read_aspects(["videollama3", str(tmp_path / "mine.txt"), {"mood": " how it feels "}])
    assert [name for aspect in read for name in aspect] == [*VIDEOLLAMA3, "sound", "risk", "mood"]
    assert read[-3:] == ({"sound": "what one hears"}, {"risk": "what is dangerous"}, {"mood": "how it feels"})


def test_stored_aspects_are_read_back_and_keep_the_fingerprint() -> None:
    stage = parse(Questions, {"aspects": {"mood": "how it feels", "count": "how many"}}, "t")
    again = parse(Questions, stage.model_dump(mode="json"), "t")
    assert again.fingerprint_settings() == stage.fingerprint_settings()
    assert again.fingerprint_settings() != Questions().fingerprint_settings()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("videolama3", "'videolama3' is no readable file of aspects; did you mean 'videollama3'?"),
        ([], "give at least one aspect"),
        ({"Time Order": "x"}, f"'Time Order' is no name of an aspect; give {NAME}, such as time_order"),
        ({"mood": " "}, "the aspect mood needs a description of 1 to 2,000 characters: `mood: …`"),
        (["videollama3", {"spatial": "x"}], "the aspect spatial is there twice; give one of them another name"),
        ([1], "give names of built-in sets, paths, or mappings {name: description}"),
    ],
)
def test_unusable_aspects_are_refused(written: Any, said: str) -> None:
    with pytest.raises(UserError) as error:
        parse(Questions, {"aspects": written}, "questions")
    assert str(error.value) == f"questions: aspects: {said}"


def test_aspect_with_a_control_token_is_refused() -> None:
    server = {"kind": "server", "url": "http://127.0.0.1:9/v1"}
    stage = parse(Questions, {"aspects": {"mood": "of the <image>"}, "engine": server}, "t")
    with pytest.raises(UserError, match="has the control token <image>"):
        stage.check_settings()


def test_engine_of_one_image_is_refused() -> None:
    with pytest.raises(UserError, match="the engine lmdeploy takes one image per prompt"):
        Questions(engine={"kind": "lmdeploy"}).check_settings()  # type: ignore[arg-type]
