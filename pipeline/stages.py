"""What a stage is, and which there are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import polars as pl
import pyarrow as pa

from core.errors import UserError
from manifests.rules import suggest
from manifests.tables import Table

STAGES = {
    "aspect_ratio": "filters.aspect_ratio:AspectRatio",
    "clip": "filters.clip:Clip",
    "clip_text": "filters.clip:ClipText",
    "conse": "filters.conse:Conse",
    "conse_text": "filters.conse:ConseText",
    "aesthetic": "filters.aesthetic:Aesthetic",
    "quality": "filters.quality:Quality",
    "nsfw": "filters.nsfw:Nsfw",
    "similarity": "filters.similarity:Similarity",
    "coyo": "filters.coyo:Coyo",
    "hashes": "filters.hashes:Hashes",
    "host": "filters.host:Host",
    "clusters": "clustering.kmeans:Clusters",
    "duplicates": "clustering.duplicates:Duplicates",
    "coarse_caption": "captioners.coarse:CoarseCaption",
    "label_caption": "captioners.labels:LabelCaption",
    "describe": "captioners.describe:Describe",
    "short_caption": "captioners.recaption:ShortCaption",
    "detailed_caption": "captioners.recaption:DetailedCaption",
}
"""Every stage a recipe can name, imported when it is named."""

Facts = Callable[[pa.Table], pa.Table]
"""What a stage computes with: a table of `reads` to one of `writes`."""


class ImageFacts(Protocol):
    """What a stage computes with that looks at images: `prepare` once per image in threads, then itself once per batch.

    It may have `calls`: how many batches it takes at once, from threads of their own; else one. And `longest`, with
    `portable`: what the longer side may have at most, in pixels.

    Attributes:
        side: The shorter side, in pixels, that `prepare` needs: a larger JPEG may come decoded at a reduced scale,
            never below it. None: every pixel.
    """

    side: int | None

    def prepare(self, *read: Any) -> Any:
        """What the stage reads, in that order, to whatever the model takes. Decoded images are upright and RGB.

        A BadSampleError becomes the error of this row alone.
        """

    def __call__(self, inputs: Sequence[Any]) -> pa.Table:
        """What `prepare` made of some images to one row of `writes` each; it may add the columns `error` and `retry`.

        An OSError says that what it depends on is gone: it ends the job with its text.
        """


class Stage(Protocol):
    """One small module that computes facts about images; `filters/aspect_ratio.py` is the model.

    A stage is a frozen pydantic model: its fields are the settings that its numbers depend on, and with `version`
    its fingerprint. It knows nothing of Ray, paths or thresholds. It computes in one of three ways:

    * with nothing to load it is itself the callable, `stage(table)`, and runs in plain Ray tasks;
    * else it has a method `load()`, which Ray actors call once each, for example to put a model on a GPU, and which
      returns the callable. A UserError from it is the user's to mend and ends the run with that one line;
    * if it reads `image`, `encoded` or `portable`, `load()` returns `ImageFacts`.

    The callable maps a table of `reads` to one of `writes`, row by row in the same order. A row that fails gets null
    columns and a text in a further column `error` (and `retry` if trying again can help). An exception means that the
    stage itself is broken, and ends the job. What `load` returns may have `made_by`: a mapping that goes into the
    provenance of the rows (hash of the weights, versions of the libraries).

    A stage may have three more methods, called before anything runs, each with a UserError for what the user must mend:
    `check(inputs)` is given the fields of the columns it reads, `ready()` looks whether its model is to be had, and
    `check_settings()`, before the first row is computed, refuses settings that earlier versions took.

    Two kinds of stages see more than a row:

    * one that must be trained has a field `fitted` (the hash of what was trained: a part of the fingerprint that the
      run fills in), `sample_rows`, and `fit(sample)`, which one task calls once in the life of a run: a table of
      `reads` of at most so many rows, chosen and ordered by a hash of their ids, to a table (stored in the run) and
      what there is to tell of it. Its `load(fitted, inputs)` is given that table and the fields of what it reads;
    * one that compares rows has `within`, the column that tells their groups, and is itself the callable: one call,
      some whole groups, all of their rows that are alive. What it says of a row must depend on the rows of its group
      alone. A column that is about two rows says in which other column the id of the second one is (`witness`): where
      that row has left, and a rule drops the first one, the group is computed again.

    Attributes:
        name: As recipes write it.
        version: Raised when the same settings begin to give other numbers; old facts then stay aside, unused.
        reads: Columns of the index or of earlier stages; `image` (the decoded image); `encoded` (its bytes as they
            came); `portable` (JPEG, PNG or WEBP that any program shows right: the bytes as they came, or encoded anew
            where they are of another format, on their side, not RGB, transparent or too large); `pool.X` (the column X
            of the pool's own Parquet files, null where there is none).
        writes: Its columns, made with `manifests.schemas.column`; the first is what bare `min`, `max`, `top` mean.
        gpu: True, if it has it, says that its model runs on a GPU where there is one; a number, on how many.

    It may have more attributes that say how it is run: `actors` and `batch_size`, defaults for the recipe's resources;
    `beside`, names of settings that its numbers do not depend on and that are no part of its fingerprint;
    `added_settings`, names of settings that came after the first release: each is part of the fingerprint only where it
    differs from its default, so that facts stored before it existed are not computed again; and `costly`:
    a row costs seconds of a GPU, or money, and is written down as soon as it is computed (manifests/journal.py).
    It may have a method `outdated(stored)`: the ids of stored rows that an earlier version of it got wrong. They are
    computed again and are not published until then, while the right rows stay, which a raised `version` would not do.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def reads(self) -> Sequence[str]: ...
    @property
    def writes(self) -> pa.Schema: ...

    def model_dump(self, *, mode: str = ..., exclude: set[str] | None = ...) -> dict[str, Any]: ...


class StageRefusedError(UserError):
    """Raised in a worker for what the user must mend, such as a model that does not load; the text is the one line."""


def fingerprint_settings(stage: Any) -> dict[str, Any]:
    """The settings that are part of a stage's fingerprint: without `beside`, and `added_settings` at their defaults."""
    fields = type(stage).model_fields
    added = {n for n in getattr(stage, "added_settings", ()) if getattr(stage, n) == fields[n].get_default()}
    settings: dict[str, Any] = stage.model_dump(mode="json", exclude={*getattr(stage, "beside", ()), *added})
    return settings


def outdated(stage: Any, stored: Table) -> pl.DataFrame:
    """The rows of a stage's table that an earlier version of the stage got wrong, as a column `id`."""
    ids = stage.outdated(stored.scan()) if hasattr(stage, "outdated") else []
    return pl.DataFrame({"id": ids}, schema={"id": pl.Int64})


def check(stage: Any, inputs: Mapping[str, pa.Field]) -> None:
    """Let the stage look at the columns it is going to read, if it wants to.

    Raises:
        UserError: They do not fit: the embeddings of another encoder, say.
    """
    if hasattr(stage, "check"):
        stage.check(inputs)


def ready(stage: Any, new: bool = False) -> None:
    """Let the stage look whether its model is to be had, if it needs one.

    Args:
        stage: The stage.
        new: It has stored nothing yet: it may refuse settings that older runs have.

    Raises:
        UserError: It is not, with how to get it.
    """
    if new and hasattr(stage, "check_settings"):
        stage.check_settings()
    if hasattr(stage, "ready"):
        stage.ready()


def stage_class(name: str) -> type[Any]:
    """The class of the stage called `name`.

    Raises:
        UserError: There is none, or a package that its module needs is not installed.
    """
    if name not in STAGES:
        raise UserError(f"unknown stage {name!r}{suggest(name, STAGES)}")
    module, _, attribute = STAGES[name].partition(":")
    found: type[Any] = getattr(importlib.import_module(module), attribute)
    return found
