"""YouCook2: `{"database": {film: {"annotations": [{"segment": [90, 102], "sentence": "…"}]}}}`, whole seconds."""

from __future__ import annotations

from collections.abc import Iterator

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.events import MAKE, event_of, timed_drafts
from model.training.data.importers.film_names import PATH, path_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import list_of_turns, seconds_of, text_of, video


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the records of a film. Films lie in folders by recipe."""
    entry = row.entry
    steps = list_of_turns(entry.get("annotations"))
    length = seconds_of(entry, "duration")
    recipe, split = str(entry.get("recipe_type", "")), text_of(entry, "subset", "")
    film = video(path_of(options, "{recipe}/{id}.mp4", id=row.key, recipe=recipe, split=split), duration=length)
    yield from timed_drafts(
        film,
        steps,
        lambda step: event_of(step.get("segment"), step.get("sentence"), length),
        options,
        original_id=row.key,
        split=split,
        url=text_of(entry, "video_url", ""),
    )


FORMAT = Format(
    name="youcook2",
    about="YouCook2: steps of recipes",
    read=read,
    fits=lambda entry: {"annotations", "duration", "recipe_type"} <= entry.keys(),
    profiles=(Profile("youcook2", Licence()),),
    options=MAKE | PATH,
    inside=("database",),
)
