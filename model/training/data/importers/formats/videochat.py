"""VideoChat's instruction data: a film of WebVid and a list of questions and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.records import Licence
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.qa_lists import pairs_of, turns_of_pairs
from model.training.data.importers.turns import video


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry. Later questions follow on earlier ones, so their order stays."""
    entry = row.entry
    film = video(entry.get("video"))
    yield Draft(turns_of_pairs(pairs_of(entry), film), [film], original_id=entry.get("id", ""), task="qa")


def _fits(entry: Mapping[str, Any]) -> bool:
    pairs = entry.get("QA")
    if not isinstance(pairs, list) or not isinstance(entry.get("video"), str):
        return False
    return entry.keys() <= {"video", "QA", "id"} and not any(
        isinstance(pair, Mapping) and "i" in pair for pair in pairs
    )


FORMAT = Format(
    name="videochat",
    about="VideoChat: films of WebVid with a list of questions and answers",
    read=read,
    fits=_fits,
    profiles=(Profile("videochat-11k", Licence(name="MIT", generator="ChatGPT")),),
)
