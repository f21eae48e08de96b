"""Marks that people gave images on a review page: read from the files that the page saves, and counted.

A file is JSON (as the page saves it) or CSV with the columns id, mark, note, reviewer and saved. Of several marks by
one person for one image the one that was saved last counts.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from core.errors import UserError
from core.text import printable

FORM = "vl3syn-review-1"
GOOD, WRONG, UNSURE = "good", "wrong", "unsure"
MARKS = (GOOD, WRONG, UNSURE)
LARGEST = 64 << 20
"""Bytes of a file of marks, at most."""

_LONGEST_NOTE, _LONGEST_NAME = 2000, 200
_IDS = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True)
class Mark:
    """What one person said about one image.

    Attributes:
        id: The image.
        mark: One of `MARKS`.
        note: A note; may be empty.
        reviewer: Name of the person, or of the page that was opened.
        saved: When it was saved, as ISO 8601; later times are larger texts.
    """

    id: int
    mark: str
    note: str = ""
    reviewer: str = ""
    saved: str = ""


@dataclass(frozen=True)
class Share:
    """A share of marked images, with its 95 % interval by Wilson. All are numbers from 0 to 1.

    Attributes:
        images: The images that have this mark.
        share: Their share.
        low, high: The interval. It is about all published images if the page was a random draw and all of it is marked.
    """

    images: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Counted:
    """The marks of a run, counted.

    Attributes:
        images: Number of marked images.
        reviewers: Number of people.
        shares: For each of `MARKS` the images whose marks are mostly this one; where marks tie, it is `unsure`.
        pairs: Pairs of people who marked the same image.
        agreeing: Those of them who gave the same mark.
    """

    images: int
    reviewers: int
    shares: Mapping[str, Share]
    pairs: int
    agreeing: int


def parse_marks(data: bytes, where: str) -> list[Mark]:
    """Return the marks in a file.

    Args:
        data: Its bytes.
        where: Its path, for errors.

    Raises:
        UserError: It is no file of marks; the text says what is wrong.
    """
    if len(data) > LARGEST:
        raise UserError(f"{where}: longer than {LARGEST:,} bytes: no marks of a review page")
    try:
        text = data.decode("utf-8-sig")
        rows = _rows_of_json(text) if text.lstrip().startswith("{") else _rows_of_csv(text)
        return [_mark(row, number) for number, row in enumerate(rows, start=1)]
    except (ValueError, TypeError, LookupError, AttributeError, csv.Error, RecursionError) as error:
        raise UserError(f"{where}: no marks of a review page: {printable(str(error))}") from error


def counting(marks: Iterable[Mark]) -> list[Mark]:
    """Return the marks that count: of each person and image the last one."""
    last: dict[tuple[str, int], Mark] = {}
    for mark in sorted(marks, key=lambda each: each.saved):
        last[mark.reviewer, mark.id] = mark
    return sorted(last.values(), key=lambda each: (each.id, each.reviewer))


def review_columns(marks: Sequence[Mark]) -> dict[str, list[Any]]:
    """Return the columns of the stage `review` with the column `id`, a row per marked image.

    Args:
        marks: From `counting`.
    """
    rows = []
    for id_, of_image in _by_image(marks).items():
        counts = Counter(mark.mark for mark in of_image)
        notes = " | ".join(mark.note for mark in of_image if mark.note)
        rows.append((id_, counts[WRONG], counts[GOOD], counts[UNSURE], notes or None))
    names = ("id", "review_wrong", "review_good", "review_unsure", "review_note")
    return {name: [row[position] for row in rows] for position, name in enumerate(names)}


def count_marks(marks: Sequence[Mark]) -> Counted:
    """Count marks.

    Args:
        marks: From `counting`.
    """
    images = _by_image(marks)
    mostly = Counter(_mostly([mark.mark for mark in of_image]) for of_image in images.values())
    pairs = [pair for of_image in images.values() for pair in combinations(of_image, 2)]
    return Counted(
        images=len(images),
        reviewers=len({mark.reviewer for mark in marks}),
        shares={mark: _share(mostly[mark], len(images)) for mark in MARKS},
        pairs=len(pairs),
        agreeing=sum(one.mark == other.mark for one, other in pairs),
    )


def wilson(part: int, whole: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's interval of a share, from 0 to 1 (Wilson 1927; the default `z` gives 95 %)."""
    if not whole:
        return 0.0, 1.0
    share, square = part / whole, z * z
    centre = (share + square / (2 * whole)) / (1 + square / whole)
    half = z * math.sqrt(share * (1 - share) / whole + square / (4 * whole * whole)) / (1 + square / whole)
    return max(0.0, centre - half), min(1.0, centre + half)


def _share(part: int, whole: int) -> Share:
    low, high = wilson(part, whole)
    return Share(part, part / whole if whole else 0.0, low, high)


def _mostly(marks: Sequence[str]) -> str:
    (first, count), *others = Counter(marks).most_common()
    return UNSURE if others and others[0][1] == count else first


def _by_image(marks: Sequence[Mark]) -> Mapping[int, list[Mark]]:
    images: dict[int, list[Mark]] = defaultdict(list)
    for mark in marks:
        images[mark.id].append(mark)
    return images


def _rows_of_json(text: str) -> list[dict[str, Any]]:
    read = json.loads(text)
    if read.get("form") != FORM:
        raise UserError(f"its form is {read.get('form')!r}, not {FORM!r}")
    about = {"reviewer": read["reviewer"], "saved": read["saved"]}
    return [{**row, **about} for row in read["marks"]]


def _rows_of_csv(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if not {"id", "mark"} <= set(reader.fieldnames or ()):
        raise UserError("it has no columns id and mark")
    return list(reader)


def _unicode(text: str) -> str:
    """Replace halves of characters, which JSON can have (`"\\ud83d"`) and a table cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mark(row: Mapping[str, Any], number: int) -> Mark:
    texts = {name: _unicode(str(row.get(name) or "")) for name in ("id", "mark", "note", "reviewer", "saved")}
    id_ = int(texts["id"])
    if id_ not in _IDS or texts["mark"] not in MARKS:
        raise UserError(f"mark {number} is {texts['mark']!r} of {texts['id']}: known are {', '.join(MARKS)}")
    return Mark(id_, texts["mark"], texts["note"][:_LONGEST_NOTE], texts["reviewer"][:_LONGEST_NAME], texts["saved"])
