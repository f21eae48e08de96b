"""A stage of a training as a value: what learns, how fast, from what, for how long."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from core.errors import UserError
from core.videos import FPS
from model.prune import Pruning


class Value(BaseModel):
    """Part of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Share(Value):
    """How much of a source an epoch has: exactly one of the two.

    Attributes:
        weight: Of its samples; 0.5 takes every other one, and the rest in the next epoch; 2 takes each twice.
        samples: So many, whatever its size.
    """

    weight: float | None = Field(default=None, gt=0)
    samples: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"weight": value} if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.weight is None) == (self.samples is None):
            raise UserError("give a weight, as in `qa: 0.5`, or `qa: {samples: 1000}`")
        return self


class Lora(Value):
    """Low-rank adapters on the language model's linear layers (peft); they are merged when the stage is exported.

    Attributes:
        r: Rank; the reference's 64.
        alpha: Scale is alpha / r.
        dropout: On an adapter's input, in training. 0 keeps training a pure function of its checkpoint.
        targets: Names of the layers.
    """

    r: int = Field(default=64, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _rate(value: Any) -> float | str:
    try:
        if value == "frozen" or 0 < float(value) < math.inf:
            return value if value == "frozen" else float(value)
    except (TypeError, ValueError):
        pass
    raise UserError(f"{value!r}: give a learning rate, as in `projector: 1.0e-3`, or `frozen`")


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(f"learning_rates: {pattern!r} is no regular expression: {error}") from error


Rate = Annotated[float | Literal["frozen"], BeforeValidator(_rate)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Stage(Value):
    """One stage. Defaults are the reference's where it has any.

    Attributes:
        name: A word; its folder is called so.
        learning_rates: Regular expressions over parameter names, in order, the first that matches from the name's
            beginning decides: peak learning rate, or `frozen`. Every parameter must be matched, every expression match.
        mixture: How much of each source, by its name in `sources`.
        image_merge: Blocks of so many patches squared become one token, for images.
        video_merge: The same for videos.
        pruning: DiffFP; none by default.
        tokens: Of a packed row, placeholders included; longer samples are split at a turn, or skipped.
        visual_tokens: Of a sample, before pruning: images and frames shrink to it.
        patches: Of a packed row, at most; by default what `tokens` visual tokens of an unpruned video would have.
        fps: Frames per second of videos.
        max_frames: Of a video.
        rows: Packed rows of a step: the global batch, on however many workers.
        lanes: Streams of samples that the rows come from in turn; a multiple of the workers. 8 by default, or what
            divides `rows`. Rows depend on the number of lanes, never on that of workers.
        steps: Length; or ...
        epochs: ... passes over the mixture.
        schedule: After the warm-up the learning rate falls to 0 as a cosine or in a line, or stays.
        warmup: Share of the stage in which it rises from 0.
        weight_decay: Of matrices; biases and norms have none.
        betas: AdamW's.
        clip: Gradients are scaled down to this norm; none if null.
        precision: bf16 on a GPU and fp32 on a CPU by default. Weights and moments are fp32 in both.
        checkpointing: Activations are computed again in the backward pass.
        compile: torch.compile on each block.
        lora: Adapters instead of the language model's weights.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    learning_rates: dict[str, Rate]
    mixture: dict[str, Share]
    image_merge: Literal[1, 2] = 1
    video_merge: Literal[1, 2] = 2
    pruning: Pruning | None = None
    tokens: int = Field(default=16384, ge=32)
    visual_tokens: int = Field(default=10240, ge=16)
    patches: int | None = Field(default=None, ge=16)
    fps: float = Field(default=1.0, gt=0, le=FPS[1])
    max_frames: int = Field(default=180, ge=1)
    rows: int = Field(default=128, ge=1)
    lanes: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.03, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip: float | None = Field(default=1.0, gt=0)
    precision: Literal["bf16", "fp32"] | None = None
    checkpointing: bool = False
    compile: bool = False
    lora: Lora | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise UserError("give one of `steps` and `epochs`")
        for pattern in self.learning_rates:
            _check_pattern(pattern)
        if self.visual_tokens >= self.tokens:
            raise UserError(
                f"tokens {self.tokens} have to hold visual_tokens {self.visual_tokens} and the text: lower the latter"
            )
        if self.lanes and self.rows % self.lanes:
            raise UserError(f"rows {self.rows} must be a multiple of lanes {self.lanes}")
        if not self.mixture:
            raise UserError("an empty mixture: name a source, as in `mixture: {captions: 1.0}`")
        return self

    @property
    def lane_count(self) -> int:
        """Lanes: as said, or the largest number up to 8 that divides `rows`."""
        return self.lanes or max(n for n in range(1, 9) if self.rows % n == 0)

    @property
    def patch_budget(self) -> int:
        """Patches of a packed row, at most."""
        return self.patches or self.tokens * max(self.image_merge, self.video_merge) ** 2
