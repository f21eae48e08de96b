"""The training recipe: the starting model, the data sources, and the training stages.

The paper's four stages (arXiv 2501.13106, section 3.3) are recipes/train-*.yaml.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from core.errors import UserError
from core.paths import absolute, check_path
from core.secrets import refuse_credentials_within
from core.settings import Settings
from core.text import refuse_not_unicode
from core.yaml_text import load_yaml
from model.config import PRESETS, LanguageSizes, VisionConfig
from model.training.data.registry import AnySource
from model.training.fingerprint import sampled_fingerprint
from model.training.stage import Stage
from model.training.values import PathText, Value

START_FINGERPRINT = "the checkpoint that it begins with"
"""Name of the fingerprint of the starting weights in a checkpoint, and in messages."""


def _read_vision(written: object) -> object:
    vision = _folder_or_sizes(VisionConfig, written)
    if isinstance(vision, VisionConfig) and vision.num_channels != 3:
        raise UserError(f"num_channels {vision.num_channels}: images have 3")
    return vision


def _folder_or_sizes(kind: type[Settings], written: object) -> object:
    if isinstance(written, str):
        return check_path(written)
    return written if written is None else kind.model_validate(written)


class Start(Value):
    """The starting model: exactly one of a checkpoint, a preset, or vision and language.

    Attributes:
        checkpoint: A folder with weights and processor, in transformers' or the original layout.
        preset: New weights of this size: tiny, small, 2b or 7b. The last two need `tokenizer`.
        vision: A folder of SigLIP or VL3-SigLIP-NaViT, or the sizes of a new encoder.
        language: A folder of Qwen2.5 or a similar model, with its tokenizer; or, if `vision` has sizes, the sizes of a
            new language model. The projector gets new weights.
        tokenizer: For new weights: a folder with a tokenizer, whose vocabulary the model gets. It must have the tokens
            of Qwen2.5's chats and placeholders. Default: one token per byte.
    """

    checkpoint: PathText | None = None
    preset: str | None = None
    vision: Annotated[str | VisionConfig | None, BeforeValidator(_read_vision)] = None
    language: Annotated[str | LanguageSizes | None, BeforeValidator(partial(_folder_or_sizes, LanguageSizes))] = None
    tokenizer: PathText | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [bool(self.checkpoint), bool(self.preset), bool(self.vision or self.language)]
        if sum(given) != 1 or bool(self.vision) != bool(self.language):
            raise UserError("give one of `checkpoint: DIR`, `preset: NAME`, or `vision: DIR` with `language: DIR`")
        if isinstance(self.vision, str) != isinstance(self.language, str):
            raise UserError("give vision and language both as folders, or both as sizes")
        if self.preset and self.preset not in PRESETS:
            raise UserError(f"no preset named {self.preset!r}: use one of {', '.join(PRESETS)}")
        if self.preset in ("2b", "7b") and not self.tokenizer:
            raise UserError(f"preset {self.preset} needs `tokenizer: DIR`, such as a folder of Qwen2.5")
        return self

    def with_absolute_paths(self) -> Self:
        """Return it with absolute paths."""
        folders = {key: path for key in type(self).model_fields if isinstance(path := getattr(self, key), str)}
        folders.pop("preset", None)
        return self.model_copy(update={key: absolute(path) for key, path in folders.items()})

    def fingerprint(self) -> str:
        """Return a hash of the weights: after a restart, frozen weights are read from there again.

        New weights depend on the seed only; their fingerprint is an empty text.
        """
        from manifests.storage import Folder

        folders = [Path(path) for path in (self.checkpoint, self.vision, self.language) if isinstance(path, str)]
        prints = [sampled_fingerprint(Folder.at(path), _weights(path)) for path in folders]
        return hashlib.sha256(json.dumps(prints).encode()).hexdigest() if prints else ""


def _weights(folder: Path) -> list[str]:
    import torch

    from model.weights_io import folder_in

    files = list(folder_in(folder, torch.float32).glob("*.safetensors")) or folder.glob("pytorch_model*.bin")
    return sorted(file.relative_to(folder).as_posix() for file in files)


HELD_OUT_SEED = 42
"""Default of `held_out_seed`. It was the default of `seed`, by which earlier versions chose."""


class TrainRecipe(Value):
    """A whole training.

    Attributes:
        name: Name for titles.
        model: The starting model.
        seed: Seed of new weights and of the order of samples.
        held_out_seed: Seed of the choice of held-out samples. Default: 42, whatever `seed` is. Trainings that earlier
            versions began keep theirs, which was `seed`.
        sources: Sources by name. Each has `shards: DIR`, `annotations: FILE`, `records: DIR`, or
            `kind: package.module:Class` for a class of your own, with the settings of that kind.
        stages: Training stages in order. Each starts from the export of the previous one.
        print_every: Steps per line on the terminal; metrics.jsonl has every step.
        save_every: Steps between checkpoints.
        keep_last: Number of checkpoints that are kept while a stage runs.
        evaluate_every: Steps between evaluations (held-out losses and generated answers). Each stage ends with one.
        num_eval_generations: Number of answers that each evaluation generates, for held-out samples or, without any,
            training samples. The key in recipes is `ask`.
        shuffle_blocks: Number of blocks of a source, such as row groups, that are shuffled together.
        threads: Number of threads per trainer that read samples; without `workers` they also decode and tokenise.
        workers: Number of processes per trainer that decode and tokenise. Default: its cores less two, at most 16.
            0: the threads do it. The result is the same. Each takes 0.3 GB of memory and two seconds to start.
        skip_limit: Number of bad samples in a row that ends the run.
        export_dtype: Type of the exported weights. With bfloat16 an export also has a folder `float32`: the next stage
            begins with exactly these.
    """

    name: str = "training"
    model: Start
    seed: int = Field(default=42, ge=0)
    held_out_seed: int | None = Field(default=None, ge=0)
    sources: dict[str, AnySource]
    stages: tuple[Stage, ...] = Field(min_length=1)
    print_every: int = Field(default=1, ge=1)
    save_every: int = Field(default=1000, ge=1)
    keep_last: int = Field(default=2, ge=1)
    evaluate_every: int = Field(default=1000, ge=1)
    num_eval_generations: int = Field(default=2, alias="ask", ge=0, le=1 << 16)
    shuffle_blocks: int = Field(default=4, ge=1)
    threads: int = Field(default=4, ge=1, le=1024)
    workers: int | None = Field(default=None, ge=0, le=1024)
    skip_limit: int = Field(default=100, ge=1)
    export_dtype: Literal["float32", "bfloat16"] = "bfloat16"

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

    @property
    def used_sources(self) -> list[str]:
        """Names of the sources that a stage's mixture names, in the order of the stages."""
        return list(dict.fromkeys(name for stage in self.stages for name in stage.mixture))


_MOST = 2**63 - 1  # maximum absolute value of a number in a recipe


def with_absolute_paths(recipe: TrainRecipe) -> TrainRecipe:
    """Return the recipe with absolute paths, for processes that run in other folders."""
    sources = {name: source.with_absolute_paths() for name, source in recipe.sources.items()}
    for name, source in sources.items():
        if isinstance(source.held_out, str):
            sources[name] = source.model_copy(update={"held_out": absolute(source.held_out)})
    return recipe.model_copy(update={"model": recipe.model.with_absolute_paths(), "sources": sources})


def load_recipe(path: str | Path) -> TrainRecipe:
    """Read and validate a recipe file.

    Raises:
        UserError: It cannot be read or is invalid: one line that names the key and the fix.
    """
    try:
        written = Path(check_path(path, "recipe")).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: no such recipe, or not readable: give the path of a YAML file") from error
    return parse_recipe(load_yaml(written, str(path)), str(path))


def parse_recipe(written: object, where: str) -> TrainRecipe:
    """Validate a recipe that was loaded from YAML. `where` names it in errors.

    Raises:
        UserError: It is invalid.
    """
    if not isinstance(written, dict):
        raise UserError(f"{where}: must be a mapping with model, sources, stages")
    _check_numbers(written, where)
    refuse_credentials_within(written, where)
    refuse_not_unicode(written, where)
    try:
        return TrainRecipe.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            said = "unknown key"
        elif first["type"] in ("model_type", "dict_type"):
            said = "must be a mapping"
        raise UserError(f"{where}: {key + ': ' if key else ''}{said}") from error


def _check_numbers(written: object, where: str, path: str = "") -> None:
    """Raise on numbers beyond any setting's range, before they overflow during training."""
    if isinstance(written, dict | list):
        for key, value in written.items() if isinstance(written, dict) else enumerate(written):
            _check_numbers(value, where, f"{path}.{key}" if path else str(key))
    elif isinstance(written, int | float) and not -_MOST <= written <= _MOST:
        raise UserError(f"{where}: {path}: {reprlib.repr(written)}: give a smaller number, no infinity, no NaN")
