"""Charades-STA: a line of text is a film, a span and a sentence. Lengths of the films are in another file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.events import event_of, grounding_draft
from model.training.data.importers.film_names import DURATIONS, PATH, length_of, path_of, split_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import text_of, video

_LINE = re.compile(r"(\S+)\s+([0-9]+(?:\.[0-9]+)?)\s+([0-9]+(?:\.[0-9]+)?)\s*##(.*)", re.DOTALL)


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the question of a line."""
    line = _LINE.fullmatch(text_of(row.entry, "text"))
    if line is None:
        raise BadSampleError("no line of Charades-STA: it is `ID start end##sentence`")
    length = length_of(options, line[1])
    event = event_of([float(line[2]), float(line[3])], line[4], length)
    yield grounding_draft(
        video(path_of(options, "{id}.mp4", id=line[1]), duration=length),
        event.text,
        [(event.start, event.end)],
        row.line,
        original_id=line[1],
        split=split_of(row.file),
        transforms=event.transforms,
    )


def _fits(entry: Mapping[str, Any]) -> bool:
    text = entry.get("text")
    return isinstance(text, str) and _LINE.fullmatch(text) is not None


FORMAT = Format(
    name="charades",
    about="Charades-STA: charades_sta_train.txt, charades_sta_test.txt",
    read=read,
    fits=_fits,
    profiles=(Profile("charades-sta", Licence(name="unknown; see the terms of Charades")),),
    options=DURATIONS | PATH,
)
