"""HiREST: an object of query → films, each with the bounds of its moment, and steps inside of it. Whole seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.events import MAKE, event_of, grounding_draft, kinds_of, span_of, timed_drafts
from model.training.data.importers.film_names import PATH, path_of, split_of
from model.training.data.importers.format import ROW_ERRORS, Draft, Format, Options, Profile, Row, reason_of
from model.training.data.importers.turns import list_of_turns, seconds_of, video


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the records of a query's films: where the query is in a film, and the steps of that moment."""
    for name, film in row.entry.items():
        try:
            yield from _film_drafts(row, str(name), film, options)
        except ROW_ERRORS as error:
            yield BadSampleError(reason_of(error))


def _film_drafts(row: Row, name: str, film: Mapping[str, Any], options: Options) -> Iterator[Draft | BadSampleError]:
    if not isinstance(film, Mapping):
        raise BadSampleError(f"no film: {name}")
    if film.get("relevant") is False:
        raise BadSampleError(f"a film that does not belong to its query: {name}")
    length = seconds_of(film, "v_duration")
    path = path_of(options, "{file}", file=name, id=PurePath(name).stem)
    about: dict[str, Any] = {"original_id": f"{row.key}/{name}", "split": split_of(row.file)}
    is_whole = not film.get("clip") or film.get("bounds") == [0, 0]
    start, end, clipped = (0.0, length, ()) if is_whole else span_of(film.get("bounds"), length)
    if "grounding" in kinds_of(options):
        transforms = ("whole_film_from_zero_bounds",) if is_whole else clipped
        yield grounding_draft(video(path, duration=length), row.key, [(start, end)], transforms=transforms, **about)
    steps = list_of_turns(film.get("steps") or [])
    if not steps and "grounding" not in kinds_of(options):
        raise BadSampleError(f"no steps: only grounding can be made of {name}")
    if steps:
        clip: dict[str, Any] = {"duration": length} if is_whole else {"start": start, "end": end}
        yield from timed_drafts(
            video(path, **clip),
            steps,
            lambda step: event_of(step.get("absolute_bounds"), step.get("heading"), end - start, start),
            options,
            transforms=("times_from_bounds",) if start else (),
            **about,
        )


def _fits(entry: Mapping[str, Any]) -> bool:
    films = list(entry.values())
    return bool(films) and all(isinstance(film, Mapping) and "v_duration" in film for film in films)


FORMAT = Format(
    name="hirest",
    about="HiREST: moments of a query, and their steps",
    read=read,
    fits=_fits,
    profiles=(Profile("hirest", Licence(name="MIT")),),
    options=MAKE | PATH,
)
