"""Check the images of a shard against what is stored about them: whether they are those that were judged."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

import pyarrow as pa

from core.errors import UserError
from core.image_header import BadImageError, check_length
from core.images import check_decodes
from manifests.contents import SHA256
from pipeline.pools.images import Failure


class ReadImage(NamedTuple):
    """An image that was read: its encoded bytes, and their SHA-256."""

    data: bytes
    digest: bytes


def hashed(image: bytes | Failure) -> ReadImage | Failure:
    """Return what was read, with its SHA-256."""
    return image if isinstance(image, Failure) else ReadImage(image, hashlib.sha256(image).digest())


def faults_of(
    chunk: pa.Table, images: Sequence[ReadImage | Failure], decoded: bool, removed: Collection[str] = ()
) -> dict[int, str]:
    """Return the rows that cannot be published, with the reason: the image has changed, is deleted or unusable.

    Args:
        chunk: Rows of the shard.
        images: The image of each row, or a Failure.
        decoded: Whether a stage has decoded every image.
        removed: SHA-256 of images that were removed on request, hexadecimal.

    Raises:
        UserError: An image cannot be read now, but may be readable later.
    """
    faults = {}
    for row, (image, known) in enumerate(zip(images, _known_contents(chunk), strict=True)):
        if isinstance(image, Failure):
            if image.deleted:
                faults[row] = "missing: the pool has deleted the image since it was indexed"
                continue
            if image.retry:
                raise UserError(f"publish: an image is {image.error}; what is written stays, run again to go on")
            faults[row] = image.error
        elif image.digest.hex() in removed:
            faults[row] = "removed: the same image as one that was removed on request"
        elif not known.fits(len(image.data), image.digest):
            faults[row] = "changed: the pool has other bytes there than those that were judged; index it again"
        elif bad := _unusable(image.data, decoded and known.seen is not None):
            faults[row] = bad
    return faults


def _unusable(image: bytes, decoded: bool) -> str | None:
    try:
        check_length(len(image))
        if not decoded:
            check_decodes(image)
    except BadImageError as error:
        return str(error)
    except MemoryError:
        return "too large: the memory does not hold it decoded"
    return None


class _KnownContent(NamedTuple):
    """What is stored about an image; None where nothing is.

    Attributes:
        seen: SHA-256 when the image was first read.
        indexed: Length in the index, in bytes.
        from_source: SHA-256 from the source, as a hexadecimal number.
        half: The hash by the stage `hashes`: the first 8 bytes of a SHA-256, as a signed integer.
    """

    seen: bytes | None
    indexed: int | None
    from_source: str | None
    half: int | None

    def fits(self, length: int, digest: bytes) -> bool:
        """Return whether an image with this length and SHA-256 is the same."""
        if self.seen is None and self.indexed is not None and length != self.indexed:
            return False
        return (
            self.seen in (None, digest)
            and (not self.from_source or self.from_source.lower() == digest.hex())
            and self.half in (None, int.from_bytes(digest[:8], "big", signed=True))
        )


def _known_contents(chunk: pa.Table) -> Iterator[_KnownContent]:
    """Yield what is stored about the image of each row."""
    halves = chunk["content_hash"].to_pylist() if "content_hash" in chunk.column_names else repeat(None)
    columns = (chunk[SHA256].to_pylist(), chunk["bytes"].to_pylist(), chunk["sha256"].to_pylist(), halves)
    return map(_KnownContent, *columns)
