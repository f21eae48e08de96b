from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_entries

CLIP = {
    "YoutubeID": "AbCdEfGhIjK",
    "Start_timestamp": "00:01:02.500",
    "End_timestamp": "00:01:09.250",
    "Caption": "A man sits.",
    "Aesthetic_Score": 4.5,
    "UMT_Score": 0.41,
}


def test_clock_times_become_a_clip_of_the_film(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "internvid", [CLIP], options={"ending": ".mp4"})
    assert imported.rendered("videollama3") == [
        {
            "video": "AbCdEfGhIjK.mp4",
            "start": 62.5,
            "end": 69.25,
            "times_from_start": True,
            "conversations": [
                {"from": "human", "value": "<video>Describe the video."},
                {"from": "gpt", "value": "A man sits."},
            ],
        }
    ]


def test_auto_takes_lines_of_internvid(tmp_path: Path) -> None:
    (tmp_path / "clips.jsonl").write_text(json.dumps(CLIP) + "\n")
    assert sniff(tmp_path / "clips.jsonl").name == "internvid"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Start_timestamp": 62.5}, "no clock time: 62.5"),
        ({"End_timestamp": "00:00:01.000"}, "the clip ends at 1 s, before it starts at 62.5 s"),
        ({"Caption": None}, "no text in `Caption`: None"),
        ({"UMT_Score": 0.2}, "below min_umt: 0.2"),
        ({"UMT_Score": "high"}, "no number in `UMT_Score`: 'high'"),
    ],
)
def test_broken_line_is_rejected_and_the_rest_imported(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    imported = import_entries(tmp_path, "internvid", [CLIP, CLIP | change, CLIP], options={"min_umt": "0.4"})
    assert len(imported.records) == 2
    assert len(imported.reasons) == 1
    assert imported.reasons[0].startswith(reason)
