"""The last question of a sample, with what a score of an answer needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from model.prompt import Message
from model.training.data.samples import Sample


class Question(NamedTuple):
    """The last question of a sample.

    Attributes:
        sample: Name of the sample.
        text: The question.
        reference: The sample's own answer.
        references: All right answers that the sample names; unchecked, None if it names none.
        labels: What else the sample says in a text or a whole number each.
    """

    sample: str
    text: str
    reference: str
    references: Any = None
    labels: Mapping[str, str | int] = MappingProxyType({})


def question_of(sample: Sample) -> Question | None:
    """Return the last question of a sample; None if its conversation does not end with an answer."""
    *before, last = sample.conversation or ({"role": "user", "content": ""},)
    asked = [message for message in before if message["role"] == "user"]
    if last["role"] != "assistant" or not asked:
        return None
    return Question(sample.name, message_text(asked[-1]), message_text(last), sample.references, sample.labels)


def message_text(message: Message) -> str:
    """Return the text of a message, without its media."""
    content = message["content"]
    parts = [content] if isinstance(content, str) else content
    return "".join(part if isinstance(part, str) else part.get("text", "") for part in parts)
