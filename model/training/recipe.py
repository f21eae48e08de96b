"""A training as a value: what the model begins as, what it is shown, and stage by stage which parts learn how fast.

The paper's four stages (arXiv 2501.13106, section 3.3) are recipes/train-*.yaml.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from model.config import PRESETS
from model.prune import Pruning


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Start(_Value):
    """What a training begins with: exactly one of a checkpoint, a preset, or a vision and a language folder.

    Attributes:
        checkpoint: A folder in transformers' layout or the original one, weights and processor.
        preset: New weights of this size; its tokenizer comes from `tokenizer`, or is the byte tokenizer (`tiny`).
        vision: A folder of SigLIP or VL3-SigLIP-NaViT, ...
        language: ... with one of Qwen2.5 or a like, whose tokenizer is taken too; the projector is new.
        tokenizer: With `preset`: a folder with a tokenizer.
    """

    checkpoint: str | None = None
    preset: str | None = None
    vision: str | None = None
    language: str | None = None
    tokenizer: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [bool(self.checkpoint), bool(self.preset), bool(self.vision or self.language)]
        if sum(given) != 1 or bool(self.vision) != bool(self.language):
            raise ValueError("give one of `checkpoint: DIR`, `preset: NAME`, or `vision: DIR` with `language: DIR`")
        if self.preset and self.preset not in PRESETS:
            raise ValueError(f"no preset named {self.preset!r}: use one of {', '.join(PRESETS)}")
        if self.preset and self.preset != "tiny" and not self.tokenizer:
            raise ValueError(f"preset {self.preset} needs `tokenizer: DIR`, such as a folder of Qwen2.5")
        return self


class Source(_Value):
    """Where samples come from: exactly one of shards and annotations.

    Attributes:
        shards: A published dataset or one of its subsets: a folder or a URL such as s3://….
        caption: Of shards, which caption is learned.
        annotations: A .json or .jsonl file in VideoLLaMA3's form.
        media: The folder that paths in annotations are relative to; by default the file's own.
        held_out: So many samples are not trained on; their loss is told.
    """

    shards: str | None = None
    caption: Literal["short", "detailed"] = "detailed"
    annotations: str | None = None
    media: str | None = None
    held_out: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.shards) == bool(self.annotations):
            raise ValueError("give one of `shards: DIR` and `annotations: FILE`")
        return self


class Share(_Value):
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
            raise ValueError("give a weight, as in `qa: 0.5`, or `qa: {samples: 1000}`")
        return self


class Lora(_Value):
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
    raise ValueError(f"{value!r}: give a learning rate, as in `projector: 1.0e-3`, or `frozen`")


Rate = Annotated[float | Literal["frozen"], BeforeValidator(_rate)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Stage(_Value):
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
    fps: float = Field(default=1.0, gt=0)
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
            raise ValueError("give one of `steps` and `epochs`")
        if self.lanes and self.rows % self.lanes:
            raise ValueError(f"rows {self.rows} must be a multiple of lanes {self.lanes}")
        if not self.mixture:
            raise ValueError("an empty mixture: name a source, as in `mixture: {captions: 1.0}`")
        return self

    @property
    def lane_count(self) -> int:
        """Lanes: as said, or the largest number up to 8 that divides `rows`."""
        return self.lanes or max(n for n in range(1, 9) if self.rows % n == 0)

    @property
    def patch_budget(self) -> int:
        """Patches of a packed row, at most."""
        return self.patches or self.tokens * max(self.image_merge, self.video_merge) ** 2


class TrainRecipe(_Value):
    """A whole training.

    Attributes:
        name: For titles.
        model: What it begins with.
        seed: Of new weights and of the order of samples.
        sources: By name.
        stages: One after another, each beginning with what the one before has exported.
        save_every: Steps between checkpoints.
        keep_last: Checkpoints that stay while a stage goes on.
        evaluate_every: Steps between looks at held-out losses, and answers to `ask`; at a stage's end in any case.
        ask: So many held-out samples (or, without any, training samples) are answered at each look.
        shuffle_blocks: Row groups of a source that are shuffled together and held in memory.
        threads: That read, decode and tokenise, per worker.
        skip_limit: So many bad samples in a row end the run.
        export_dtype: Of the weights that a stage hands on.
    """

    name: str = "training"
    model: Start
    seed: int = Field(default=42, ge=0)
    sources: dict[str, Source]
    stages: tuple[Stage, ...] = Field(min_length=1)
    save_every: int = Field(default=1000, ge=1)
    keep_last: int = Field(default=2, ge=1)
    evaluate_every: int = Field(default=1000, ge=1)
    ask: int = Field(default=2, ge=0)
    shuffle_blocks: int = Field(default=4, ge=1)
    threads: int = Field(default=4, ge=1)
    skip_limit: int = Field(default=100, ge=1)
    export_dtype: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages must have names of their own, not {', '.join(names)}")
        for stage in self.stages:
            if unknown := set(stage.mixture) - set(self.sources):
                raise ValueError(
                    f"stage {stage.name}: no source {min(unknown)!r}: name one of {', '.join(self.sources)}"
                )
        return self


def anchored(recipe: TrainRecipe) -> TrainRecipe:
    """The same with absolute paths, for processes that run in other folders."""
    told = recipe.model_dump(mode="json")
    for entry in (told["model"], *told["sources"].values()):
        for key in ("checkpoint", "vision", "language", "tokenizer", "shards", "annotations", "media"):
            if (path := entry.get(key)) and "://" not in path:
                entry[key] = os.path.abspath(path)
    return TrainRecipe.model_validate(told)


def load_recipe(path: str | Path) -> TrainRecipe:
    """Read and check a recipe.

    Raises:
        ValueError: With one line that names the place and what would be right.
    """
    try:
        written = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path}: no such recipe, or not readable: give the path of a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    return parse_recipe(written, str(path))


def parse_recipe(written: object, where: str) -> TrainRecipe:
    """Check a recipe as loaded from YAML; `where` names it in errors."""
    if not isinstance(written, dict):
        raise ValueError(f"{where}: must be a mapping with model, sources, stages")
    try:
        return TrainRecipe.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            said = "unknown key"
        elif first["type"] in ("model_type", "dict_type"):
            said = "must be a mapping"
        raise ValueError(f"{where}: {place + ': ' if place else ''}{said}") from error
