"""The media of a record (`core.records`), and the times and places in them that turns speak of."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

from core.boxes import BoxSystem, check_box
from core.errors import BadSampleError
from core.frame_sampling import LONGEST
from core.text import not_unicode

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


class RecordValue(BaseModel):
    """Base class: frozen, without unknown keys, NaN and infinity. Errors do not quote values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class FrameSampling(RecordValue):
    """How many frames of a film are taken; None: as the training stage says."""

    fps: Rate | None = None
    max_frames: Count | None = None


class Medium(RecordValue):
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


class Span(RecordValue):
    """A time span that a turn speaks of, in seconds of the medium's clock."""

    media: Text
    start: Seconds
    end: Seconds

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"span {self.start:g}-{self.end:g} s ends before it starts")
        return self


class Region(RecordValue):
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
