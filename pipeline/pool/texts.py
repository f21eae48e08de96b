"""Texts that somebody else encoded: read as UTF-8, and where they are not UTF-8 it is recorded how they were read."""

from __future__ import annotations

import codecs

UNKNOWN = "unknown"
"""How a text was read that is in no encoding known here: bytes that are not UTF-8 became U+FFFD."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(data: bytes) -> tuple[str, str | None]:
    """A text, and how it was read: None for UTF-8, else `utf-16`, `utf-32`, `windows-1252` or `UNKNOWN`.

    A byte-order mark says which encoding it is. Without one and not UTF-8 a text is taken for Windows-1252, by far the
    most frequent other one of the web; it leaves five bytes without a character, so that texts of many other encodings
    are known not to be in it.
    """
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    encodings = ("utf-8", "windows-1252") if marked is None else (marked,)
    for encoding in encodings:
        try:
            return data.decode(encoding), None if encoding.startswith("utf-8") else encoding
        except UnicodeDecodeError:
            continue
    return data.decode(marked or "utf-8", "replace"), UNKNOWN
