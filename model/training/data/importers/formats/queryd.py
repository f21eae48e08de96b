"""QuerYD: captions and times in files side by side. They are published as pickles, which can run code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from core.errors import BadSampleError, UserError
from core.records import Licence
from model.training.data.importers.events import MAKE, event_of, timed_drafts
from model.training.data.importers.film_names import DURATIONS, PATH, length_of, path_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.readers import read_rows
from model.training.data.importers.turns import texts_of, video

_FILES = {"captions": "raw_captions*.json", "times": "times*.json"}
NOT_OF_THE_EVENT = "times are those of the spoken description, not exactly of the event"


def rows(source: Path, options: Options) -> Iterator[Row]:
    """Yield a row for each film of the captions, with its times.

    Raises:
        UserError: The folder does not have both files as JSON.
    """
    files = {name: sorted(source.glob(pattern)) for name, pattern in _FILES.items()}
    if wrong := [_FILES[name] for name, there in files.items() if len(there) != 1]:
        raise UserError(
            f"{source}: give a folder with one {wrong[0]}: QuerYD's pickles can run code and are not read; load them "
            "where you trust them, and write each with json.dump"
        )
    times = {row.key: row.value for row in read_rows(files["times"][0])}
    for row in read_rows(files["captions"][0]):
        yield Row({"captions": row.value, "times": times.pop(row.key, None)}, row.file, row.line, row.key)
    for number, (key, value) in enumerate(times.items(), 1):
        yield Row({"captions": None, "times": value}, files["times"][0].name, number, key)


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the records of a film."""
    captions, times = row.entry["captions"], row.entry["times"]
    if not isinstance(captions, list) or not isinstance(times, list) or len(captions) != len(times):
        raise BadSampleError("captions and times do not match: give one span for each caption")
    length = length_of(options, row.key)
    yield from timed_drafts(
        video(path_of(options, "{id}.mp4", id=row.key), duration=length),
        zip(times, captions, strict=True),
        lambda piece: event_of(piece[0], " ".join(texts_of({"captions": piece[1]}, "captions")), length),
        options,
        original_id=row.key,
        notes=(NOT_OF_THE_EVENT,),
    )


FORMAT = Format(
    name="queryd",
    about="QuerYD: a folder with its files as JSON, in place of pickles",
    read=read,
    fits=lambda entry: False,
    profiles=(Profile("queryd", Licence()),),
    options=MAKE | PATH | DURATIONS,
    rows=rows,
    recognises=lambda source: all(any(source.glob(f"{name}*")) for name in ("raw_captions", "times")),
)
