"""A part of a file as a file of its own, and a file that remembers why it could not be read."""

from __future__ import annotations

import errno
import io
import os
from typing import Any, BinaryIO

from core.films import FilmLostError


class FileWindow(io.RawIOBase):
    """The bytes [start, start + length) of a file, such as a member of a tar."""

    def __init__(self, file: BinaryIO, start: int, length: int, owner: bool = True) -> None:
        """Open a part of a file that can seek.

        Args:
            file: The file. Its position moves.
            start: The position of the first byte.
            length: The number of bytes.
            owner: Whether closing the window closes the file.

        Raises:
            FilmLostError: The file is shorter.
            OSError: It cannot be read.
        """
        self._file, self._start, self._length, self._position = file, start, length, 0
        self._owner = owner
        size = file.seek(0, os.SEEK_END)
        if size < start + length:
            self.close()
            raise FilmLostError(
                f"cut off: {max(0, size - start):,} of {length:,} bytes are there; index the pool again"
            )

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "a position before the start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        wanted = memoryview(buffer)[: max(0, self._length - self._position)]
        if not wanted:
            return 0
        self._file.seek(self._start + self._position)
        count: int = self._file.readinto(wanted)  # type: ignore[attr-defined]  # every binary file that can seek has it
        self._position += count
        return count

    def close(self) -> None:
        if self._owner:
            self._file.close()
        super().close()


class WatchedFile:
    """A file for FFmpeg, whose errors it does not tell apart: `error` says whether the disk or the network failed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.error = error
            return b""  # the end, for FFmpeg

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (ValueError, OverflowError):  # a damaged film may name any position
            return -1
        except OSError as error:
            self.error = self.error if error.errno == errno.EINVAL else error
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def close(self, *_: Any) -> None:
        self._file.close()
