"""The registry of stages: the project's by name, those of installed packages by entry point, any other by its path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import entry_points

import polars as pl

from core.errors import UserError, suggest
from core.plugins import class_at, is_path
from core.stages import Stage
from manifests.tables import Table

STAGES = {
    "aspect_ratio": "filters.aspect_ratio:AspectRatio",
    "clip": "filters.clip:Clip",
    "clip_text": "filters.clip_text:ClipText",
    "conse": "filters.conse:Conse",
    "conse_text": "filters.conse:ConseText",
    "aesthetic": "filters.aesthetic:Aesthetic",
    "quality": "filters.quality:Quality",
    "nsfw": "filters.nsfw:Nsfw",
    "frames": "filters.frames:Frames",
    "ocr": "filters.ocr:Ocr",
    "scenes": "filters.scenes:Scenes",
    "clip_length": "filters.clip_length:ClipLength",
    "similarity": "filters.similarity:Similarity",
    "coyo": "filters.coyo:Coyo",
    "download": "pipeline.stages.download.stage:Download",
    "hashes": "filters.hashes:Hashes",
    "concepts": "filters.concepts:Concepts",
    "host": "filters.host:Host",
    "overlap": "filters.overlap.stage:Overlap",
    "review": "filters.review:Review",
    "clusters": "clustering.kmeans:Clusters",
    "duplicates": "clustering.duplicates:Duplicates",
    "borders": "clustering.borders:Borders",
    "border_duplicates": "clustering.borders:BorderDuplicates",
    "coarse_caption": "captioners.coarse:CoarseCaption",
    "label_caption": "captioners.offline.labels:LabelCaption",
    "describe": "captioners.offline.describe:Describe",
    "describe_clip": "captioners.offline.describe_clip:DescribeClip",
    "short_caption": "captioners.recaption:ShortCaption",
    "detailed_caption": "captioners.recaption:DetailedCaption",
    "dense_caption": "captioners.films.dense:DenseCaption",
    "summary": "captioners.films.summary:Summary",
    "questions": "captioners.films.questions:Questions",
}
"""The stages of this project; a recipe that names one imports it."""

NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
"""Names of stages and of steps."""

ENTRY_POINTS = "vl3syn.stages"
"""The group of entry points under which a package offers stages: `sharpness = "my_package.scores:Sharpness"`."""


def stage_names() -> Mapping[str, str]:
    """Return every stage that a recipe can give by name, with the path of its class."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)} | STAGES


def stage_class(name: str) -> type[Stage]:
    """Return the class of a stage.

    Args:
        name: A name, or the path of a class, `package.module:Class`, as in recipes. A path runs code: its module is
            imported.

    Raises:
        UserError: The stage does not exist or has no valid name, or a package that its module needs is not installed.
    """
    path = name if is_path(name) else STAGES.get(name) or stage_names().get(name)
    if path is None:
        raise UserError(f"unknown stage {name!r}{suggest(name, stage_names())}")
    kind = class_at(path, Stage)
    if not NAME.fullmatch(getattr(kind, "name", "")):
        raise UserError(f"{path}: give the class a `name` of lower-case letters, digits and _, such as my_filter")
    return kind


def entry_of(kind: type[Stage]) -> dict[str, str]:
    """The keys by which a recipe names a stage: `stage`, and `class`, its path, where it is not of this project."""
    return {"stage": kind.name, **outside_class(kind)}


def outside_class(kind: type[Stage]) -> dict[str, str]:
    """`class`, the path of a stage's class, where it is not of this project: a part of its identity. Else nothing."""
    path = f"{kind.__module__}:{kind.__qualname__}"
    return {} if path == STAGES.get(kind.name) else {"class": path}


def outdated(stage: Stage, stored: Table) -> pl.DataFrame:
    """Return the rows of a stage's table that an earlier version of the stage computed wrong: column `id`."""
    return pl.DataFrame({"id": list(stage.outdated(stored.scan()))}, schema={"id": pl.Int64})
