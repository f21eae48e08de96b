"""Texts with placeholders become parts, and the same texts again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadSampleError
from core.records import Record, Source
from manifests.renderers import to_llava
from model.training.data.importers.turns import content_text, dialog_turns, media_of_paths, said_of, seconds_of

WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="<"), max_size=8)
PIECES = st.lists(WORDS | st.sampled_from(["<image>", "<video>"]), max_size=6)


@given(PIECES, PIECES)
def test_marks_become_media_and_the_same_text_again(first: list[str], second: list[str]) -> None:
    counts = {mark: (first + second).count(mark) for mark in ("<image>", "<video>")}
    images, videos = ([f"{mark}{number}" for number in range(count)] for mark, count in counts.items())
    media = media_of_paths(images, videos)
    said = [("user", "".join(first)), ("assistant", "A."), ("user", "".join(second)), ("assistant", "B.")]
    turns, notes = dialog_turns(said, media)  # type: ignore[arg-type]
    record = Record(id="a", source=Source(dataset="a"), media=tuple(media), turns=tuple(turns))
    assert [turn["value"] for turn in to_llava(record)["conversations"]] == [text for _, text in said]
    assert [turn.role for turn in turns] == [role for role, _ in said]
    shown = [part.media for turn in turns for part in turn.parts if part.media]
    assert sorted(shown) == sorted(medium.key for medium in media)
    assert notes == []


@pytest.mark.parametrize(("written", "seconds"), [(7, 7.0), ("7", 7.0), ("7.25", 7.25), (0, 0.0)])
def test_time_is_a_number_or_a_text_with_one(written: object, seconds: float) -> None:
    assert seconds_of({"time": written}, "time") == seconds


@pytest.mark.parametrize("written", [None, "soon", -1, True, float("nan"), "1e999", 10**400, [7]])
def test_what_is_no_time_is_refused(written: object) -> None:
    with pytest.raises(BadSampleError, match="no time in `time`: "):
        seconds_of({"time": written}, "time")


def test_turns_of_another_type_are_refused() -> None:
    for turns in (None, "text", ["text"], {"from": "human"}):
        with pytest.raises(BadSampleError, match="no conversation: "):
            said_of(turns)
    with pytest.raises(BadSampleError, match="no text: "):
        content_text([{"type": "image"}])
