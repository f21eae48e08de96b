"""What came of each URL of a part, from the tar and the sidecar that img2dataset wrote."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from core.image_header import BadImageError, read_header
from core.text import printable
from pipeline.stages.download.fetching.child import MAX_ROWS


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


@dataclass(frozen=True)
class _Served:
    """What img2dataset says of an image: its bytes' hash, and its size, if it resized the image."""

    sha256: str
    size: tuple[int, int] | None


@dataclass(frozen=True)
class _Member:
    offset: int
    data: bytes


def read_outcomes(tar: Path, results: Sequence[tuple[int | None, bool]], resized: bool) -> list[Outcome]:
    """Return the outcome of each row of a part.

    Args:
        tar: The tar; the sidecar is the `.parquet` beside it.
        results: HTTP status, and whether another run may succeed, for each row.
        resized: Whether images may differ from what was served.

    Raises:
        OSError: A file cannot be read.
    """
    outcomes = [Outcome("lost: img2dataset did not store this row", True, status) for status, _ in results]
    served: dict[int, _Served] = {}
    for row, error, image in _sidecar(tar.with_suffix(".parquet")):
        status, retry = results[row]
        if error is None:
            served[row] = image
        else:
            outcomes[row] = Outcome(error, retry, status)
    for row, member in _members(tar):
        if row in served:
            outcomes[row] = _image(member, results[row][0], served[row], resized)
    return outcomes


def _sidecar(path: Path) -> Iterator[tuple[int, str | None, _Served]]:
    """Yield number, error and what was served for each row."""
    names = ["key", "status", "error_message", "sha256", "original_width", "original_height"]
    columns = [column.to_pylist() for column in pq.read_table(path, columns=names).columns]
    for key, status, error, sha256, width, height in zip(*columns, strict=True):
        served = _Served(sha256, (int(width), int(height)) if width and height else None)
        if status == "success":
            yield _row(key), None, served
        elif status == "failed_to_resize":
            yield _row(key), f"cannot be resized: {printable(error)[:200]}", served
        else:
            yield _row(key), error, served


def _members(tar: Path) -> Iterator[tuple[int, _Member]]:
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            key, _, ending = member.name.partition(".")
            file = archive.extractfile(member)
            if ending == "jpg" and file:
                yield _row(key), _Member(member.offset_data, file.read())


def _row(key: str) -> int:
    return int(key) % MAX_ROWS


def _image(member: _Member, status: int | None, served: _Served, resized: bool) -> Outcome:
    """Return the outcome for stored bytes, which are the served ones unless images are `resized`."""
    sha256 = hashlib.sha256(member.data).hexdigest()
    if not resized and served.sha256 != sha256:
        return Outcome("lost: the stored bytes are not those that were served", True, status)
    try:
        header = read_header(io.BytesIO(member.data))
    except BadImageError as error:
        return Outcome(str(error), False, status)
    return Outcome(
        status=status,
        offset=member.offset,
        length=len(member.data),
        sha256=sha256,
        width=header.width,
        height=header.height,
        format=header.format,
        animated=header.animated,
        served=served.size if resized else (header.width, header.height),
    )
