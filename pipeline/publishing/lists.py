"""The lists of a publication: which image is in which shard. They are only added to, before a shard is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from core.errors import UserError
from manifests.parts import scan_parts, to_bytes
from manifests.priorities import priority
from manifests.shards import LISTS
from manifests.storage import Folder
from pipeline.recipe_file import Publish, PublishClips

LISTED = pa.schema([("id", pa.int64()), ("number", pa.int32())])

ELSEWHERE = "publish elsewhere, with --out"
KIND, CLIPS = "kind", "clips"
"""Key of the settings of what is no publication of images, and its value for records of clips."""

REMEDY = f"copy it back, or {ELSEWHERE}"


def listed_in(lists: Folder) -> tuple[pl.DataFrame, str]:
    """Return the images listed so far, columns `id` and `number` in order, and the name of the next list.

    Raises:
        UserError: A list is missing or damaged, or an image is listed twice.
    """
    files = [file for file in lists.files() if file.base_name.endswith(".parquet")]
    expected = [f"{number:06d}.parquet" for number in range(1, len(files) + 2)]
    if lacking := [name for name in expected[:-1] if name not in {file.base_name for file in files}]:
        raise UserError(f"{lists.path}/{lacking[0]}: this list is missing, and what is in which shard; {REMEDY}")
    if not files:
        return pl.DataFrame(LISTED.empty_table()), expected[-1]
    listed = scan_parts(lists, files, LISTED, REMEDY).collect()
    refuse_duplicates(listed["id"], f"{lists.path}: the lists have", f"a list was copied; {ELSEWHERE}")
    return listed, expected[-1]


def add_to_lists(kept: pl.DataFrame, settings: Publish | PublishClips, out: Folder) -> pl.DataFrame:
    """Add new images to the lists; return all listed images.

    Args:
        kept: The images to publish, column `id`.
        settings: The settings of the publication.
        out: The folder of the dataset.

    Returns:
        Columns `id` and `number` (of the shard), in order. Listed images may not be in `kept` any more.
    """
    lists = out.join(LISTS)
    while True:
        listed, next_name = listed_in(lists)
        new = _numbered(kept.join(listed, on="id", how="anti"), listed, settings)
        # If a concurrent publication was faster, its list counts, and the next list has the images that it lacks.
        if not new.height or lists.create_file(next_name, to_bytes(new.to_arrow().cast(LISTED), name=next_name)):
            return pl.concat([listed, new])


def _numbered(new: pl.DataFrame, listed: pl.DataFrame, settings: Publish | PublishClips) -> pl.DataFrame:
    """Return new images in random order (by the seed), with shard numbers that continue those of `listed`."""
    first = (listed["number"].max() or 0) + 1 if listed.height else 0  # type: ignore[operator]
    number = (pl.int_range(pl.len()) // settings.rows_per_shard + first).cast(pl.Int32).alias("number")
    return new[np.argsort(priority(new["id"].to_numpy(), settings.seed))].with_columns(number)


def settings_of_images(settings: dict[str, Any], where: str, remedy: str = ELSEWHERE) -> dict[str, Any]:
    """Return the stored settings of a publication of images.

    Args:
        settings: What is stored.
        where: The publication, for the error.
        remedy: What the user is to do if it is one of clips.

    Raises:
        UserError: They are of a publication of clips.
    """
    if settings.get(KIND) == CLIPS:
        raise UserError(f"{where}: has records of clips, not images: {remedy}")
    return settings


def refuse_duplicates(ids: pl.Series, where: str, why: str) -> None:
    """Refuse duplicate ids: an image would be published twice.

    Raises:
        UserError: An id occurs twice.
    """
    if ids.n_unique() < len(ids):
        raise UserError(f"{where} image {ids.filter(ids.is_duplicated())[0]} twice; {why}")
