"""The tar of a part, and where each image is in it. It takes the place of img2dataset's writer."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_ROWS = 100_000
"""Most rows of a part. img2dataset names images by part and row, in so many digits."""

_BUFFER = 1 << 18  # bytes that are written at once; larger ones are slower
_BLOCK = 512  # bytes; members begin at multiples of it
_END = b"\0" * (2 * _BLOCK)  # what ends a tar


class Row(NamedTuple):
    """What became of a URL.

    Attributes:
        error: Why there is no image, as `kind: details`; None: there is one.
        offset: Where the image's bytes begin in the tar.
        length: Number of its bytes.
        sha256: Hash of these bytes, in hexadecimal.
        width: Width of the image as it was served and encoded, in pixels, if it was resized.
        height: Height of the same.
    """

    error: str | None
    offset: int | None = None
    length: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None


class TarWriter:
    """Writes images, each followed by a `.json` member: img2dataset's row about it.

    img2dataset's own writer copies each image through blocks of 10 kB, and does not say where it is.

    Attributes:
        rows: What became of each row.
        problem: The first error of the disk. img2dataset's loop passes over it; nothing is written after it.
    """

    def __init__(self, path: str) -> None:
        self.rows: dict[int, Row] = {}
        self.problem: OSError | None = None
        self._file = open(path, "wb", buffering=_BUFFER)
        self._size = 0

    def write(self, image: bytes | None, key: str, caption: object, meta: Mapping[str, Any]) -> None:
        """Write a row, as img2dataset's writers do. `image` is None for a row that failed."""
        row = int(key) % MAX_ROWS
        if image is None:
            error: str = meta["error_message"]
            self.rows[row] = Row(f"cannot be resized: {error}" if meta["status"] == "failed_to_resize" else error)
            return
        if self.problem:
            raise self.problem
        sha256 = hashlib.sha256(image).hexdigest()
        try:
            offset = self._add(f"{key}.jpg", image)
            self._add(f"{key}.json", json.dumps({**meta, "sha256": sha256}).encode())
        except OSError as error:
            self.problem = error
            raise
        size = meta["original_width"], meta["original_height"]
        self.rows[row] = Row(None, offset, len(image), sha256, *size)

    def close(self) -> None:
        """End the tar; without its end it is cut off.

        Raises:
            OSError: The disk is full, for instance.
        """
        with self._file as file:
            if not self.problem:
                file.write(_END)

    def _add(self, name: str, data: bytes) -> int:
        """Write a member; return where its data begin."""
        head, padding = _header(name, len(data)), b"\0" * (-len(data) % _BLOCK)
        for piece in (head, data, padding):
            self._file.write(piece)
        offset = self._size + len(head)
        self._size = offset + len(data) + len(padding)
        return offset


def _header(name: str, size: int) -> bytes:
    """Return the header of a member (POSIX ustar). That of `tarfile` takes six times as long, and here that shows."""
    mode, owner, now, checksum = 0o444, 0, int(time.time()), b" " * 8
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, owner, owner, size, now)
    start, end = name.encode().ljust(100, b"\0") + numbers, b"0".ljust(101, b"\0") + b"ustar\x0000"
    total = sum(start) + sum(checksum) + sum(end)
    return (start + b"%06o\0 " % total + end).ljust(_BLOCK, b"\0")
