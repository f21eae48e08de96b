"""ActivityNet Captions: an object of film → its length, spans and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.events import MAKE, event_of, timed_drafts
from model.training.data.importers.film_names import PATH, path_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import seconds_of, video

_SPLITS = {"train": "train", "val_1": "validation", "val_2": "validation"}


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the records of a film. val_1 and val_2 annotate the same films, so the file's name is the subset."""
    entry = row.entry
    length = seconds_of(entry, "duration")
    spans, sentences = entry.get("timestamps"), entry.get("sentences")
    if not isinstance(spans, list) or not isinstance(sentences, list) or len(spans) != len(sentences):
        raise BadSampleError("timestamps and sentences do not match: give one sentence for each span")
    film = video(path_of(options, "{id}.mp4", id=row.key or entry.get("id")), duration=length)
    name = PurePath(row.file).stem
    yield from timed_drafts(
        film,
        zip(spans, sentences, strict=True),
        lambda piece: event_of(piece[0], piece[1], length),
        options,
        original_id=row.key or entry.get("id", ""),
        subset=name if name in _SPLITS else "",
        split=_SPLITS.get(name, ""),
    )


FORMAT = Format(
    name="activitynet",
    about="ActivityNet Captions: train.json, val_1.json, val_2.json",
    read=read,
    fits=lambda entry: {"duration", "timestamps", "sentences"} <= entry.keys(),
    profiles=(Profile("activitynet-captions", Licence()),),
    options=MAKE | PATH,
)
