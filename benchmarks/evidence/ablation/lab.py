"""What the studies share: a folder with steps, sizes, materials, and the form of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evidence.arms import helpers
from evidence.arms.cut_outs import Materials
from evidence.arms.helpers import HELPERS
from evidence.arms.steps import Steps

ANNOTATIONS = "annotations.jsonl"


@dataclass(frozen=True)
class Sizes:
    """How large the studies are.

    Attributes:
        objects: Different objects of all scenes and films.
        held_out: Held-out scenes or films of a study.
        films: Films that a seed trains on.
        scenes: Scenes that a seed trains on.
        raw: Images of a raw pool.
        images: Images of it that each quota keeps.
        helper_scenes: Scenes that each of the two helpers learns from.
        helper_steps: Training steps of the model that learns films later.
        pruning_steps: Training steps of a threshold.
        resolution_steps: Training steps of a resolution.
        packing_steps: Training steps of a way to build batches.
        quota_steps: Training steps of a quota.
    """

    objects: int
    held_out: int
    films: int
    scenes: int
    raw: int
    images: int
    helper_scenes: int
    helper_steps: int
    pruning_steps: int
    resolution_steps: int
    packing_steps: int
    quota_steps: int


@dataclass(frozen=True)
class Lab:
    """A folder of studies with its steps and sizes."""

    work: Path
    steps: Steps
    sizes: Sizes

    @property
    def materials(self) -> Materials:
        """The cut-outs and photographs of all scenes."""
        return _materials(self.work).first(self.sizes.objects)

    @property
    def tokenizer(self) -> Path:
        """The tokenizer of all models."""
        return self.work / HELPERS / "tokenizer"

    @property
    def base(self) -> Path:
        """The model that has learned from still scenes."""
        return self.work / HELPERS / "base/1-captions/model"

    def folder(self, study: str, seed: int | None = None) -> Path:
        """The folder of a study, or of one of its seeds."""
        return self.work / study if seed is None else self.work / study / f"seed-{seed}"


@cache
def _materials(work: Path) -> Materials:
    return helpers.materials(work)


@dataclass(frozen=True)
class Column:
    """A column of a study's table: a value of each seed, told as its mean and interval.

    Attributes:
        title: The head of the column.
        key: Name of the value in a seed's results.
        digits: Decimal places.
        percent: Whether the value is a share.
    """

    title: str
    key: str
    digits: int = 3
    percent: bool = False


@dataclass(frozen=True)
class Study:
    """One question and its arms.

    Attributes:
        name: Name on the command line and in the results.
        heading: Its heading in docs/evidence.md.
        about: What was done, in Markdown. It may name sizes in braces.
        arms: Labels of the arms by their names.
        reference: The arm that others are compared with.
        columns: Columns behind the loss and its difference to the reference.
        prepare: Makes what all seeds share.
        make: Makes what a seed trains on; returns facts of it by arm, which become part of the results.
        learn: Trains and evaluates an arm of a seed; returns its scores, with `loss`.
        facts: Values of the names in braces, by sizes.
        digits: Decimal places of losses.
    """

    name: str
    heading: str
    about: str
    arms: Mapping[str, str]
    reference: str
    columns: tuple[Column, ...]
    prepare: Callable[[Lab], None]
    make: Callable[[Lab, int], dict[str, Any]]
    learn: Callable[[Lab, str, int], dict[str, Any]]
    facts: Callable[[Sizes], dict[str, Any]]
    digits: int = 3
