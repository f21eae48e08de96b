"""EgoSchema: a question of five options about three minutes of film. It is a benchmark: train on none of it."""

from __future__ import annotations

from collections.abc import Iterator

from model.training.data.importers.captioned import ENDING
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.options_text import choice_turns, choices_from
from model.training.data.importers.turns import path_text, text_of, video


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a question. Those without `truth` are rejected: their answers are not published."""
    entry = row.entry
    name = path_text(entry.get("q_uid") or row.key)
    count = sum(key.startswith("option ") for key in entry)
    texts = [text_of(entry, f"option {number}") for number in range(count)]
    choices = choices_from(texts, entry.get("truth"))
    film = video(name + options.get("ending", ""))
    turns = choice_turns(film, text_of(entry, "question"), choices)
    yield Draft(turns, [film], original_id=name, choices=choices, task="qa_mc")


FORMAT = Format(
    name="egoschema",
    about="EgoSchema's questions, as LLoVi reads them",
    read=read,
    fits=lambda entry: {"question", "option 0", "option 1"} <= entry.keys(),
    profiles=(Profile("egoschema"),),
    options={"ending": ENDING},
)
