from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import Imported, import_source

ROW = {
    "videoID": "AbCdEfGhIjK",
    "url": "https://www.youtube.com/watch?v=AbCdEfGhIjK",
    "timestamp": "[['0:00:22.789', '0:00:32.800'], ['1:00:32.8', '1:00:40.000']]",
    "caption": '["a man\'s kettle, it is red", \'He says "tea".\']',
    "matching_score": "[0.43, 0.3]",
    "desirable_filtering": "['desirable', 'still_foreground_image']",
    "shot_boundary_detection": "[[['0:00:00.000', '0:00:10.010']], []]",
}


def imported(folder: Path, *rows: dict[str, Any], **others: Any) -> Imported:
    with open(folder / "panda.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ROW)
        writer.writeheader()
        writer.writerows(rows)
    return import_source("panda70m", folder / "panda.csv", **others)


def test_parallel_lists_become_a_record_a_clip(tmp_path: Path) -> None:
    result = imported(tmp_path, ROW)
    assert [record.turns[1].text for record in result.records] == ["a man's kettle, it is red", 'He says "tea".']
    films = [record.media[0] for record in result.records]
    assert [(film.path, film.start, film.end, film.is_cut) for film in films] == [
        ("AbCdEfGhIjK", 22.789, 32.8, False),
        ("AbCdEfGhIjK", 3632.8, 3640.0, False),
    ]
    assert [record.id for record in result.records] == ["set/AbCdEfGhIjK/1.0", "set/AbCdEfGhIjK/1.1"]
    assert result.records[0].source.url == ROW["url"]
    assert sniff(tmp_path / "panda.csv").name == "panda70m"


def test_clips_that_are_files_keep_the_clock_of_the_film(tmp_path: Path) -> None:
    result = imported(tmp_path, ROW, options={"clips": "{id}/{id}_{number}.mp4"})
    film = result.records[1].media[0]
    assert (film.path, film.start, film.is_cut) == ("AbCdEfGhIjK/AbCdEfGhIjK_1.mp4", 3632.8, True)
    assert result.rendered("llava")[1]["video"] == film.path


def test_one_name_for_all_clips_is_refused(tmp_path: Path) -> None:
    result = imported(tmp_path, ROW, options={"clips": "{id}.mp4"})
    assert result.records == []
    assert result.reasons[0].startswith("one name for all clips of a film: ")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"min_score": "0.4"}, "below min_score: 0.3"),
        ({"desirable": "only"}, "not desirable: still_foreground_image"),
    ],
)
def test_clips_below_a_score_are_rejected_and_counted(tmp_path: Path, options: dict[str, str], reason: str) -> None:
    result = imported(tmp_path, ROW, options=options)
    assert [record.media[0].start for record in result.records] == [22.789]
    assert result.reasons == [reason]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"timestamp": "__import__('os').listdir()"}, "no list in `timestamp`: "),
        ({"caption": "['one']"}, "lists of different lengths: 1 in `caption`, 2 clips"),
        ({"timestamp": "[]", "caption": "[]", "matching_score": "[]", "desirable_filtering": "[]"}, "no record in it"),
        ({"caption": "a man"}, "no list in `caption`: 'a man'"),
    ],
)
def test_broken_line_is_rejected_and_the_rest_imported(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    result = imported(tmp_path, ROW, ROW | change, ROW)
    assert len(result.records) == 4
    assert len(result.reasons) == 1
    assert result.reasons[0].startswith(reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"timestamp": "[['0:00:05', '0:00:02'], ['0:00:00', '0:00:01']]"}, "the clip ends at 2 s, before it starts"),
        ({"timestamp": "[['5', '9'], ['0:00:00', '0:00:01']]"}, "no clock time: '5'"),
        ({"timestamp": "[['0:00:05'], ['0:00:00', '0:00:01']]"}, "no clip: "),
        ({"caption": "[7, 'x']"}, "no text in `caption`: 7"),
        ({"caption": "['', 'x']"}, "empty caption: "),
    ],
)
def test_broken_clip_is_rejected_and_its_film_imported(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    result = imported(tmp_path, ROW | change)
    assert len(result.records) == 1
    assert len(result.reasons) == 1
    assert result.reasons[0].startswith(reason)
