"""The record: one conversation about images and films, with where it comes from. Every trainer's form is made of it.

A turn is a list of parts: text, or the key of a medium. Text has no placeholders, so `<image>` in it is only text.
Times are seconds of the used clip; `Medium.start` says where the clip lies in its film. Boxes name their system.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, field_validator, model_validator

from core.record_media import FrameSampling, Medium, RecordValue, Region, Seconds, Span, Text

__all__ = ["Choices", "FrameSampling", "Licence", "Medium", "Part", "Record", "Region", "Role", "Source", "Span"]
__all__ += ["Synthesis", "Turn"]

Role = Literal["system", "user", "assistant", "stream"]


class Source(RecordValue):
    """Where a record comes from.

    Attributes:
        dataset: Name of the data set.
        subset: A part of it, such as a file's or a task's name.
        split: train, validation or test, as the data set calls it.
        original_id: The data set's own id, as text. It need not be unique.
        url: Where the medium was published.
        file: Name of the file that was imported, relative to what the import was given.
        line: Place in this file, counted from 1: a line, an entry of an array, a row.
        sha256: Hash of the original as canonical JSON: keys sorted, no white space, ASCII.
    """

    dataset: Text
    subset: Text = ""
    split: Text = ""
    original_id: Text = ""
    url: Text = ""
    file: Text = ""
    line: int = 0
    sha256: Text = ""


class Licence(RecordValue):
    """Under which terms a record may be used.

    Attributes:
        name: SPDX identifier or name; `unknown` if nobody said.
        terms_url: Where the terms are.
        non_commercial: Whether commercial use is excluded; None: unknown.
        gated: Whether the publisher asks for an agreement first; None: unknown.
        generator: The model that wrote the answers, such as gpt-4v; its terms may apply, too.
    """

    name: Text = "unknown"
    terms_url: Text = ""
    non_commercial: bool | None = None
    gated: bool | None = None
    generator: Text = ""


class Part(RecordValue):
    """A text, or the key of a medium that is shown here: exactly one of both."""

    text: Text | None = None
    media: Text | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.text is None) == (self.media is None):
            raise ValueError("a part is a text or a medium")
        return self


class Turn(RecordValue):
    """What one side says.

    Attributes:
        role: system, user or assistant. `stream` is a stretch of film in which nobody speaks.
        parts: Texts and media, in their order.
        time: In a stream: when it is said, in seconds of the film's clip.
        learn: Whether it is learned; None: an assistant's turn is.
        spans: Time spans that it speaks of.
        regions: Boxes that it speaks of.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    time: Seconds | None = None
    learn: bool | None = None
    spans: tuple[Span, ...] = ()
    regions: tuple[Region, ...] = ()

    @property
    def text(self) -> str:
        """All text of the turn, joined."""
        return "".join(part.text for part in self.parts if part.text is not None)

    @property
    def is_learned(self) -> bool:
        return self.role == "assistant" if self.learn is None else self.learn


class Choices(RecordValue):
    """The options of the last question, and the right one, counted from 0; None if the original does not say it."""

    options: tuple[Text, ...]
    answer_index: Annotated[int, Strict(), Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.answer_index is not None and self.answer_index >= len(self.options):
            raise ValueError(f"answer {self.answer_index} of {len(self.options)} options")
        return self


class Synthesis(RecordValue):
    """How a model wrote the record: its name, the prompt, the settings, the times of the frames that it saw."""

    model: Text
    prompt_id: Text = ""
    prompt_sha256: Text = ""
    params: dict[str, Any] = Field(default_factory=dict)
    frames: tuple[Seconds, ...] = ()


class Record(RecordValue):
    """One conversation with its media and provenance.

    Attributes:
        id: `<dataset>/<original id>/<ordinal>`; unique in what one import writes.
        media: The media, each with its own key.
        turns: At least one.
        task: What is practised: caption, dense_caption, grounding, qa, qa_mc, ocr, stream, ….
        aspect: What a question is about: time_order, spatial, ….
        references: All right answers to the last question, for scores; never learned.
        transforms: What the import did to the original, in order: `strip_tag`, `seconds_from_percent`, ….
    """

    id: Annotated[Text, Field(min_length=1)]
    source: Source
    licence: Licence = Licence()
    media: tuple[Medium, ...] = ()
    turns: Annotated[tuple[Turn, ...], Field(min_length=1)]
    choices: Choices | None = None
    references: tuple[Text, ...] = ()
    task: Text = ""
    aspect: Text = ""
    synth: Synthesis | None = None
    transforms: tuple[Text, ...] = ()

    @field_validator("media")
    @classmethod
    def _check_keys(cls, media: tuple[Medium, ...]) -> tuple[Medium, ...]:
        if len({medium.key for medium in media}) < len(media):
            raise ValueError("two media have the same key")
        return media

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        keys = {medium.key for medium in self.media}
        for number, turn in enumerate(self.turns):
            if unknown := next((key for key in _keys_of(turn) if key not in keys), None):
                raise ValueError(f"turn {number} speaks of the medium {unknown!r}, which is not there")
        return self

    @property
    def is_stream(self) -> bool:
        """Whether turns have times. Then the one film runs along the turns, and is no part of them."""
        return any(turn.time is not None or turn.role == "stream" for turn in self.turns)

    def medium(self, key: str) -> Medium:
        """Return the medium of a key."""
        return next(medium for medium in self.media if medium.key == key)

    def to_json(self) -> str:
        """Return the record as one line of JSON, without keys that have their default value."""
        return self.model_dump_json(exclude_defaults=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """Return the record that `to_json` wrote, equal to it.

        Raises:
            ValidationError: It is not a record.
        """
        return cls.model_validate_json(text)


def _keys_of(turn: Turn) -> Iterator[str]:
    yield from (part.media for part in turn.parts if part.media is not None)
    yield from (span.media for span in turn.spans)
    yield from (region.media for region in turn.regions)
