"""What lies beside an image in a tar: which image a `.txt` or `.json` belongs to, and what it tells of it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from pipeline.pool.rows import NOTES, Row, note_names, notes_of


class Note(NamedTuple):
    """What one side file tells.

    Attributes:
        rank: Of several for one image the lowest counts.
        row: Columns of the index.
        source: The ending or JSON key that the alt text is from, for messages.
    """

    rank: int
    row: Row
    source: str


def stem(key: str) -> str:
    """What the members of one webdataset sample share: the path up to the first dot of the file name."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + name.split(".", 1)[0]


def full_stem(key: str) -> str:
    """The path without its ending: up to the last dot of the file name."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + name.rpartition(".")[0] if "." in name else key


def ending_of(name: str) -> str:
    """The ending of a file name, without its dot, in lower case."""
    return name.rpartition("/")[2].rpartition(".")[2].lower()


def side_endings(alt_text: str | None) -> list[str]:
    """The endings of side files that hold the alt text, the best first."""
    return list(NOTES["alt_text"]) if alt_text is None else [alt_text.lstrip(".").lower()]


def read_note(name: str, data: bytes, alt_text: str | None) -> Note | None:
    """What a side file tells; None if its ending says nothing, or it is not JSON.

    Args:
        name: Of the member.
        data: Its contents.
        alt_text: As in the pool.
    """
    ending, endings = ending_of(name), side_endings(alt_text)
    text = data.decode("utf-8", "replace")
    if ending in endings:
        return Note(endings.index(ending), {"alt_text": text.strip()}, f".{ending}")
    if ending != "json":
        return None
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    names = note_names(told, None if alt_text is None else alt_text.lstrip("."))
    row = notes_of(told, names)
    return Note(len(endings), row, f"{names['alt_text'][0]!r} of .json" if row.get("alt_text") else "")


def pair(images: Iterable[str], notes: Mapping[str, Note]) -> dict[str, Row]:
    """What the side files of a tar tell, by image.

    `22.05.txt` belongs to `22.05.png`: the names are equal up to the last dot. Endings may be more: `22.05.caption.txt`
    is of `22.05.png` too. A side file that finds no image so belongs to those whose names are equal up to the first
    dot, as webdataset pairs them: `c0.txt` to `c0.left.jpg` and `c0.right.jpg`. Where names have dots of their own, so
    that others of that first part are pairs, `22.07.txt` is that of an image that is missing, and not of `22.05.png`.

    Args:
        images: Names of the image members.
        notes: What side files tell, by their names.
    """
    by_full, by_first = defaultdict(list), defaultdict(list)
    for image in dict.fromkeys(images):
        by_full[full_stem(image)].append(image)
        by_first[stem(image)].append(image)
    dotted = {stem(name) for name in notes if full_stem(name) in by_full and full_stem(name) != stem(name)}
    told: dict[str, list[tuple[bool, int, Row]]] = defaultdict(list)
    for name, note in notes.items():
        full, first = full_stem(name), stem(name)
        partners = next((by_full[part] for part in _parts(full, first) if part in by_full), [])
        hidden = not first or first.endswith("/")  # such names share nothing but their first dot
        if not partners and not hidden and not (first in dotted and full != first):
            partners = by_first.get(first, [])
        for image in partners:
            told[image].append((full not in by_full, note.rank, note.row))
    return {image: _merged(sorted(rows, key=lambda row: row[:2])) for image, rows in told.items()}


def _parts(full: str, first: str) -> Iterator[str]:
    """A name with one ending less each time, down to its first dot."""
    yield full
    while len(full) > len(first):
        full = full.rpartition(".")[0]
        yield full


def _merged(rows: list[tuple[bool, int, Row]]) -> Row:
    merged: Row = {}
    for _, _, row in rows:
        merged |= {name: text for name, text in row.items() if not merged.get(name)}
    return merged
