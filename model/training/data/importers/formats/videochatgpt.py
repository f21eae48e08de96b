"""VideoInstruct-100K: rows of a question, an answer and an id of ActivityNet; and LLaVA's form with features' names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.records import Licence
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import dialog_turns, said_of, text_of, video

TAG = re.compile("\n?QA_GT_caption_based_noisy")
"""An internal mark of those who made the data, left in many answers; nothing else is taken off."""

FEATURES = ".pkl"


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a row. A film without an ending is looked up with one."""
    entry, transforms = row.entry, []
    if "conversations" in entry:
        said, name = said_of(entry["conversations"]), text_of(entry, "video")
    else:
        said = [("user", text_of(entry, "q")), ("assistant", text_of(entry, "a"))]
        name = text_of(entry, "video_id")
    if name.endswith(FEATURES):
        name = name.removesuffix(FEATURES)
        transforms.append("film_of_features")
    clean = [(role, TAG.sub("", text) if role == "assistant" else text) for role, text in said]
    if clean != said:
        transforms.append("strip_tag")
    film = video(name and name + options.get("ending", ""))
    turns, notes = dialog_turns(clean, [film])
    if "conversations" not in entry:
        notes = []  # the form has no placeholders: nothing was guessed
    yield Draft(turns, [film], original_id=entry.get("id", name), task="qa", transforms=transforms, notes=notes)


def _fits(entry: Mapping[str, Any]) -> bool:
    if {"q", "a", "video_id"} <= entry.keys():
        return True
    return str(entry.get("video")).endswith(FEATURES) and isinstance(entry.get("conversations"), list)


FORMAT = Format(
    name="videochatgpt",
    about="Video-ChatGPT's VideoInstruct-100K, flat or in LLaVA's form; takes its internal mark off the answers",
    read=read,
    fits=_fits,
    over=("llava",),
    profiles=(
        Profile("videoinstruct-100k", Licence(name="CC-BY-SA-4.0", generator="gpt-3.5")),
        Profile("vcg-plus-112k", Licence(generator="gpt-3.5")),
    ),
    options={"ending": "ending of the films, such as .mp4; default: the one that --media has"},
)
