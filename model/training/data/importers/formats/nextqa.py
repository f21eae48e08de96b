"""NExT-QA and IntentQA: questions of five options about films, in a CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.captioned import ENDING
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.options_text import choice_turns, choices_from
from model.training.data.importers.turns import path_text, text_of, video

NO_TEXT = "an option without text was read as the word None"
_OPTIONS = ("a0", "a1", "a2", "a3", "a4")


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a line. `None` and `nan` are words of an option, not empty cells."""
    entry = row.entry
    number = str(entry.get("answer"))
    if not number.isdecimal():
        raise BadSampleError(f"no index of an option: {number[:40]!r}; open questions are not read")
    missing = [key for key in _OPTIONS if entry.get(key) is None or entry[key] != entry[key]]  # null and NaN of Parquet
    texts = ["None" if key in missing else text_of(entry, key) for key in _OPTIONS]
    choices = choices_from(texts, int(number))
    name = path_text(str(entry.get("video", entry.get("video_id")) or ""))
    film = video(name + options.get("ending", ""))
    yield Draft(
        choice_turns(film, text_of(entry, "question"), choices),
        [film],
        original_id=f"{name}_{entry['qid']}" if entry.get("qid") is not None else name,
        choices=choices,
        task="qa_mc",
        aspect=text_of(entry, "type", ""),
        notes=[NO_TEXT] * len(missing),
    )


def _fits(entry: Mapping[str, Any]) -> bool:
    return {"question", "answer", *_OPTIONS} <= entry.keys()


FORMAT = Format(
    name="nextqa",
    about="NExT-QA's and IntentQA's questions with options (CSV)",
    read=read,
    fits=_fits,
    over=("llava", "chat"),
    profiles=(Profile("next-qa", Licence(name="MIT")), Profile("intent-qa")),
    options={"ending": ENDING},
)
