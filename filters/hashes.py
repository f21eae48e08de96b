"""Two hashes of 64 bits per image: of its pixels (DCT hash), and of its bytes (SHA-256)."""

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

_BYTES = 8  # length of a hash
_SCALED = 32  # pixels, width and height of the DCT's input
_VISIBLE = 2  # grey levels; less variation is no structure


class Hashes(ImageStage):
    """A perceptual hash and a hash of the bytes, 64 bits each, to find copies.

    `phash` equals `imagehash.phash` bit for bit: the luma is scaled to 32 × 32, and a bit says whether one of the 8 × 8
    lowest frequencies of its DCT is above their median (Krawetz 2011, "Looks Like It"; Zauner 2010, "Implementation and
    benchmarking of perceptual image hash functions", compares hashes of this kind). The number is signed; its bits in
    big-endian order are those of `imagehash`: `f"{phash % 2**64:016x}"` is `str(imagehash.phash(image))`. The number of
    bits that differ (Hamming distance, 0 to 64) measures how different two images are: a scaled or recompressed copy
    differs in few bits, unrelated photographs in about 32, and a mirrored or rotated copy counts as unrelated.

    `phash` is null where there is no structure: the 32 × 32 luma varies by at most 2 of 255 grey levels along all rows
    or along all columns, as in blank images, plain gradients and stripes. Most of their DCT is zero, with signs from
    rounding: all blank images would be copies of each other.

    `content_hash` is the first 64 bits of the SHA-256 of the encoded bytes, big-endian and signed. Equal files have
    equal hashes; the chance that any two of 700 million different files share a hash is 1.3 %.

    Large JPEGs are decoded at a reduced scale, in a quarter of the time. The shorter side stays at least 128 pixels,
    four times the DCT's input. For 573 JPEGs, made from the demo's photographs at four sizes, that changed 0 or 2 of
    the 64 bits, and none for 87 % of them.
    """

    name: ClassVar = "hashes"
    preload: ClassVar = ("imagehash",)
    reads: ClassVar = ("image", "encoded")
    writes: ClassVar = pa.schema(
        [
            column("phash", pa.int64(), "Perceptual hash (imagehash.phash); null: no structure", nominal=True),
            column("content_hash", pa.int64(), "Hash of the file: first 64 bits of its SHA-256", nominal=True),
        ]
    )

    def load(self) -> _Hasher:
        return _Hasher()


class Pair(NamedTuple):
    """The columns of one image, in the order of `Hashes.writes`."""

    phash: int | None
    content_hash: int


class _Hasher(ImageFacts):
    """`ImageFacts` of `hashes`; `prepare` does all the work, in threads."""

    side = 4 * _SCALED  # pixels; `Hashes` describes the effect
    has_model = False

    def __init__(self) -> None:
        import imagehash  # noqa: F401  # imports SciPy: not in a thread, and not in the command line

        self.provenance = {name: version(name) for name in ("ImageHash", "pillow", "numpy", "scipy")}

    def prepare(self, image: Image, encoded: bytes) -> Pair:
        """Return the hashes of an RGB image and of the bytes that it was decoded from."""
        return Pair(perceptual_hash(image), content_hash(encoded))

    def __call__(self, inputs: Sequence[Pair]) -> pa.Table:
        columns = [pa.array([pair[n] for pair in inputs], field.type) for n, field in enumerate(Hashes.writes)]
        return pa.table(columns, schema=Hashes.writes)


def perceptual_hash(image: Image) -> int | None:
    """Return `imagehash.phash` of an RGB image as a signed 64-bit integer; None if the image has no structure."""
    import imagehash

    # Scaled as imagehash does it; imagehash leaves a 32 × 32 image unchanged.
    luma = image.convert("L").resize((_SCALED, _SCALED), Resampling.LANCZOS)
    values = np.asarray(luma)
    if min(np.ptp(values, axis=0).max(), np.ptp(values, axis=1).max()) <= _VISIBLE:
        return None
    return _signed(np.packbits(imagehash.phash(luma).hash).tobytes())


def content_hash(encoded: bytes) -> int:
    """Return the first 64 bits of the SHA-256 of `encoded`, big-endian, as a signed integer."""
    return _signed(hashlib.sha256(encoded).digest()[:_BYTES])


def _signed(eight: bytes) -> int:
    return int.from_bytes(eight, "big", signed=True)
