"""Decode texts of unknown encoding, and record the encoding where it is not UTF-8."""

from __future__ import annotations

import codecs

UNKNOWN = "unknown"
"""The encoding of a text that could not be decoded: invalid bytes were replaced by U+FFFD."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is a prefix of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(data: bytes) -> tuple[str, str | None]:
    """Return a text and its encoding: None for UTF-8, else `utf-16`, `utf-32`, `windows-1252` or `UNKNOWN`.

    A byte-order mark decides the encoding. A text without one that is not UTF-8 is read as Windows-1252, by far the
    most frequent other encoding on the web. Five bytes have no character in it, which rules it out for many texts in
    other encodings.
    """
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    encodings = ("utf-8", "windows-1252") if marked is None else (marked,)
    for encoding in encodings:
        try:
            return data.decode(encoding), None if encoding.startswith("utf-8") else encoding
        except UnicodeDecodeError:
            continue
    return data.decode(marked or "utf-8", "replace"), UNKNOWN
