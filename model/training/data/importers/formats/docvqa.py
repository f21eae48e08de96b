"""DocVQA and InfographicVQA: a question about a page, and all answers that count as right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import assistant, image, text_of, user


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry: the first answer is learned, all are references."""
    entry = row.entry
    answers = entry.get("answers")
    if not isinstance(answers, list) or not answers:
        raise BadSampleError("no answers: the test split has none")
    references = list(dict.fromkeys(text_of({"answers": answer}, "answers") for answer in answers))
    shown = image(entry.get("image", entry.get("image_local_name")))
    yield Draft(
        [user(shown, f"\n{text_of(entry, 'question')}"), assistant(references[0])],
        [shown],
        original_id=entry.get("questionId"),
        split=text_of(entry, "data_split", ""),
        url=text_of(entry, "image_url", ""),
        references=references,
        task="qa",
    )


def _fits(entry: Mapping[str, Any]) -> bool:
    return {"questionId", "question"} <= entry.keys() and bool({"image", "image_local_name"} & entry.keys())


FORMATS = tuple(
    Format(name, about, read, fits=fits, profiles=(Profile(name),), inside=("data",))
    for name, about, fits in (
        ("docvqa", "DocVQA: questions about pages", lambda entry: _fits(entry) and "image" in entry),
        ("infovqa", "InfographicVQA: DocVQA's form", lambda entry: _fits(entry) and "image_local_name" in entry),
    )
)
