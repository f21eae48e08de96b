"""FineVideo: Parquet of films with a description of scenes, activities and questions. The films' bytes are not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.clocks import clock_seconds
from model.training.data.importers.dense_captions import WRITTEN, dense_turns
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.readers import Notes, files_of, files_of_kind, kind_of, read_file
from model.training.data.importers.table_readers import parquet_columns, parquet_rows
from model.training.data.importers.turns import (
    assistant,
    json_in,
    list_of_turns,
    path_text,
    seconds_of,
    text_of,
    user,
    video,
)

_DESCRIPTION = "json"


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the dense captions of a film, and a record for each question."""
    told = json_in(row.entry, _DESCRIPTION)
    if not isinstance(told, Mapping):
        raise BadSampleError("no description: `json` has no object")
    content = Row(told.get("content_metadata") or told).entry
    name = path_text(told.get("original_video_filename"))
    length = seconds_of(told, "duration_seconds") if told.get("duration_seconds") is not None else None
    film = video(name, duration=length)

    def draft(pair: Mapping[str, Any] | None) -> Draft:
        if pair is None:
            return Draft(
                dense_turns(film, _events(content)),
                [film],
                original_id=name,
                task="dense_caption",
                transforms=(WRITTEN, "seconds_from_clock"),
            )
        turns = [user(film, text_of(pair, "question")), assistant(text_of(pair, "answer"))]
        return Draft(turns, [film], original_id=name, task="qa")

    yield from drafts_of([None, *list_of_turns(content.get("qAndA") or [])], draft)


def _events(content: Mapping[str, Any]) -> list[tuple[float, float, str]]:
    events = []
    for scene in list_of_turns(content.get("scenes")):
        for activity in list_of_turns(scene.get("activities") or []):
            times = Row(activity.get("timestamp") or {}).entry
            start, end = (clock_seconds(times.get(f"{edge}_timestamp")) for edge in ("start", "end"))
            events.append((start, end, text_of(activity, "description")))
    return sorted(events)


def film_rows(source: Path, options: Options) -> Iterator[Row]:
    """Read the descriptions alone; of Parquet without the films, which are tens of megabytes each.

    Raises:
        UserError: A Parquet file has no such column, or is damaged.
    """
    for file in files_of(source):
        name = file.name if file == source else str(file.relative_to(source))
        if kind_of(file) == ".parquet":
            yield from parquet_rows(file, name, _DESCRIPTION)
        else:
            yield from read_file(file, name, (), Notes())


def _recognises(source: Path) -> bool:
    """Return whether the first file is Parquet of films and descriptions. Its films are not read."""
    files = files_of_kind(source, ".parquet")
    return bool(files) and {"mp4", _DESCRIPTION} <= set(parquet_columns(files[0]))


FORMAT = Format(
    name="finevideo",
    about="FineVideo: dense captions and questions; write its films to files yourself",
    read=read,
    fits=lambda entry: False,  # its films would be read to look at it
    profiles=(
        Profile(
            "finevideo",
            Licence(
                name="CC-BY, as each film says",
                terms_url="https://huggingface.co/datasets/HuggingFaceFV/finevideo",
                gated=True,
            ),
        ),
    ),
    rows=film_rows,
    recognises=_recognises,
)
