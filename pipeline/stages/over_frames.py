"""Apply a stage for images to clips: to their stored frames, or to the embeddings of these.

A stage knows images only. In a run of clips the pipeline hands it the frames that the stage `frames` has stored, and
makes one row of facts of each clip (`pipeline/stages/frame_facts.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
from pydantic import SerializeAsAny

from core.errors import UserError
from core.stages import IMAGE_INPUTS, ImageStage, LoadedStage, Stage
from pipeline.stages.frame_facts import PER_FRAME, EmbeddingFacts, FrameFacts, columns_of

FRAMES, TIMES = "frames", "frame_times"
"""The columns of the stage `frames`: the stored frames of a clip, and their times in seconds from its start."""

_FRAMES_PER_CLIP = 8
"""What the stage `frames` stores of a clip by default."""


class _OverClips(Stage):
    """What a run knows a stage by, and how it is run, is that of the stage for images.

    Attributes:
        inner: The stage for images.
    """

    inner: SerializeAsAny[Stage]

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.inner.name

    @property
    def version(self) -> int:  # type: ignore[override]
        return self.inner.version

    @property
    def preload(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.inner.preload

    @property
    def driver_rows(self) -> int:  # type: ignore[override]
        return self.inner.driver_rows // _FRAMES_PER_CLIP

    @property
    def published(self) -> bool:  # type: ignore[override]
        return self.inner.published

    @property
    def writes(self) -> pa.Schema:
        return pa.schema([field for inner in self.inner.writes for field in columns_of(inner)])

    @property
    def models(self) -> Mapping[str, str | None]:
        return self.inner.models

    @property
    def model_files(self) -> Mapping[str, str]:
        return self.inner.model_files

    @property
    def packages(self) -> Mapping[str, str]:
        return self.inner.packages

    @property
    def gpus(self) -> int:
        return self.inner.gpus

    @property
    def actors(self) -> int | None:
        return self.inner.actors

    @property
    def batch_size(self) -> int | None:
        return None if self.inner.batch_size is None else max(1, self.inner.batch_size // _FRAMES_PER_CLIP)

    def check_settings(self) -> None:
        self.inner.check_settings()

    def check_available(self) -> None:
        self.inner.check_available()

    def fingerprint_settings(self) -> dict[str, object]:
        return {**self.inner.fingerprint_settings(), "over": FRAMES}


class OverFrames(_OverClips, ImageStage):
    """An `ImageStage` over the stored frames of clips. A text of an image is that of the middle frame."""

    inner: SerializeAsAny[ImageStage]

    @property
    def reads(self) -> Sequence[str]:
        return (FRAMES, TIMES, *(name for name in self.inner.reads if name not in IMAGE_INPUTS))

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        self.inner.validate_inputs(inputs)

    def remedy(self, column: str) -> str:
        return "put the stage `frames` before it" if column in (FRAMES, TIMES) else self.inner.remedy(column)

    def load(self) -> FrameFacts:
        """Load the stage for images.

        Raises:
            UserError: It cannot be loaded.
        """
        return FrameFacts(self.inner, self.inner.load())


class OverEmbeddings(_OverClips, LoadedStage):
    """A stage that scores embeddings (`Stage.per_frame`), over the embedding of each stored frame of clips."""

    inner: SerializeAsAny[LoadedStage]

    @property
    def reads(self) -> Sequence[str]:
        return [name + PER_FRAME for name in self.inner.reads]

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        self.inner.validate_inputs({name: _one(inputs[name + PER_FRAME], name) for name in self.inner.reads})

    def remedy(self, column: str) -> str:
        return self.inner.remedy(column.removesuffix(PER_FRAME))

    def load(self) -> EmbeddingFacts:
        """Load the stage for images.

        Raises:
            UserError: It cannot be loaded.
        """
        return EmbeddingFacts(self.inner, self.inner.load())


def for_clips(stage: Stage) -> Stage:
    """Return the stage that a run of clips computes: over frames, if it is one for images.

    Raises:
        UserError: It asks a model for a text about an image, which would be one for each frame; or two columns of clips
            would have the same name.
    """
    if isinstance(stage, ImageStage) and not set(IMAGE_INPUTS).isdisjoint(stage.reads):
        if stage.journaled:
            raise UserError(
                f"{stage.name} is for images: for clips there are dense_caption, summary and questions, which read "
                "all frames of a clip at once"
            )
        return _checked(OverFrames(inner=stage))
    if isinstance(stage, LoadedStage) and stage.per_frame:
        return _checked(OverEmbeddings(inner=stage))
    return stage


def _checked(stage: OverFrames | OverEmbeddings) -> OverFrames | OverEmbeddings:
    """Refuse a stage for images of which two columns would be one of clips."""
    names = stage.writes.names
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(
            f"{stage.name} writes {twice}, and for clips {twice} is also made from another of its columns: rename one"
        )
    return stage


def _one(field: pa.Field, name: str) -> pa.Field:
    """Return the column of one embedding for the column of those of a clip's frames."""
    return pa.field(name, field.type.value_type, metadata=field.metadata)
