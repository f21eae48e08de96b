"""A vocabulary: the concepts that images are compared with, out of a text file with one concept a line."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from core.text import printable
from filters.conse_classes import imagenet_classes

IMAGENET = "imagenet"
"""The name of the vocabulary of ImageNet's 1000 classes, of which 998 have names of their own."""

_LONGEST = 200  # characters of a concept
_MOST = 64 << 20  # bytes of a file; the 500,000 concepts of MetaCLIP have 10 MB


def read_vocabulary(vocabulary: str) -> tuple[str, ...]:
    """Return the concepts, in the order of the file. Empty lines and spaces around a concept do not count.

    Args:
        vocabulary: A file on this machine, in UTF-8; or `imagenet`.

    Raises:
        UserError: It cannot be read, has no concepts, or a line is a concept for the second time, too long, or not
            printable.
    """
    if vocabulary == IMAGENET:
        return tuple(dict.fromkeys(lemmas[0] for lemmas, _ in imagenet_classes()))
    lines_of: dict[str, int] = {}
    for number, line in enumerate(_text(vocabulary).split("\n"), start=1):
        concept = line.strip()
        if not concept:
            continue
        if wrong := _flaw(concept, lines_of):
            raise UserError(f"vocabulary: {vocabulary}, line {number}: {printable(concept[:_LONGEST])!r} {wrong}")
        lines_of[concept] = number
    if not lines_of:
        raise UserError(f"vocabulary: {vocabulary} is empty: give a text file with one concept a line")
    return tuple(lines_of)


def content_hash(concepts: Sequence[str]) -> str:
    """Return a hash of the concepts and their order: 32 hexadecimal digits."""
    return hashlib.sha256("\n".join(concepts).encode()).hexdigest()[:32]


def _text(vocabulary: str) -> str:
    path = Path(os.path.expanduser(vocabulary))
    if not path.is_file():
        raise UserError(
            f"vocabulary: {vocabulary}: no such file, or a folder, pipe or device: give a text file with one concept a "
            f"line, or {IMAGENET}"
        )
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise UserError(f"vocabulary: {vocabulary} cannot be read: {error.strerror}") from error
    if len(data) > _MOST:
        raise UserError(f"vocabulary: {vocabulary} has more than {_MOST:,} bytes: give fewer concepts, one a line")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"vocabulary: {vocabulary}, line {line}: not UTF-8: save the file as UTF-8") from error


def _flaw(concept: str, lines_of: dict[str, int]) -> str:
    """Return what is wrong with a concept; an empty text if nothing is."""
    if len(concept) > _LONGEST:
        return f"has more than {_LONGEST} characters: give one concept a line"
    if not concept.isprintable():
        return "has characters that are not printable: remove them"
    if concept in lines_of:
        return f"stands in line {lines_of[concept]} already: remove one of them"
    return ""
