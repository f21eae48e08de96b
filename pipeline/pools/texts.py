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

    A byte-order mark decides the encoding. A text without one is UTF-16 if it has NULs, nearly all in the odd or in the
    even bytes, as Latin letters do. Other NULs are in no text of a known encoding. A text that is not UTF-8 is read as
    Windows-1252, by far the most frequent other encoding on the web. Five bytes have no character in it, which rules it
    out for many texts in other encodings.
    """
    marked = marked_encoding(data)
    encodings = (*_utf16(data), "utf-8", "windows-1252") if marked is None else (marked,)
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding.startswith("utf-8"):
            return text, UNKNOWN if "\0" in text else None
        return text, encoding.removesuffix("-le").removesuffix("-be")
    return data.decode(marked or "utf-8", "replace"), UNKNOWN


def octets(text: str) -> bytes:
    """Return the bytes of a text that was read with `surrogateescape`; other lone surrogates are escaped."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def marked_encoding(data: bytes) -> str | None:
    """Return the encoding that a byte-order mark at the start says; None without a mark."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def _utf16(data: bytes) -> tuple[str, ...]:
    """Return the byte order of a text without a mark that looks like UTF-16."""
    even, odd = data[::2].count(0), data[1::2].count(0)
    few, many = sorted((even, odd))
    if len(data) % 2 or many <= len(data) // 8 or few * 8 > many:
        return ()
    return ("utf-16-le" if odd > even else "utf-16-be",)
