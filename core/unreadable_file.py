"""A file that has a length but refuses to be read. It shows what a reader checks before it reads."""

from __future__ import annotations

import io


class ReadAttemptError(OSError):
    """Raised by `UnreadableFile` on any attempt to read."""


class UnreadableFile(io.RawIOBase):
    """A file that has a length but refuses to be read."""

    def __init__(self, length: int) -> None:
        self._length, self._at = length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._length)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        raise ReadAttemptError("this file has only a length")
