from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.importing import Imported, import_source


def imported(folder: Path, films: dict[str, Any], **options: str) -> Imported:
    (folder / "captions.json").write_text(json.dumps(films))
    return import_source("llovi", folder / "captions.json", options=options)


def test_captions_of_each_second_become_spans(tmp_path: Path) -> None:
    (record,) = imported(tmp_path, {"u1": ["#C C lifts a lid", "#O X sits"]}).records
    assert record.turns[1].text == "0.0-1.0 s: C lifts a lid\n1.0-2.0 s: X sits"
    assert [(span.start, span.end) for span in record.turns[1].spans] == [(0.0, 1.0), (1.0, 2.0)]
    assert record.transforms == ("text_of_spans", "strip_narration_marks")
    assert record.media[0].path == "u1"


def test_numbers_of_frames_need_a_rate(tmp_path: Path) -> None:
    films = {"v1": {"30": "He sits.", "0": "He stands.", "45": "He lies."}}
    (record,) = imported(tmp_path, films, fps="30").records
    assert record.turns[1].text == "0.0-1.0 s: He stands.\n1.0-1.5 s: He sits.\n1.5-2.0 s: He lies."


@pytest.mark.parametrize(
    ("film", "reason"),
    [
        ({"0": "He sits."}, "numbers of frames without a rate: "),
        ([], "no events: "),
        (["He sits.", "#C"], "empty caption: at 1 s"),
        (["He sits.", 7], "no text in `caption`: 7"),
        ("He sits.", "no captions: str"),
    ],
)
def test_broken_film_is_rejected_and_the_rest_imported(tmp_path: Path, film: Any, reason: str) -> None:
    result = imported(tmp_path, {"u1": ["He sits.", "He stands."], "u2": film})
    assert len(result.records) == 1
    assert len(result.reasons) == 1
    assert result.reasons[0].startswith(reason)
