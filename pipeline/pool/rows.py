"""What every reader of a pool makes: rows of the index, as far as the source and the image's header tell them."""

from __future__ import annotations

import io
import shutil
import tempfile
from typing import Any, BinaryIO

from core.image_header import BadImageError, read_header
from manifests.storage import Folder
from pipeline.pool.listing import Shard

Row = dict[str, Any]
"""Some columns of the index; those missing are null."""

NOTES = {
    "url": "url",
    "sha256": "sha256",
    "caption": "alt_text",
    "alt_text": "alt_text",
    "license": "license",
    "licence": "license",
}
"""What sidecars and Parquet columns tell of an image, and the column of the index that it goes to."""


def measure(image: bytes | BinaryIO, length: int | None = None) -> Row:
    """Size, format and error of one encoded image: its bytes, or a file that is closed after and its length."""
    length = len(image) if isinstance(image, bytes) else length
    try:
        with io.BytesIO(image) if isinstance(image, bytes) else image as file:
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


def image_file(root: Folder, shard: Shard) -> Row:
    """The row of an image that is a file of its own."""
    image = open(f"{root.path}/{shard.path}", "rb") if root.local else root.read(shard.path)
    return {"key": shard.path, "offset": 0, **measure(image, shard.bytes)}


def on_disk(root: Folder, path: str) -> BinaryIO:
    """A local file with the shard's bytes: headers lie far apart, and one long read beats a request per image."""
    if root.local:
        return open(f"{root.path}/{path}", "rb")
    copy = tempfile.TemporaryFile()
    with root.filesystem.open_input_stream(f"{root.path}/{path}") as stream:
        shutil.copyfileobj(stream, copy, 1 << 22)
    copy.seek(0)
    return copy  # type: ignore[return-value]


def known(told: Row) -> Row:
    """The index's own columns out of a downloader's metadata."""
    return {ours: clean(told[theirs]) for theirs, ours in NOTES.items() if isinstance(told.get(theirs), str)}


def clean(text: str) -> str:
    """Lone surrogates (tarfile's bytes that are not UTF-8, JSON's escapes) written out: no column can hold them."""
    return text.encode("utf-8", "backslashreplace").decode()
