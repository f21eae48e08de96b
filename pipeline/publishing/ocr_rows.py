"""Which images a shard of the subset `ocr` holds. Its list alone does not say: images without text are not in it.

A file beside the lists has the ids. Like a list it is never corrected: what is removed later is known by `removals_in`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import polars as pl

from core.errors import UserError
from manifests.shards import OCR, shard_name
from manifests.storage import Folder

_READERS = 16
_SCHEMA = {"id": pl.Int64(), "number": pl.Int32()}


def store_ocr_rows(lists: Folder, number: int, ids: Sequence[int]) -> None:
    """Store the images of the shard with this number. No shard is complete before."""
    lists.write(_name(number), json.dumps({"ids": list(ids)}).encode())


def read_ocr_rows(lists: Folder, numbers: Collection[int], format_: str) -> pl.DataFrame:
    """Return the images that the shards with these numbers had when they were written: columns `id` and `number`.

    Raises:
        UserError: A file that says so is missing or damaged.
    """

    def of_number(number: int) -> pl.DataFrame:
        ids = pl.Series("id", _ids(lists, number, format_), pl.Int64)
        return pl.DataFrame(ids).select("id", pl.lit(number, pl.Int32).alias("number"))

    with ThreadPoolExecutor(_READERS) as readers:
        return pl.concat([pl.DataFrame(schema=_SCHEMA), *readers.map(of_number, numbers)])


def _ids(lists: Folder, number: int, format_: str) -> list[int]:
    where = f"{lists.path}/{_name(number)}"
    remedy = f"copy it back, or delete {shard_name(OCR, number, format_)} and publish again"
    if not lists.exists(_name(number)):
        raise UserError(f"{where}: this file is missing; {remedy}")
    try:
        ids = json.loads(lists.read(_name(number)))["ids"]
        if not isinstance(ids, list) or not all(type(id_) is int for id_ in ids):
            raise TypeError("ids are whole numbers")
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise UserError(f"{where}: the file is damaged ({error}); {remedy}") from error
    return ids


def _name(number: int) -> str:
    return f"{OCR}-{number:05d}.json"
