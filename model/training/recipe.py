"""A training as a value: what the model begins as, what it is shown, and stage by stage which parts learn how fast.

The paper's four stages (arXiv 2501.13106, section 3.3) are recipes/train-*.yaml.
"""

from __future__ import annotations

import os
import reprlib
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from core.errors import UserError, yaml_problem
from core.secrets import refuse_credentials_within
from core.text import refuse_not_unicode
from model.config import PRESETS
from model.training.stage import Stage, Value


class Start(Value):
    """What a training begins with: exactly one of a checkpoint, a preset, or a vision and a language folder.

    Attributes:
        checkpoint: A folder in transformers' layout or the original one, weights and processor.
        preset: New weights of this size; its tokenizer comes from `tokenizer`, or for the small ones is that of bytes.
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
            raise UserError("give one of `checkpoint: DIR`, `preset: NAME`, or `vision: DIR` with `language: DIR`")
        if self.preset and self.preset not in PRESETS:
            raise UserError(f"no preset named {self.preset!r}: use one of {', '.join(PRESETS)}")
        if self.preset in ("2b", "7b") and not self.tokenizer:
            raise UserError(f"preset {self.preset} needs `tokenizer: DIR`, such as a folder of Qwen2.5")
        return self


class Source(Value):
    """Where samples come from: exactly one of shards and annotations.

    Attributes:
        shards: A published dataset or one of its subsets: a folder or a URL such as s3://….
        caption: Of shards, which caption is learned.
        annotations: A .json or .jsonl file in VideoLLaMA3's form.
        media: The folder that paths in annotations are relative to, and must lie below; by default the file's own.
        roots: Further folders that they may lie below, links resolved.
        held_out: So many samples are not trained on; their loss is told.
    """

    shards: str | None = None
    caption: Literal["short", "detailed"] = "detailed"
    annotations: str | None = None
    media: str | None = None
    roots: tuple[str, ...] = ()
    held_out: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.shards) == bool(self.annotations):
            raise UserError("give one of `shards: DIR` and `annotations: FILE`")
        if self.shards and self.roots:
            raise UserError("roots: shards hold their images: leave it out")
        return self


class TrainRecipe(Value):
    """A whole training.

    Attributes:
        name: For titles.
        model: What it begins with.
        seed: Of new weights and of the order of samples.
        sources: By name.
        stages: One after another, each beginning with what the one before has exported.
        print_every: Steps for each line on the terminal; metrics.jsonl has every step.
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
    print_every: int = Field(default=1, ge=1)
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
            raise UserError(f"stages must have names of their own, not {', '.join(names)}")
        for stage in self.stages:
            if unknown := set(stage.mixture) - set(self.sources):
                raise UserError(
                    f"stage {stage.name}: no source {min(unknown)!r}: name one of {', '.join(self.sources)}"
                )
        return self


_MOST = 2**63 - 1  # the size of any number in a recipe


def anchored(recipe: TrainRecipe) -> TrainRecipe:
    """The same with absolute paths, for processes that run in other folders."""
    told = recipe.model_dump(mode="json")
    for entry in (told["model"], *told["sources"].values()):
        for key in ("checkpoint", "vision", "language", "tokenizer", "shards", "annotations", "media"):
            if (path := entry.get(key)) and "://" not in path:
                entry[key] = os.path.abspath(path)
    for source in told["sources"].values():
        source["roots"] = [os.path.abspath(root) for root in source["roots"]]
    return TrainRecipe.model_validate(told)


def load_recipe(path: str | Path) -> TrainRecipe:
    """Read and check a recipe.

    Raises:
        UserError: With one line that names the place and what would be right.
    """
    try:
        written = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(f"{path}: no such recipe, or not readable: give the path of a YAML file") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, a number of 5,000 digits
        raise UserError(f"{path}: not YAML: {yaml_problem(error)}") from error
    return parse_recipe(written, str(path))


def parse_recipe(written: object, where: str) -> TrainRecipe:
    """Check a recipe as loaded from YAML; `where` names it in errors."""
    if not isinstance(written, dict):
        raise UserError(f"{where}: must be a mapping with model, sources, stages")
    _check_numbers(written, where)
    refuse_credentials_within(written, where)
    refuse_not_unicode(written, where)
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
        raise UserError(f"{where}: {place + ': ' if place else ''}{said}") from error


def _check_numbers(written: object, where: str, place: str = "") -> None:
    """Refuse numbers that no setting means, before they end a training as an overflow."""
    if isinstance(written, dict | list):
        for key, value in written.items() if isinstance(written, dict) else enumerate(written):
            _check_numbers(value, where, f"{place}.{key}" if place else str(key))
    elif isinstance(written, int | float) and not -_MOST <= written <= _MOST:
        raise UserError(f"{where}: {place}: {reprlib.repr(written)}: give a smaller number, no infinity, no NaN")
