"""What came of each URL of a part, from what the child process says of it, and the image's header in the tar."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from core.image_header import BadImageError, read_header
from core.text import printable
from pipeline.stages.download.fetching.tar_writer import Row

_LONGEST = 250  # characters of an error


@dataclass(frozen=True)
class Outcome:
    """An image in the tar, or why there is none.

    Attributes:
        error: Why there is no image, as `kind: details`; None: there is one.
        retry: Whether another run may succeed.
        status: HTTP status of the last answer; None: there was none.
        offset: Where the image's bytes begin in the tar.
        length: Number of its bytes.
        sha256: Hash of these bytes, in hexadecimal.
        width: Displayed width, in pixels.
        height: Displayed height, in pixels.
        format: Format by content, such as JPEG.
        animated: Whether the image has several frames.
        served: Width and height of the image that was served, in pixels; that of a resized image as it was encoded.
    """

    error: str | None = None
    retry: bool = False
    status: int | None = None
    offset: int | None = None
    length: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    animated: bool | None = None
    served: tuple[int, int] | None = None


def read_outcomes(tar: Path, rows: Sequence[Sequence[Any]]) -> list[Outcome]:
    """Return the outcome of each row of a part.

    Args:
        tar: The tar.
        rows: What the child process says of each row, see `Parts.download`.

    Raises:
        OSError: The tar cannot be read.
    """
    with tar.open("rb", buffering=0) as file:
        return [_outcome(Row(*row), status, retry, file) for *row, status, retry in rows]


def _outcome(row: Row, status: int | None, retry: bool, tar: BinaryIO) -> Outcome:
    if row.error is not None:
        return Outcome(printable(row.error)[:_LONGEST], retry, status)
    assert row.offset is not None
    assert row.length is not None
    tar.seek(row.offset)
    try:
        header = read_header(io.BytesIO(tar.read(row.length)))
    except BadImageError as error:
        return Outcome(str(error), False, status)
    return Outcome(
        status=status,
        offset=row.offset,
        length=row.length,
        sha256=row.sha256,
        width=header.width,
        height=header.height,
        format=header.format,
        animated=header.animated,
        served=(row.width, row.height) if row.width and row.height else (header.width, header.height),
    )
