"""Two hashes of 64 bits per image: of its look (DCT hash), and of its bytes (SHA-256)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from PIL.Image import Image, Resampling

from core.stages import ImageFacts, ImageStage
from manifests.schemas import column

_BYTES = 8  # of a hash
_SCALED = 32  # pixels, width and height of what the DCT sees
_VISIBLE = 2  # grey levels


class Hashes(ImageStage):
    """What an image looks like and what its bytes are, each in 64 bits, to find copies by.

    `phash` is `imagehash.phash`, bit for bit: luma scaled to 32 × 32, of its DCT the 8 × 8 lowest frequencies, and of
    those the ones above their median (Krawetz 2011, "Looks Like It"; Zauner 2010, "Implementation and benchmarking of
    perceptual image hash functions", compares hashes of this kind). The number is signed; its bits in big-endian order
    are those of `imagehash`: `f"{phash % 2**64:016x}"` is `str(imagehash.phash(image))`. How many bits differ between
    two images (Hamming distance, 0 to 64) says how unlike they are: a copy that was scaled or compressed again differs
    in few, unrelated photographs in some 32, and a mirrored or turned copy is unrelated to it.

    It is null where there is nothing to hash: where the 32 × 32 luma varies by at most 2 of 255 grey levels along all
    rows or along all columns, as on blank images, plain gradients and stripes. Most of their DCT is zero, and its
    signs are rounding: all blank images would be copies of each other.

    `content_hash` is the first 64 bits of the SHA-256 of the encoded bytes, big-endian and signed. Two files that are
    equal have the same; among 700 million files that differ the chance that any two at all have the same is 1.3 %.

    A large JPEG is decoded at a reduced scale, at least 128 pixels on its shorter side, four times what the DCT sees,
    in a quarter of the time. That moved 0 or 2 of the 64 bits for all of 573 JPEGs made of the photographs of the demo
    at four sizes, and none for 87 % of them.
    """

    name: ClassVar = "hashes"
    reads: ClassVar = ("image", "encoded")
    writes: ClassVar = pa.schema(
        [
            column("phash", pa.int64(), "DCT hash of 64 bits (imagehash.phash); null: no structure", nominal=True),
            column("content_hash", pa.int64(), "First 64 bits of the SHA-256 of the encoded bytes", nominal=True),
        ]
    )

    def load(self) -> _Hasher:
        return _Hasher()


class Pair(NamedTuple):
    """The columns of one image, in the order of `Hashes.writes`."""

    phash: int | None
    content_hash: int


class _Hasher(ImageFacts):
    """`Hashes` at work; all of it happens in the threads."""

    side = 4 * _SCALED  # pixels; `Hashes` says what that costs

    def __init__(self) -> None:
        import imagehash  # noqa: F401  # brings SciPy: not in a thread, and not in the command line

        self.provenance = {name: version(name) for name in ("ImageHash", "pillow", "numpy", "scipy")}

    def prepare(self, image: Image, encoded: bytes) -> Pair:
        """An RGB image and the bytes that it was decoded from to their hashes."""
        return Pair(perceptual_hash(image), content_hash(encoded))

    def __call__(self, inputs: Sequence[Pair]) -> pa.Table:
        columns = [pa.array([pair[n] for pair in inputs], field.type) for n, field in enumerate(Hashes.writes)]
        return pa.table(columns, schema=Hashes.writes)


def perceptual_hash(image: Image) -> int | None:
    """`imagehash.phash` of an RGB image as a signed integer of 64 bits; None if the image has no structure."""
    import imagehash

    # Scaled here as imagehash would do it; of what is 32 × 32 already it takes every pixel as it is.
    luma = image.convert("L").resize((_SCALED, _SCALED), Resampling.LANCZOS)
    values = np.asarray(luma)
    if min(np.ptp(values, axis=0).max(), np.ptp(values, axis=1).max()) <= _VISIBLE:
        return None
    return _signed(np.packbits(imagehash.phash(luma).hash).tobytes())


def content_hash(encoded: bytes) -> int:
    """The first 64 bits of the SHA-256 of `encoded`, big-endian, as a signed integer."""
    return _signed(hashlib.sha256(encoded).digest()[:_BYTES])


def _signed(eight: bytes) -> int:
    return int.from_bytes(eight, "big", signed=True)
