"""VTimeLLM: time tokens, cuts, and rows without either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.training.data.grounding import spans_of
from model.training.data.importers.formats.vtimellm import OTHER_LENGTH
from tests.model.training.data.importers.importing import import_entries


def turns(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


META = {"split": [12.0, 60.0], "duration": 48.0, "token": {"<s0>": 0.0, "<e0>": 7.25, "<s1>": 8.5, "<e1>": 48.0}}
CUT: dict[str, Any] = {
    "source": "internvid",
    "id": "AbC",
    "conversations": turns("<video>\nWhen?", "From <s0> to <e0>, a man sits.", "And <s1> to <e1>?", "He stands."),
    "meta": META,
}
IMAGE = {"id": "004", "image": "00453/004.jpg", "conversations": turns("<image>\nWhat?", "A kettle.")}
PLAIN = {"id": "v_x", "conversations": turns("What?\n<video>", "A man folds a map.")}


def test_time_tokens_become_seconds_of_the_cut(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "vtimellm", [CUT]).records
    film = record.medium("v0")
    assert (film.path, film.start, film.end, film.duration, film.is_cut) == ("AbC.mp4", 12.0, 60.0, 48.0, False)
    assert record.turns[1].text == "From 0.0 s to 7.2 s, a man sits."
    assert spans_of(record.turns[1].text) == [(0.0, 7.2)]
    assert [(span.start, span.end) for span in record.turns[1].spans] == [(0.0, 7.25)]
    assert [(span.start, span.end) for span in record.turns[2].spans] == [(8.5, 48.0)]
    assert (record.source.subset, record.task) == ("internvid", "grounding")
    assert record.transforms == ("seconds_from_time_tokens",)


def test_tokens_and_meta_come_back_of_the_record(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "vtimellm", [CUT]).records
    spans = [(span.start, span.end) for turn in record.turns for span in turn.spans]
    token = {f"<{mark}{n}>": time for n, pair in enumerate(spans) for mark, time in zip("se", pair, strict=True)}
    film = record.medium("v0")
    assert {"split": [film.start, film.end], "duration": film.duration, "token": token} == META


def test_images_and_rows_without_meta_are_plain(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "vtimellm", [IMAGE, PLAIN])
    assert imported.rendered("llava") == [
        {key: value for key, value in IMAGE.items() if key != "id"},
        {"video": "v_x.mp4", "conversations": PLAIN["conversations"]},
    ]


def test_two_cuts_of_one_id_are_two_records(tmp_path: Path) -> None:
    other = CUT | {"meta": META | {"split": [100.0, 148.0]}}
    imported = import_entries(tmp_path, "vtimellm", [CUT, other])
    assert [record.id for record in imported.records] == ["set/AbC/1", "set/AbC/2"]
    assert [record.media[0].start for record in imported.records] == [12.0, 100.0]
    assert not imported.report.notes.counted


def test_pattern_with_start_names_files_that_are_cut(tmp_path: Path) -> None:
    options = {"path": "{source}/{id}_{start}_{end}.mp4"}
    (record,) = import_entries(tmp_path, "vtimellm", [CUT], options=options).records
    assert (record.media[0].path, record.media[0].is_cut) == ("internvid/AbC_12.0_60.0.mp4", True)


def test_split_of_another_length_is_noted(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "vtimellm", [CUT | {"meta": META | {"split": [12.0, 80.0]}}])
    assert imported.report.notes.counted[OTHER_LENGTH].count == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (CUT | {"meta": {}}, "a time token without a time: <s0>"),
        (CUT | {"meta": META | {"token": {"<s0>": "x"}}}, "no time in `<s0>`"),
        (CUT | {"meta": META | {"split": 7}}, "no start and end in `split`"),
        (CUT | {"meta": META | {"split": [60.0, 12.0]}}, "the clip ends at 12 s, before it starts"),
        (CUT | {"meta": META | {"duration": 20.0}}, "span outside of the film: turn 2 has 8.5-48 s of 20 s"),
        (CUT | {"meta": META | {"token": META["token"] | {"<e0>": -1.0}}}, "no time in `<e0>`"),
        (
            CUT | {"meta": META | {"token": {**META["token"], "<s0>": 9.0}}},  # type: ignore[dict-item]
            "span 9-7.25 s ends before it starts",
        ),
        (CUT | {"conversations": turns("When?\n<video><video>", "Now.")}, "placeholders do not match"),
        (CUT | {"conversations": None}, "no conversation: None"),
        ([1], "not an object: list"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "vtimellm", [PLAIN, broken, IMAGE])
    assert len(imported.records) == 2
    assert [(row["line"], row["reason"][: len(reason)]) for row in imported.rejected] == [(2, reason)]
