"""Penguin-Recap-V: recaptions of films, three rows a film, from the densest to a summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.records import Span
from model.training.data.forms import media_of
from model.training.data.grounding import spans_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.readers import read_rows
from model.training.data.importers.turns import dialog_turns, media_of_paths, said_of

GRANULARITIES = ("dense", "paragraph", "summary")
UNKNOWN_GRANULARITY = "a film with neither one nor three rows in a row, so of unknown granularity"
NO_TIMES = "a dense caption without times that could be read"


@dataclass(frozen=True)
class RecapRow(Row):
    """A row, with what its place among the rows of its film says."""

    granularity: str = ""


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a row about a film."""
    entry, granularity = row.entry, row.granularity if isinstance(row, RecapRow) else ""
    paths = media_of(entry, "video")
    media = media_of_paths(videos=paths)
    turns, notes = dialog_turns(said_of(entry.get("conversations")), media)
    if granularity == "dense":
        spans = tuple(Span(media="v0", start=start, end=end) for start, end in spans_of(turns[-1].text))
        turns[-1] = turns[-1].model_copy(update={"spans": spans})
        notes += [] if spans else [NO_TIMES]
    notes += [] if granularity else [UNKNOWN_GRANULARITY]
    task = "dense_caption" if granularity == "dense" else "caption"
    original = entry.get("id") or str(paths[0] if paths else "")
    yield Draft(turns, media, original_id=original, task=task, aspect=granularity, notes=notes)


def film_rows(source: Path, options: Options) -> Iterator[RecapRow]:
    """Read the rows with their granularity: three in a row about one film, or a summary alone.

    What is no row counts as one of the film before it, so that the rows beside it keep their place.
    """
    block: list[Row] = []
    film = ""
    for row in read_rows(source):
        its_film = str(row.value.get("video")) if isinstance(row.value, Mapping) else film
        if block and (its_film != film or len(block) == len(GRANULARITIES)):
            yield from _named(block)
            block = []
        film = its_film
        block.append(row)
    yield from _named(block)


def _named(block: list[Row]) -> Iterator[RecapRow]:
    names = {3: GRANULARITIES, 1: ("summary",)}.get(len(block), ("",) * len(block))
    for row, name in zip(block, names, strict=True):
        yield RecapRow(row.value, row.file, row.line, row.key, name)


FORMAT = Format(
    name="penguin-recap-v",
    about="Penguin-Recap-V: dense caption, paragraph and summary of a film, three rows one after another",
    read=read,
    fits=lambda entry: False,  # rows of llava, but for their order
    profiles=(Profile("penguin-recap-v"),),
    rows=film_rows,
)
