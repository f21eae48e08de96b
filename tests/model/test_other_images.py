"""Samples with other samples' images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from core.errors import BadSampleError
from model.other_images import OtherImages
from model.training.data.samples import Sample
from model.training.data.source import SelectedRows, Source


@dataclass
class Samples(Source):
    """Samples from what their questions have: texts, and media as parts. A text that is `bad` makes the sample bad."""

    contents: Sequence[Any]
    name: str = "list"

    def __post_init__(self) -> None:
        self.blocks = [len(self.contents)]

    def sample(self, row: int) -> Sample:
        content = self.contents[row]
        if content == "bad":
            raise BadSampleError(f"{row} is bad")
        return Sample(
            str(row), [{"role": "user", "content": content}, {"role": "assistant", "content": f"It is {row}."}]
        )


def image(name: str) -> dict[str, Any]:
    return {"type": "image", "image": name.encode()}


def clip(name: str, **settings: Any) -> dict[str, Any]:
    return {"type": "video", "video": name, **settings}


def shuffled(*contents: Any, rows: Sequence[int] | None = None) -> list[tuple[str, Any]]:
    selected = SelectedRows(Samples(contents), range(len(contents)) if rows is None else rows)
    seen = OtherImages(selected)
    pairs = [(sample.name, sample.conversation[0]["content"]) for sample in seen]
    assert pairs == [(sample.name, sample.conversation[0]["content"]) for sample in seen], "the same each time"
    assert all(s.conversation[1] == selected.source.sample(int(s.name)).conversation[1] for s in seen)
    return pairs


def test_each_sample_has_the_image_of_the_next_one() -> None:
    contents = [[image(name), "What?"] for name in "abc"]
    assert shuffled(*contents) == [
        ("0", [image("b"), "What?"]),
        ("1", [image("c"), "What?"]),
        ("2", [image("a"), "What?"]),
    ]


def test_questions_about_one_image_all_get_another() -> None:
    names = ["a", "a", "b", "a", "c", "c"]
    pairs = shuffled(*([image(name), f"{n}?"] for n, name in enumerate(names)))
    assert [content[0]["image"].decode() for _, content in pairs] == ["b", "b", "c", "b", "a", "a"]
    assert [content[1] for _, content in pairs] == [f"{n}?" for n in range(6)]


def test_media_go_to_samples_with_as_many_of_the_same_kind() -> None:
    pairs = shuffled(
        ["Look: ", image("a"), image("b")],
        [image("c"), "What?"],
        "Only text.",
        [clip("x.mp4", start=1.0), "What?"],
        [image("d"), " and ", image("e"), "?"],
        [clip("x.mp4", start=2.0), "What?"],
        [image("a"), image("b"), "What?"],
    )
    assert pairs == [
        ("0", ["Look: ", image("d"), image("e")]),
        ("3", [clip("x.mp4", start=2.0), "What?"]),
        ("4", [image("a"), " and ", image("b"), "?"]),
        ("5", [clip("x.mp4", start=1.0), "What?"]),
        ("6", [image("d"), image("e"), "What?"]),
    ], "the only sample with one image and the text are left out"


def test_bad_samples_and_rows_that_are_not_chosen_lend_nothing() -> None:
    contents = [[image("a"), "?"], "bad", [image("b"), "?"], [image("c"), "?"]]
    assert shuffled(*contents, rows=[0, 1, 2]) == [("0", [image("b"), "?"]), ("2", [image("a"), "?"])]


@pytest.mark.parametrize("contents", [(), ("Text.",), ([image("a"), "?"],), ([image("a"), "?"], [image("a"), "!"])])
def test_nothing_is_shuffled_without_two_images(contents: tuple[Any, ...]) -> None:
    assert shuffled(*contents) == []
