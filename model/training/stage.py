"""The configuration of one training stage: learning rates, mixture, packing, length, optimiser."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from core.errors import UserError
from core.frame_sampling import FPS, Sampling
from model.prune import Pruning
from model.training.values import Value


def _or_number(schema: dict[str, Any]) -> None:
    """Change the schema of a share: it may also be written as a number."""
    mapping = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "number", "exclusiveMinimum": 0}, mapping]


class Share(Value):
    """How much of a source an epoch has. Give exactly one of the two.

    Attributes:
        weight: Share of its samples. 0.5 takes half of them, and the next epoch the other half; 2 takes each twice.
        samples: Number of samples, whatever the source's size.
    """

    model_config = ConfigDict(json_schema_extra=_or_number)

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
        r: Rank; 64 as in the reference.
        alpha: An adapter's output is scaled by alpha / r.
        dropout: Dropout on an adapter's input in training. 0 keeps training a pure function of its checkpoint.
        targets: Names of the linear layers that get an adapter.
    """

    r: int = Field(default=64, ge=1, le=1 << 16)
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
    """One training stage. Defaults are the reference's, where it has any.

    Attributes:
        name: Up to 100 letters, digits, _ and -; part of the stage's folder name.
        learning_rates: Peak learning rate, or `frozen`, by regular expression over parameter names. The first
            expression that matches from the start of a name decides. Unmatched parameters or expressions raise.
        mixture: Share of each source, by its name in `sources`.
        image_merge: Images: blocks of image_merge x image_merge patches become one token.
        video_merge: The same for videos.
        pruning: DiffFP; none by default.
        tokens: Tokens of a packed row, placeholders included. Longer samples are split between turns, or skipped.
        visual_tokens: Maximum visual tokens of a sample, before pruning. Images and frames are shrunk to fit.
        patches: Maximum patches of a packed row. Default: tokens x the square of the larger merge size.
        fps: Frames per second that are sampled from videos.
        max_frames: Maximum frames of a video.
        sampling: Which frame stands for a sampled time, `exact` or `original`. Default: as in the starting model; new
            models have `exact`.
        rows: Packed rows of a step over all workers: the global batch.
        lanes: Number of virtual ranks, the sample streams that the rows come from; a multiple of the workers. Default:
            the largest number up to 8 that divides `rows`. Rows depend on the lanes, never on the workers.
        steps: Length in steps. Give either this or `epochs`.
        epochs: Length in passes over the mixture.
        schedule: After the warm-up the learning rate falls to 0 as a cosine or linearly, or stays constant.
        warmup: Share of the stage in which the learning rate rises from 0, 0 to 1.
        weight_decay: Weight decay of matrices; biases and norms have none.
        betas: AdamW's betas.
        clip: Maximum gradient norm; null turns clipping off. 1.0 is ours: the reference's scripts clip nothing.
        precision: Default: bf16 on a GPU, fp32 on a CPU. Weights and moments are fp32 in both.
        checkpointing: Recompute activations in the backward pass to save memory.
        compile: Use torch.compile on each block.
        lora: Add low-rank adapters to the language model.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)
    learning_rates: dict[str, Rate]
    mixture: dict[str, Share]
    image_merge: Literal[1, 2] = 1
    video_merge: Literal[1, 2] = 2
    pruning: Pruning | None = None
    tokens: int = Field(default=16384, ge=32, le=1 << 24)
    visual_tokens: int = Field(default=10240, ge=16)
    patches: int | None = Field(default=None, ge=16, le=1 << 28)
    fps: float = Field(default=1.0, gt=0, le=FPS[1])
    max_frames: int = Field(default=180, ge=1)
    sampling: Sampling | None = None
    rows: int = Field(default=128, ge=1, le=1 << 20)
    lanes: int | None = Field(default=None, ge=1, le=1 << 16)
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

    def num_samples(self, epoch_length: int) -> int | None:
        """Return the number of samples of the stage; None if only its number of steps is set."""
        return None if self.epochs is None else max(round(self.epochs * epoch_length), 1)

    @property
    def num_virtual_ranks(self) -> int:
        """Number of virtual ranks: `lanes`, or the largest number up to 8 that divides `rows`."""
        return self.lanes or max(n for n in range(1, 9) if self.rows % n == 0)

    def check_workers(self, workers: int) -> None:
        """Check that the virtual ranks can be divided among so many workers.

        Raises:
            UserError: They cannot.
        """
        if self.num_virtual_ranks % workers:
            raise UserError(
                f"stage {self.name}: {self.num_virtual_ranks} lanes for {workers} workers: make `lanes` a multiple of "
                "the workers"
            )

    @property
    def patch_budget(self) -> int:
        """Maximum patches of a packed row."""
        return self.patches or self.tokens * max(self.image_merge, self.video_merge) ** 2


def reordered(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return in words which setting of a stage has its keys in another order now; None if none has.

    The order counts in two of them: a mixture's sources are numbered by it, and the first pattern that matches decides.
    """
    for key in ("mixture", "learning_rates"):
        old, new = list(before.get(key, ())), list(now.get(key, ()))
        if old != new:
            return f"{key} in the order {old}, the recipe has {new}"
    return None
