"""NExT-QA, IntentQA and NExT-GQA: questions of five options in a CSV, and the spans of a film that answer them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.errors import BadSampleError, UserError
from core.records import Licence, Span
from model.training.data.grounding import span_text
from model.training.data.importers.captioned import ENDING
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.options_text import choice_turns, choices_from
from model.training.data.importers.readers import read_rows
from model.training.data.importers.turns import assistant, path_text, seconds_of, text_of, user, video

ASKED = "When does the video show the answer to this question?"
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


def read_spans(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft a record for each grounded question of a film."""
    asked = _questions(options["questions"])
    entry = row.entry
    location = entry.get("location")
    if not isinstance(location, Mapping):
        raise BadSampleError("no spans: `location` is missing")
    film = video(path_text(row.key) + options.get("ending", ""), duration=seconds_of(entry, "duration"))

    def draft(piece: tuple[str, Any]) -> Draft:
        number, pairs = piece
        if (row.key, number) not in asked:
            raise BadSampleError(f"no such question in the CSV: {row.key} {number}")
        times = [(seconds_of({"start": start}, "start"), seconds_of({"end": end}, "end")) for start, end in pairs]
        if not times:
            raise BadSampleError("no spans: the list is empty")
        spans = tuple(Span(media="v0", start=start, end=end) for start, end in times)
        turns = [user(film, f"{ASKED} {asked[row.key, number]}"), assistant(span_text(times), spans=spans)]
        return Draft(turns, [film], original_id=f"{row.key}_{number}", task="grounding", transforms=("question_added",))

    yield from drafts_of(location.items(), draft)


def span_rows(source: Path, options: Options) -> Iterator[Row]:
    """Read the films, once the questions are there.

    Raises:
        UserError: They are not.
    """
    if "questions" not in options:
        raise UserError("nextgqa has no questions of its own: give --set questions=FILE, the CSV of NExT-GQA")
    _questions(options["questions"])
    return read_rows(source)


@lru_cache(1)
def _questions(file: str) -> Mapping[tuple[str, str], str]:
    """Return the questions of a CSV by film and number.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with open(Path(file), newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
        return {(row.get("video") or row["video_id"], row["qid"]): row["question"] for row in rows}
    except (OSError, KeyError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"--set questions={file}: cannot be read: {error}; give a CSV of video, qid, question"
        ) from error


def _fits(entry: Mapping[str, Any]) -> bool:
    return {"question", "answer", *_OPTIONS} <= entry.keys()


FORMATS = (
    Format(
        name="nextqa",
        about="NExT-QA's and IntentQA's questions with options (CSV)",
        read=read,
        fits=_fits,
        over=("llava", "chat"),
        profiles=(Profile("next-qa", Licence(name="MIT")), Profile("intent-qa")),
        options={"ending": ENDING},
    ),
    Format(
        name="nextgqa",
        about="NExT-GQA's spans of questions (gsub JSON), beside its CSV",
        read=read_spans,
        fits=lambda entry: False,  # they need the CSV
        profiles=(Profile("next-gqa"),),
        rows=span_rows,
        options={"questions": "CSV with the questions", "ending": ENDING},
    ),
)
