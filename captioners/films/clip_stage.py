"""The base of stages that ask a chat model about a clip: by its stored frames, or by earlier texts about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from PIL.Image import Image
from pydantic import Field, field_validator

from captioners.chat_stage import ChatStage
from captioners.engines.base import EngineConfig, Frame
from captioners.engines.registry import AnyEngine
from captioners.engines.transformers import Transformers
from core.errors import BadSampleError, UserError
from core.images import decode, portable
from core.stages import IMAGE
from core.time_spans import seconds_text

FRAMES = ("frames", "frame_times")
"""The columns of the stage `frames`: JPEGs, and their times in seconds from the clip's start."""

_REMEDIES = {
    **dict.fromkeys(FRAMES, "add the stage frames before it, which stores frames of each clip"),
    "duration": "clips have it: give the stage to a run of clips, such as RUN/clips",
    "dense_caption": "add the stage dense_caption before it",
    "events": "add the stage dense_caption before it",
}


class ClipStage(ChatStage):
    """Base class of stages that ask a chat model about a clip.

    Attributes:
        max_frames: Maximum number of frames in a question. Of more stored frames, evenly spaced ones are taken.
        engine: The engine that runs the model: one that takes several images (`server` or `transformers`). Changing it
            does not recompute anything.
    """

    licences: ClassVar = {"Qwen/Qwen2.5-VL-7B-Instruct": "Apache-2.0", "Qwen/Qwen3-VL-8B-Instruct": "Apache-2.0"}

    model: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    max_frames: int = Field(default=64, ge=1, le=1024)
    engine: AnyEngine = Transformers()

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, engine: EngineConfig) -> EngineConfig:
        if not engine.several_images:
            known = "{kind: server, url: …} or {kind: transformers}"
            raise UserError(f"{engine.kind} takes one image per question, and a clip has several; give {known}")
        return engine

    @property
    def most_frames(self) -> int:
        return self.max_frames

    def remedy(self, column: str) -> str:
        return _REMEDIES.get(column, "")

    def frames(self, encoded: Sequence[bytes] | None, times: Sequence[float] | None) -> tuple[Frame, ...]:
        """Return at most `max_frames` of the stored frames, in the form that the engine takes.

        Args:
            encoded: The frames, encoded.
            times: Their times in seconds from the clip's start.

        Raises:
            BadSampleError: There are none, or one cannot be decoded.
        """
        return frames_to_show(encoded, times, self.max_frames, self.longest, self.engine.image_input)


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return the numbers of at most `most` of `count` frames, evenly spaced, the first and the last included."""
    return [int(number) for number in np.linspace(0, max(count - 1, 0), min(count, most)).round()]


def frames_to_show(
    encoded: Sequence[bytes] | None, times: Sequence[float] | None, most: int, longest: int, image_input: str
) -> tuple[Frame, ...]:
    """Return at most so many of the stored frames of a clip, as an engine takes them.

    Args:
        encoded: The frames, encoded.
        times: Their times in seconds from the clip's start.
        most: Maximum number of frames.
        longest: Maximum longer side, in pixels; larger frames are scaled down.
        image_input: The form of images, see `EngineConfig.image_input`.

    Raises:
        BadSampleError: There are none, or one cannot be decoded.
    """
    if not encoded or not times or len(encoded) != len(times):
        raise BadSampleError("no frames: the clip has no stored frames, or another number of times")
    shown = evenly_spaced(len(encoded), most)
    return tuple(Frame(float(times[n]), _image(encoded[n], longest, image_input)) for n in shown)


def _image(encoded: bytes, longest: int, image_input: str) -> Image | bytes:
    if image_input != IMAGE:
        return portable(encoded, longest)
    image = decode(encoded, longest)
    if max(image.size) > longest:
        image.thumbnail((longest, longest))
    return image


def with_duration(prompt: str, duration: float) -> str:
    """Return a prompt with the clip's length, in seconds, in place of `{duration}`.

    Raises:
        BadSampleError: The duration is not known, or not above 0.
    """
    if not duration or not 0 < duration < math.inf:
        raise BadSampleError("no duration: the clip's length is not known")
    return prompt.replace("{duration}", seconds_text(duration).removesuffix(".0"))
