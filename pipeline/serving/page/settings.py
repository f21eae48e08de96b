"""The settings of the page: how films are read, how answers are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import UserError

if TYPE_CHECKING:
    from model.processor import Processor

_COLDEST = 1e-6  # lower temperatures give the most probable token, as 0 does: the quotients of the logits stay finite


class Settings(BaseModel):
    """What a visitor has chosen. None stands for the checkpoint's way.

    Attributes:
        fps: Frames per second that are sampled from a film.
        max_frames: Maximum frames of a film.
        start: Start of the part of a film that is read, in seconds.
        end: Its end; None: that of the film.
        sampling: Which frame stands for a sampled time.
        keep: Pruning threshold, in grey levels; "all" keeps all tokens.
        system: System prompt; empty for none.
        max_new_tokens: Maximum tokens of an answer.
        temperature: 0 takes the most probable token.
        top_p: Total probability of the tokens that are sampled.
        window: Most frames of a stream that are remembered.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fps: float | None = Field(default=None, gt=0, le=60)
    max_frames: int | None = Field(default=None, ge=1, le=100_000)
    start: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    end: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    sampling: Literal["exact", "original"] | None = None
    keep: float | Literal["all"] | None = None
    system: str = ""
    max_new_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=100)
    top_p: float = Field(default=1.0, gt=0, le=1)
    window: int | None = Field(default=None, ge=1, le=100_000)

    @property
    def clip(self) -> Mapping[str, Any]:
        """The options of a film's part."""
        options = {"fps": self.fps, "max_frames": self.max_frames, "start": self.start, "end": self.end}
        return {name: value for name, value in options.items() if value is not None}

    def of(self, processor: Processor) -> Processor:
        """Return a checkpoint's processor with these settings."""
        from model.processor import Processor

        if self.sampling is not None:
            config = processor.config.model_copy(update={"sampling": self.sampling})
            processor = Processor(processor.tokenizer, config, processor.chat_template)
        if self.keep is not None:
            processor = processor.with_pruning(None if self.keep == "all" else self.keep)
        return processor


def read_settings(most_tokens: int, **given: object) -> Settings:
    """Check what a visitor has entered. An empty field is the checkpoint's way.

    Args:
        most_tokens: The server's maximum of an answer.
        given: The fields of `Settings`; texts and numbers as the page sends them.

    Raises:
        UserError: A field has no such value. One line.
    """
    entered = {name: value for name, value in given.items() if value is not None and (value != "" or name == "system")}
    try:
        settings = Settings.model_validate(entered)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{_LABELS.get(str(first['loc'][0]), first['loc'][0])}: {_reason(first)}") from error
    if settings.start is not None and settings.end is not None and settings.start >= settings.end:
        raise UserError(f"{_LABELS['end']}: give one behind the start, {settings.start:g} s")
    if isinstance(settings.keep, float) and not 0 <= settings.keep <= 255:
        raise UserError(f"{_LABELS['keep']}: give grey levels, 0 to 255, or all")
    if settings.temperature < _COLDEST:
        settings = settings.model_copy(update={"temperature": 0.0})
    return settings.model_copy(update={"max_new_tokens": min(settings.max_new_tokens, most_tokens)})


_LABELS = {
    "fps": "Frames per second",
    "max_frames": "Maximum of frames",
    "start": "Start of the film",
    "end": "End of the film",
    "sampling": "Frame of a sampled time",
    "keep": "Pruning threshold",
    "system": "System prompt",
    "max_new_tokens": "Longest answer",
    "temperature": "Temperature",
    "top_p": "Top p",
    "window": "Frames that a stream remembers",
}
LABELS: Mapping[str, str] = _LABELS
"""The names of the fields on the page."""


def _reason(problem: Any) -> str:
    if problem["loc"][0] == "keep":
        return "give grey levels, 0 to 255, or all"
    return str(problem["msg"])
