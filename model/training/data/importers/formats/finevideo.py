"""FineVideo: Parquet of films with a description of scenes, activities and questions. The films' bytes are not read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadSampleError, UserError
from core.records import Licence
from model.training.data.importers.clocks import clock_seconds
from model.training.data.importers.dense_captions import WRITTEN, dense_turns
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.readers import files_of, files_of_kind, kind_of, read_rows
from model.training.data.importers.turns import assistant, list_of_turns, path_text, seconds_of, text_of, user, video

_DESCRIPTION = "json"
_ROWS = 64  # in memory at once; without films they are small


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the dense captions of a film, and a record for each question."""
    told = row.entry.get(_DESCRIPTION)
    told = _parsed(told) if isinstance(told, str) else told
    if not isinstance(told, Mapping):
        raise BadSampleError("no description: `json` has no object")
    content = told.get("content_metadata") or told
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


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSampleError(f"no JSON in `json`: {error}") from error


def _events(content: Mapping[str, Any]) -> list[tuple[float, float, str]]:
    events = []
    for scene in list_of_turns(content.get("scenes")):
        for activity in list_of_turns(scene.get("activities") or []):
            times = activity.get("timestamp") or {}
            start, end = (clock_seconds(times.get(f"{edge}_timestamp")) for edge in ("start", "end"))
            events.append((start, end, text_of(activity, "description")))
    return sorted(events)


def film_rows(source: Path, options: Options) -> Iterator[Row]:
    """Read the descriptions alone; of Parquet without the films, which are tens of megabytes each.

    Raises:
        UserError: A Parquet file has no such column, or is damaged.
    """
    import pyarrow as pa

    from core.parquet import Parquet

    for file in files_of(source):
        if kind_of(file) != ".parquet":
            yield from read_rows(file)
            continue
        number = 0
        try:
            with open(file, "rb") as data:
                table = Parquet(data)
                if _DESCRIPTION not in table.schema.names:
                    raise UserError(f"{file}: no column `{_DESCRIPTION}`: it is no file of FineVideo")
                for batch in table.batches([_DESCRIPTION], _ROWS):
                    for value in batch.to_pylist():
                        number += 1
                        yield Row(value, file.name, number)
        except (BadSampleError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{file}: cannot be read behind row {number:,}: {reason}; copy it again") from error


def _recognises(source: Path) -> bool:
    """Return whether the first file is Parquet of films and descriptions. Its films are not read."""
    import pyarrow as pa

    from core.parquet import Parquet

    files = files_of_kind(source, ".parquet")
    if not files:
        return False
    try:
        with open(files[0], "rb") as data:
            return {"mp4", _DESCRIPTION} <= set(Parquet(data).schema.names)
    except (BadSampleError, pa.ArrowException):
        return False  # reading the rows reports it


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
