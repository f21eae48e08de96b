"""NExT-GQA: the spans of a film that answer questions of NExT-QA. The questions are in its CSV."""

from __future__ import annotations

import csv
import reprlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.errors import BadSampleError, UserError
from core.records import Span
from model.training.data.grounding import span_text
from model.training.data.importers.captioned import ADDED, ENDING
from model.training.data.importers.events import span_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.readers import files_of_kind, read_rows
from model.training.data.importers.turns import assistant, path_text, seconds_of, user, video

ASKED = "When does the video show the answer to this question?"


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
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
        if not isinstance(pairs, list):
            raise BadSampleError(f"no list of spans: {reprlib.repr(pairs)}")
        times = [span_of(pair)[:2] for pair in pairs]
        if not times:
            raise BadSampleError("no spans: the list is empty")
        spans = tuple(Span(media="v0", start=start, end=end) for start, end in times)
        turns = [user(film, f"{ASKED} {asked[row.key, number]}"), assistant(span_text(times), spans=spans)]
        return Draft(turns, [film], original_id=f"{row.key}_{number}", task="grounding", transforms=(ADDED,))

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


def _recognises(source: Path) -> bool:
    files = files_of_kind(source, ".json")
    row = next(read_rows(files[0]), None) if files else None
    value = row.value if row and isinstance(row.value, Mapping) else {}
    return isinstance(value.get("location"), Mapping) and "duration" in value


FORMAT = Format(
    name="nextgqa",
    about="NExT-GQA's spans of questions (gsub JSON), beside its CSV",
    read=read,
    fits=lambda entry: False,  # they need the CSV
    profiles=(Profile("next-gqa"),),
    rows=span_rows,
    recognises=_recognises,
    options={"questions": "CSV with the questions", "ending": ENDING},
)
