"""Index rows, and the helpers that all pool readers share to fill them from metadata and image headers."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

from core.image_header import BadImageError, check_length, read_header
from manifests.storage import Folder
from pipeline.pools.texts import decoded

Row = dict[str, Any]
"""Columns of the index for one image; missing ones are null."""

NOTES = {
    "url": ("url", "image_url", "img_url"),
    "sha256": ("sha256",),
    "alt_text": ("alt_text", "alttext", "alt", "txt", "text", "caption", "captions"),
    "license": ("license", "licence"),
}
"""Metadata columns of the index, each with the names that pools use for it, in any case. The first value that is not
empty counts. They are Parquet columns and JSON keys; the names of alt text are endings of side files too."""

SIZES = {"width": ("width", "original_width"), "height": ("height", "original_height")}
"""The same for sizes in pixels; used only for pools of URLs, which have no images yet."""

TEXT_LIMIT = 1 << 20
"""Bytes; longer alt text or metadata of one image is not read."""


def matching(names: Iterable[str], accepted: Sequence[str]) -> list[str]:
    """Return those of `names` that are in `accepted`, ignoring case, in the order of `accepted`."""
    ranks = {name: rank for rank, name in enumerate(accepted)}
    return sorted((n for n in names if n.lower() in ranks), key=lambda n: (ranks[n.lower()], n not in ranks))


_ACCEPTED = {name: (ours, rank) for ours, names in NOTES.items() for rank, name in enumerate(names)}


def note_names(names: Iterable[str], alt_text: str | None = None) -> dict[str, list[str]]:
    """Map columns of `NOTES` to those of `names` that hold them, best first. A given `alt_text` replaces its names."""
    ranked: dict[str, list[tuple[int, bool, str]]] = {}
    for name in names:
        ours, rank = _ACCEPTED.get(name.lower(), ("", 0))
        if alt_text is not None and (ours == "alt_text" or name.lower() == alt_text.lower()):
            ours, rank = ("alt_text" if name.lower() == alt_text.lower() else ""), int(name != alt_text)
        if ours:
            ranked.setdefault(ours, []).append((rank, name != name.lower(), name))
    return {ours: [name for _, _, name in sorted(those)] for ours, those in ranked.items()}


def notes_of(source: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> Row:
    """Return the index columns from a row or a JSON object; `names` is the result of `note_names`."""
    row: Row = {}
    for ours, theirs in names.items():
        for name in theirs:
            text, encoding = first_text(source.get(name))
            if text or (text is not None and ours not in row):
                row[ours] = text
            if text:
                row |= {"text_encoding": encoding} if encoding else {}
                break
    return row


def first_text(value: object) -> tuple[str | None, str | None]:
    """Return a text and its encoding (None for UTF-8) from a text, bytes, or a list: its first that is not empty.

    The text is None if the value is of another type or too long.
    """
    if isinstance(value, (str, bytes)) and len(value) > TEXT_LIMIT:
        return None, None
    if isinstance(value, str):
        return clean(value), None
    if isinstance(value, bytes):
        return decoded(value)
    if isinstance(value, list):
        texts = ((text, encoding) for item in value for text, encoding in [first_text(item)] if text)
        return next(texts, (None, None))
    return None, None


def measure(image: bytes | BinaryIO, length: int | None = None) -> Row:
    """Return size, format and error of one encoded image: its bytes, or a file (which is closed) and its length."""
    length = len(image) if isinstance(image, bytes) else length
    try:
        with io.BytesIO(image) if isinstance(image, bytes) else image as file:
            check_length(length or 0)
            header = read_header(file)
    except BadImageError as error:
        return {"bytes": length, "error": str(error)}
    return {
        "bytes": length,
        "width": header.width,
        "height": header.height,
        "format": header.format,
        "animated": header.animated,
        "error": header.bomb,
    }


def on_disk(root: Folder, path: str) -> BinaryIO:
    """Open the shard as a local file; a remote one is copied, since one long read is faster than one per header."""
    if root.local:
        return open(f"{root.path}/{path}", "rb")
    copy = tempfile.TemporaryFile()
    with root.filesystem.open_input_stream(
        f"{root.path}/{path}", compression=None
    ) as stream:  # as it is, unpacked later
        shutil.copyfileobj(stream, copy, 1 << 22)
    copy.seek(0)
    return copy  # type: ignore[return-value]


def alt_text_line(sources: Sequence[str], name: str, unread: Sequence[str] = ()) -> str:
    """Return the line for the log that says where the alt text of a pool is read from.

    Args:
        sources: Where it is, best first; empty: nowhere.
        name: The file that was searched.
        unread: What in that file looks like alt text but is none.
    """
    if not sources:
        why = "; ".join(unread) or f"it has none called {', '.join(NOTES['alt_text'])}"
        return f"no alt text in {name}: {why}; the pool's setting alt_text names another"
    return f"alt text from {' or '.join(sources)}" + (" (the first that is not empty)" if len(sources) > 1 else "")


def clean(text: str) -> str:
    """Escape lone surrogates (from tarfile's bytes that are not UTF-8, or JSON escapes): Arrow cannot store them."""
    return text.encode("utf-8", "backslashreplace").decode()
