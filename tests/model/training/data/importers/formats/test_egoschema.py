from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.records import Choices
from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_source

OPTIONS = {f"option {number}": text for number, text in enumerate(["Sits.", "Cooks.", "Reads.", "Runs.", "Digs."])}
ONE: dict[str, Any] = {"question": "What does C do?", **OPTIONS, "truth": 3}


def test_truth_is_the_right_option_and_others_are_rejected(tmp_path: Path) -> None:
    hidden = {key: value for key, value in ONE.items() if key != "truth"}
    rows = {
        "u1": ONE,
        "u2": hidden,
        "u3": ONE | {"truth": 5},
        "u4": ONE | {"truth": -1},
        "u5": ONE | {"option 2": None},
        "u6": ONE | {"truth": "3"},
    }
    (tmp_path / "subset.json").write_text(json.dumps(rows))
    assert sniff(tmp_path / "subset.json").name == "egoschema"
    imported = import_source("egoschema", tmp_path / "subset.json", options={"ending": ".mp4"})
    (record,) = imported.records
    assert record.choices == Choices(options=tuple(OPTIONS.values()), answer_index=3)
    assert record.turns[1].text == "(D) Runs."
    assert record.turns[0].text.splitlines() == [
        *("What does C do?", "Options:", "(A) Sits.", "(B) Cooks.", "(C) Reads.", "(D) Runs.", "(E) Digs.")
    ]
    assert (record.media[0].path, record.source.original_id) == ("u1.mp4", "u1")
    assert imported.reasons == [
        "no right option: a split whose answers are not published",
        "an answer outside of its options: 5 of 5",
        "an answer outside of its options: -1 of 5",
        "no text in `option 2`: None",
        "an answer outside of its options: '3' of 5",
    ]
