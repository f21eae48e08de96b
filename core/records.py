"""The record: one conversation about images and films, with where it comes from. Every trainer's form is made of it.

A turn is a list of parts: text, or the key of a medium. Text has no placeholders, so `<image>` in it is only text.
Times are seconds of the used clip; `Medium.start` says where the clip lies in its film. Boxes name their system.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from core.boxes import BoxSystem, check_box
from core.errors import BadSampleError
from core.frame_sampling import LONGEST
from core.text import not_unicode

Role = Literal["system", "user", "assistant", "stream"]
Seconds = Annotated[float, Strict(), Field(ge=0, le=LONGEST)]
Count = Annotated[int, Strict(), Field(gt=0, lt=1 << 31)]
Rate = Annotated[float, Strict(), Field(gt=0, le=1000)]


def _unicode(text: str) -> str:
    if reason := not_unicode(text):
        raise BadSampleError(reason)
    return text


Text = Annotated[str, AfterValidator(_unicode)]


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise BadSampleError("a path is empty, or has a NUL")
    return text


class _Frozen(BaseModel):
    """Base class: frozen, without unknown keys, NaN and infinity. Errors do not quote values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class Source(_Frozen):
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


class Licence(_Frozen):
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


class FrameSampling(_Frozen):
    """How many frames of a film are taken; None: as the training stage says."""

    fps: Rate | None = None
    max_frames: Count | None = None


class Medium(_Frozen):
    """An image, or a clip of a film.

    Attributes:
        key: Name within the record: `i0`, `v0`, ….
        type: image or video.
        path: Path relative to `root`.
        root: The media folder that the user names, or the folder of the records, where an import puts embedded images.
        start: Start of the clip on the film's clock, in seconds.
        end: End of the clip on the film's clock, in seconds.
        is_cut: The file is the clip already: `start` and `end` say where it was in its film.
        clock: What times are relative to: the clip's start, or the film's. `film` is for forms that have it so.
        duration: Length of the clip, in seconds.
        fps: Frames per second of the film, or of the folder of frames.
        is_frame_folder: The path is a folder with the film's frames.
        sampling: Frames to take, if the original says it.
        width: Displayed width, in pixels.
        height: Displayed height, in pixels.
        present: Whether the file was there; None: nobody has looked.
    """

    key: Annotated[Text, Field(min_length=1, max_length=40)]
    type: Literal["image", "video"]
    path: Annotated[Text, AfterValidator(_path)]
    root: Literal["media", "records"] = "media"
    start: Seconds | None = None
    end: Seconds | None = None
    is_cut: bool = False
    clock: Literal["clip", "film"] = "clip"
    duration: Seconds | None = None
    fps: Rate | None = None
    is_frame_folder: bool = False
    sampling: FrameSampling | None = None
    width: Count | None = None
    height: Count | None = None
    present: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.end is not None and self.end <= (self.start or 0.0):
            raise ValueError(f"the clip ends at {self.end:g} s, before it starts at {self.start or 0:g} s")
        times = (self.start, self.end, self.duration, self.fps, self.sampling)
        if self.type == "image" and (any(time is not None for time in times) or self.is_frame_folder):
            raise ValueError("an image has no times and no frames")
        return self

    @property
    def offset(self) -> float:
        """What to add to a time of this record to get the time in the file, in seconds."""
        return 0.0 if self.is_cut or self.clock == "film" else self.start or 0.0

    @property
    def length(self) -> float | None:
        """Length of the clip in seconds; None if unknown."""
        if self.duration is None and self.end is not None:
            return self.end - (self.start or 0.0)
        return self.duration


class Part(_Frozen):
    """A text, or the key of a medium that is shown here: exactly one of both."""

    text: Text | None = None
    media: Text | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.text is None) == (self.media is None):
            raise ValueError("a part is a text or a medium")
        return self


class Span(_Frozen):
    """A time span that a turn speaks of, in seconds of the medium's clock."""

    media: Text
    start: Seconds
    end: Seconds

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"span {self.start:g}-{self.end:g} s ends before it starts")
        return self


class Region(_Frozen):
    """A box that a turn speaks of.

    Attributes:
        media: Key of the medium.
        box: Four numbers in the `system`.
        system: The coordinate system, by name (`core.boxes`).
        frame_time: For a film, the time of the frame, in seconds.
        phrase: Begin and end of the words in the turn's text that name it, in characters.
        label: What it is called, if the text does not say it.
        mask_rle: The mask in COCO's compressed run lengths.
    """

    media: Text
    box: tuple[float, float, float, float]
    system: BoxSystem
    frame_time: Seconds | None = None
    phrase: tuple[int, int] | None = None
    label: Text = ""
    mask_rle: Text = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problem := check_box(self.box, self.system):
            raise ValueError(problem)
        return self


class Turn(_Frozen):
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


class Choices(_Frozen):
    """The options of the last question, and the right one, counted from 0; None if the original does not say it."""

    options: tuple[Text, ...]
    answer_index: Annotated[int, Strict(), Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.answer_index is not None and self.answer_index >= len(self.options):
            raise ValueError(f"answer {self.answer_index} of {len(self.options)} options")
        return self


class Synthesis(_Frozen):
    """How a model wrote the record: its name, the prompt, the settings, the times of the frames that it saw."""

    model: Text
    prompt_id: Text = ""
    prompt_sha256: Text = ""
    params: dict[str, Any] = {}
    frames: tuple[Seconds, ...] = ()


class Record(_Frozen):
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
