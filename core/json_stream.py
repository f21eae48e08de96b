"""Read a large JSON file value by value: the elements of its array, or the values of its object, one at a time.

Memory holds one value and a chunk of the file. The values are those of `json.loads`: NaN, integers of any length and
half surrogates are read, and whoever uses a value judges it.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

from core.errors import BadSampleError

_CHUNK = 1 << 20  # bytes of one read, or more inside of a long value
_SPACE = " \t\r\n"
_NUMBER = "0123456789+-.eE"  # a number that a chunk ends in may go on: `1`, `1.`, `1.5e+`
_LITERAL = 16  # characters before the end of a chunk in which a cut literal or escape looks like a broken one


class JsonStream:
    """The text of a JSON file, read from its beginning to its end."""

    def __init__(self, file: IO[bytes], largest: int, errors: str = "strict", chunk: int = _CHUNK) -> None:
        """Begin to read.

        Args:
            file: Bytes of UTF-8, with or without a byte order mark.
            largest: Characters of one value, at most.
            errors: What becomes of bytes that are no UTF-8, as in `bytes.decode`.
            chunk: Bytes of one read.
        """
        self._file, self._largest, self._chunk = file, largest, chunk
        self._decoder = json.JSONDecoder()
        self._characters = codecs.getincrementaldecoder("utf-8")(errors)
        self._buffer, self._at, self._ended = "", 0, False
        if self.peek() == "\ufeff":
            self._at += 1

    def peek(self) -> str:
        """Return the next character that is no white space, without passing it; an empty text at the end."""
        while True:
            while self._at < len(self._buffer):
                if (character := self._buffer[self._at]) not in _SPACE:
                    return character
                self._at += 1
            if self._ended:
                return ""
            self._more()

    def value(self) -> Any:
        """Return the next value, and pass it.

        Raises:
            BadSampleError: There is none, or it is cut off, too large or nested too deeply.
        """
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except RecursionError as error:
                raise BadSampleError("nested too deeply") from error
            except json.JSONDecodeError as error:
                if self._ended:
                    raise BadSampleError(f"cut off: {error.msg}" if self._is_cut(error) else error.msg) from error
                if not self._is_cut(error):
                    raise BadSampleError(error.msg) from error
            except ValueError as error:  # an integer of thousands of digits
                raise BadSampleError(" ".join(str(error).split())) from error
            else:
                self._check_length(end - self._at)
                if self._ended or self._buffer[end : end + 4].strip(_NUMBER) or end + 4 <= len(self._buffer):
                    self._at = end
                    return value
            self._check_length(len(self._buffer) - self._at)
            self._more()

    def elements(self) -> Iterator[Any]:
        """Yield the elements of the array that comes next, and pass it.

        Raises:
            BadSampleError: As `value`, or there is no array.
        """
        self._take("[")
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self._take(",]") == "]":
                return

    def keys(self) -> Iterator[str]:
        """Yield the keys of the object that comes next. Before the next key, pass the value of the last one.

        Raises:
            BadSampleError: As `value`, or there is no object.
        """
        self._take("{")
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            if self.peek() != '"':
                raise BadSampleError("a key is missing")
            key = self.value()
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return

    def skip(self) -> None:
        """Pass the next value. Of an array or object, only one value inside is in memory."""
        first = self.peek()
        if first == "[":
            for _ in self.elements():
                pass
        elif first == "{":
            for _ in self.keys():
                self.value()
        else:
            self.value()

    def finish(self) -> None:
        """Check that nothing comes behind.

        Raises:
            BadSampleError: Something does.
        """
        if rest := self.peek():
            raise BadSampleError(f"more behind the end, beginning with {rest!r}")

    def _take(self, characters: str) -> str:
        found = self.peek()
        if not found:
            raise BadSampleError(f"cut off before {' or '.join(characters)}")
        if found not in characters:
            raise BadSampleError(f"{found!r} in place of {' or '.join(characters)}")
        self._at += 1
        return found

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated") or error.pos >= len(self._buffer) - _LITERAL

    def _check_length(self, length: int) -> None:
        if length > self._largest:
            raise BadSampleError(f"a value of more than {self._largest >> 20} MiB: it would fill the memory; split it")

    def _more(self) -> None:
        """Read as much as is there already, so that a long value is parsed a few times only."""
        self._buffer = self._buffer[self._at :]
        self._at = 0
        data = self._file.read(max(self._chunk, len(self._buffer)))
        self._ended = not data
        self._buffer += self._characters.decode(data, final=self._ended)
