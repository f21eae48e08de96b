"""Read the `.txt` and `.json` side files in tars, and find the image that each belongs to."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline.pools.rows import NOTES, Row, note_names, notes_of
from pipeline.pools.texts import decoded


class Note(NamedTuple):
    """The contents of one side file.

    Attributes:
        rank: Priority if an image has several side files; the lowest comes first.
        row: Columns of the index.
        source: The ending or JSON key that the alt text comes from, for messages.
    """

    rank: int
    row: Row
    source: str


def stem(key: str) -> str:
    """Return the name of a webdataset sample: the path up to the first dot of the file name."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + name.split(".", 1)[0]


def full_stem(key: str) -> str:
    """Return the path without its ending: up to the last dot of the file name."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + name.rpartition(".")[0] if "." in name else key


def ending_of(name: str) -> str:
    """Return the ending of a file name in lower case, without the dot."""
    return name.rpartition("/")[2].rpartition(".")[2].lower()


def side_endings(alt_text: str | None) -> list[str]:
    """Return the endings of side files that hold alt text, best first."""
    return list(NOTES["alt_text"]) if alt_text is None else [alt_text.lstrip(".").lower()]


def read_note(name: str, data: bytes, alt_text: str | None) -> Note | None:
    """Read a side file; return None if its ending is unknown, or a `.json` does not hold a JSON object.

    Args:
        name: Name of the member.
        data: Its contents.
        alt_text: The setting `alt_text` of the pool.
    """
    ending, endings = ending_of(name), side_endings(alt_text)
    if ending in endings:
        text, encoding = decoded(data)
        row = {"alt_text": text.strip()} | ({"text_encoding": encoding} if encoding and text.strip() else {})
        return Note(endings.index(ending), row, f".{ending}")
    if ending != "json":
        return None
    detected = json.detect_encoding(data)
    text, encoding = decoded(data) if detected == "utf-8" else (data.decode(detected, "replace"), detected[:6])
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    names = note_names(content, None if alt_text is None else alt_text.lstrip("."))
    row = notes_of(content, names)
    row |= {"text_encoding": encoding} if encoding and encoding != "utf-8" and row else {}
    return Note(len(endings), row, f"{names['alt_text'][0]!r} of .json" if row.get("alt_text") else "")


def pair_members(images: Sequence[tuple[int, str]], notes: Mapping[str, Sequence[tuple[int, Note]]]) -> list[Row]:
    """Return the index columns that side files give to each image of a tar. Names may repeat, as in joined tars.

    The first of several side files with the same name counts. But a side file that is adjacent to other members of its
    sample belongs to these alone. A sample is a run of adjacent members that share the name up to the first dot and
    have different full names.

    Args:
        images: Byte offset and name of each image member.
        notes: Byte offset and contents of the side files, by name.
    """
    first = pair((name for _, name in images), {name: those[0][1] for name, those in notes.items()})
    rows = {offset: first.get(name, {}) for offset, name in images}
    if any(len(those) > 1 for those in notes.values()):
        seen: set[str] = set()
        for sample in _samples(images, notes):
            beside = {name: note for _, name, note in sample if note}
            again = {name for _, name, note in sample if not note and name in seen}
            seen.update(name for _, name, _ in sample)
            if any(len(notes[name]) > 1 for name in beside) or again:
                texts = pair((name for _, name, note in sample if not note), beside)
                for offset, name, note in sample:
                    if not note:
                        row = {} if name in again else rows[offset]
                        rows[offset] = row | ({"text_encoding": None} | texts[name] if texts.get(name) else {})
    return [rows[offset] for offset, _ in images]


def _samples(
    images: Sequence[tuple[int, str]], notes: Mapping[str, Sequence[tuple[int, Note]]]
) -> Iterator[list[tuple[int, str, Note | None]]]:
    members: list[tuple[int, str, Note | None]] = [(offset, name, None) for offset, name in images]
    members += [(offset, name, note) for name, those in notes.items() for offset, note in those]
    sample: list[tuple[int, str, Note | None]] = []
    names: set[str] = set()
    for member in sorted(members, key=lambda member: member[0]):
        name = member[1]
        if sample and (name in names or stem(name) != stem(sample[0][1])):
            yield sample
            sample, names = [], set()
        sample.append(member)
        names.add(name)
    if sample:
        yield sample


def pair(images: Iterable[str], notes: Mapping[str, Note]) -> dict[str, Row]:
    """Return the index columns from a tar's side files, by image.

    - A side file named after an image's full name belongs to that image alone: `a.jpg.txt` to `a.jpg`.
    - Else it belongs to the images with the same name up to the last dot: `22.05.txt` to `22.05.png`.
    - Else words are removed from its end, one at a time, until one of these fits: `22.05.caption.txt` to `22.05.png`.
    - An image without a side file of some ending takes the one that shares the longest part of its name up to a dot:
      `22.05.left.png` takes `22.05.txt`, and `c0.left.jpg` takes `c0.txt`. It takes `c0.caption.txt` too, unless
      other images with dots in their names have a `.txt`: then `a.c.txt` belongs to a missing image, not to `a.b.png`.

    Args:
        images: Names of the image members.
        notes: Contents of the side files, by name.
    """
    by_stem = defaultdict(list)
    for image in dict.fromkeys(images):
        by_stem[full_stem(image)].append(image)
    names = {image for those in by_stem.values() for image in those if "." in _base(image)}
    beginnings = {beginning for known in by_stem for beginning in [known, *_beginnings(known)]}
    dotted = {ending_of(name) for name in notes if full_stem(name) in beginnings and "." in _base(full_stem(name))}

    pairs: dict[str, list[_Pair]] = defaultdict(list)
    common: dict[tuple[str, str], list[_Pair]] = defaultdict(list)
    for name, note in notes.items():
        ending, full = ending_of(name), full_stem(name)
        shorter = [full, *_without_words(full)]
        shared = next((part for part in shorter if part in names or part in by_stem), None)
        for image in () if shared is None else [shared] if shared in names else by_stem[shared]:
            pairs[image].append(_Pair(shorter.index(shared or full), note, ending))
        if full not in names:
            common[ending, full].append(_Pair(0, note, ending))
        if shared is None and len(shorter) > 1 and ending not in dotted:
            common[ending, shorter[1]].append(_Pair(1, note, ending))
    endings = sorted({ending for ending, _ in common})
    for image in (image for those in by_stem.values() for image in those):
        for ending in set(endings) - {pair.ending for pair in pairs[image]}:
            nearest = next((part for part in _beginnings(full_stem(image)) if (ending, part) in common), "")
            pairs[image] += [pair._replace(words=_FAR + pair.words) for pair in common.get((ending, nearest), [])]
    return {
        image: _merged(sorted(those, key=lambda pair: (pair.words, pair.note.rank))) for image, those in pairs.items()
    }


class _Pair(NamedTuple):
    """A side file of an image: the number of words removed from its name to match, its contents, and its ending."""

    words: int
    note: Note
    ending: str


_MOST_DOTS = 16  # dots of a name that are considered
_FAR = 2 * _MOST_DOTS  # added to the word count: side files that images share rank after an image's own


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _beginnings(name: str) -> Iterator[str]:
    """Yield the name up to each of its dots, longest first."""
    for _ in range(_MOST_DOTS):
        folder, slash, base = name.rpartition("/")
        base = base.rpartition(".")[0]
        if not base.strip("."):  # hidden files share only their leading dot
            return
        yield (name := folder + slash + base)


def _without_words(name: str) -> Iterator[str]:
    """Yield the name with `.caption`, `.en`, … removed from its end one at a time. A number belongs to the name."""
    for shorter in _beginnings(name):
        if not name[len(shorter) + 1 :].replace("-", "_").isidentifier():
            return
        yield (name := shorter)


def _merged(pairs: Iterable[_Pair]) -> Row:
    merged: Row = {}
    for pair in pairs:
        taken = {name: text for name, text in pair.note.row.items() if not merged.get(name)}
        merged |= taken if taken.keys() - {"text_encoding"} else {}
    return merged
