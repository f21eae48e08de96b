"""Which images a shard of the subset `ocr` holds. Its list alone does not say: images without text are not in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from core.errors import UserError
from manifests.shards import OCR, shard_name
from manifests.storage import Folder


@dataclass(frozen=True)
class OcrRows:
    """The contents of a shard.

    Attributes:
        rows: Number of images.
        smallest, largest: Their ids; None without images.
    """

    rows: int
    smallest: int | None
    largest: int | None


def store_ocr_rows(lists: Folder, number: int, ids: Sequence[int]) -> None:
    """Store what the shard with this number holds. No shard is complete before."""
    holds = OcrRows(len(ids), min(ids, default=None), max(ids, default=None))
    lists.write(_name(number), json.dumps(asdict(holds), indent=1).encode())


def read_ocr_rows(lists: Folder, number: int, format_: str) -> OcrRows:
    """Return what the shard with this number holds.

    Raises:
        UserError: The file that says so is missing or damaged.
    """
    where, remedy = f"{lists.path}/{_name(number)}", f"delete {shard_name(OCR, number, format_)} and publish again"
    if not lists.exists(_name(number)):
        raise UserError(f"{where}: this file is missing; {remedy}")
    try:
        return OcrRows(**json.loads(lists.read(_name(number))))
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: the file is damaged ({error}); {remedy}") from error


def count_ocr_rows(lists: Folder, numbers: Iterable[int], format_: str) -> int:
    """Return the number of images in the shards with these numbers. Raises as `read_ocr_rows`."""
    return sum(read_ocr_rows(lists, number, format_).rows for number in numbers)


def _name(number: int) -> str:
    return f"{OCR}-{number:05d}.json"
