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
    hashes: dict[int, str] = {}
    for row, error, sha256 in _sidecar(tar.with_suffix(".parquet")):
        status, retry = results[row]
        if error is None:
            hashes[row] = sha256
        else:
            outcomes[row] = Outcome(error, retry, status)
    for row, member in _members(tar):
        if row in hashes:
            expected = None if resized else hashes[row]
            outcomes[row] = _image(member, results[row][0], expected)
    return outcomes


def _sidecar(path: Path) -> Iterator[tuple[int, str | None, str]]:
    """Yield number, error and hash of the served bytes for each row."""
    table = pq.read_table(path, columns=["key", "status", "error_message", "sha256"])
    for key, status, error, sha256 in zip(*(column.to_pylist() for column in table.columns), strict=True):
        if status == "success":
            yield _row(key), None, sha256
        elif status == "failed_to_resize":
            yield _row(key), f"cannot be resized: {printable(error)[:200]}", sha256
        else:
            yield _row(key), error, sha256


def _members(tar: Path) -> Iterator[tuple[int, _Member]]:
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            key, _, ending = member.name.partition(".")
            file = archive.extractfile(member)
            if ending == "jpg" and file:
                yield _row(key), _Member(member.offset_data, file.read())


def _row(key: str) -> int:
    return int(key) % MAX_ROWS


def _image(member: _Member, status: int | None, expected: str | None) -> Outcome:
    """Return the outcome for stored bytes; `expected` is the hash of the served bytes if they must be the same."""
    sha256 = hashlib.sha256(member.data).hexdigest()
    if expected not in (None, sha256):
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
    )
