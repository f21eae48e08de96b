"""Images that a row holds itself, as Parquet of the `datasets` package does: `{"bytes": …, "path": …}`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.image_header import Header, check_length, read_header

FOLDER = "media"
"""Folder of embedded images, below the records."""


def take_embedded(entry: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, bytes]]:
    """Return an entry with a name in place of each embedded image, and the bytes by the key of their medium.

    Only `image` and `images` are looked at.
    """
    embedded: dict[str, bytes] = {}
    changed = dict(entry)
    for key in ("image", "images"):
        value = entry.get(key)
        listed = value if isinstance(value, list) else [value]
        names: list[Any] = []
        for number, one in enumerate(listed):
            if isinstance(one, Mapping) and isinstance(one.get("bytes"), bytes):
                embedded[f"i{number}"] = one["bytes"]
                names.append(str(one.get("path") or "embedded"))
            else:
                names.append(one.get("path") if isinstance(one, Mapping) else one)
        if value is not None:
            changed[key] = names
    return changed, embedded


def store(data: bytes, folder: Path | None) -> tuple[str, Header]:
    """Write an embedded image once, named by its hash; return its path relative to `folder`, and its header.

    Args:
        data: The encoded image, as it came.
        folder: Folder of the records; None: nothing is written.

    Raises:
        BadSampleError: It is too long, or not an image.
    """
    check_length(len(data))
    header = read_header(io.BytesIO(data))
    digest = hashlib.sha256(data).hexdigest()
    path = f"{FOLDER}/{digest[:2]}/{digest}.{header.format.lower()}"
    if folder is not None and not (folder / path).exists():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return path, header
