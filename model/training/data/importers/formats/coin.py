"""COIN: as YouCook2, with `annotation` and `label`; the steps lie in a region of interest, `start` to `end`."""

from __future__ import annotations

from collections.abc import Iterator

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.events import MAKE, event_of, timed_drafts
from model.training.data.importers.film_names import PATH, path_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import list_of_turns, seconds_of, text_of, video


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the records of a film. The clip is the region of interest, and times count from its start."""
    entry = row.entry
    steps = list_of_turns(entry.get("annotation"))
    start, end = seconds_of(entry, "start"), seconds_of(entry, "end")
    recipe, split, task = str(entry.get("recipe_type", "")), text_of(entry, "subset", ""), text_of(entry, "class", "")
    path = path_of(options, "{id}.mp4", id=row.key, recipe=recipe, split=split, task=task)
    yield from timed_drafts(
        video(path, start=start, end=end),
        steps,
        lambda step: event_of(step.get("segment"), step.get("label"), end - start, start),
        options,
        original_id=row.key,
        subset=task,
        split=split,
        url=text_of(entry, "video_url", ""),
        transforms=("times_from_region",) if start else (),
    )


FORMAT = Format(
    name="coin",
    about="COIN: steps of 180 tasks",
    read=read,
    fits=lambda entry: {"annotation", "start", "end", "recipe_type"} <= entry.keys(),
    profiles=(Profile("coin", Licence(name="CC-BY-NC-4.0", non_commercial=True)),),
    options=MAKE | PATH,
    inside=("database",),
)
