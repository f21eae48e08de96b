"""An index of a benchmark's images, and the search for copies of them: same bytes, same pixels, re-encoded, cropped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from filters.overlap.windows import (
    NO_HASH,
    Hashes,
    Thumbnail,
    aligned,
    distances,
    thumbnail,
    window_hashes,
    windows,
)

Bits = npt.NDArray[np.uint8]
Kind = Literal["file", "pixels", "picture", "crop"]

DISTANCE = 12
"""Most bits by which the perceptual hashes of a copy's nearest crops differ. `benchmarks/overlap.py` measures it."""

CORRELATION, CHANGED = 0.9, 0.06
"""What a candidate must reach when both are laid over each other, see `filters.overlap.windows.Agreement`. Of
photographs that were encoded again, scaled, brightened or cropped at most 0.03 of the blocks are changed (one of 196:
0.07); of pages of other words on one template at least 0.086, at a correlation of up to 0.99."""

_FULL = 0.97  # a window of at least this share of the area is the whole picture
_CANDIDATES = 8  # images of the benchmark that are compared with a picture, nearest hashes first


class CopyMatch(NamedTuple):
    """A row of the benchmark of whose image a picture is a copy.

    Attributes:
        row: Number of the row, as it was added.
        kind: `file`: the same bytes. `pixels`: other bytes, the same pixels. `picture`: encoded again, scaled,
            brighter. `crop`: one is a part of the other.
        distance: Bits by which the perceptual hashes differ, 0 to 64; for crops, those of the nearest hashed crop.
    """

    row: int
    kind: Kind
    distance: int


class BenchmarkImage(NamedTuple):
    """What is kept of an image of the benchmark: 16 KB thumbnail, hashes."""

    row: int
    file: bytes
    pixels: bytes
    thumb: Thumbnail


class CopyIndex:
    """The images of a benchmark, all in memory: 18 KB for each that has other pixels than those before.

    A picture is compared with 225 crops of each image, and its own 225 crops with each image, by 64-bit perceptual
    hashes. The nearest are laid over each other. They must agree as a whole and in every part, so that a page made from
    the same template with other text is no copy.
    """

    def __init__(self, images: Iterable[BenchmarkImage]) -> None:
        self._images: list[BenchmarkImage] = []  # of several with the same pixels, the first
        self._rows: list[list[int]] = []  # for each of these, the rows that have it
        self._files: dict[bytes, list[int]] = {}  # rows
        self._pixels: dict[bytes, int] = {}
        for image in images:
            number = self._pixels.setdefault(image.pixels, len(self._images))
            if number == len(self._images):
                self._images.append(image)
                self._rows.append([])
            self._rows[number].append(image.row)
            self._files.setdefault(image.file, []).append(image.row)
        hashed = [window_hashes(image.thumb) for image in self._images]
        self._structured = np.array([bool(good[0]) for _, good in hashed], bool)
        self._hashes: Hashes = np.array([hashes for hashes, _ in hashed], np.uint64).reshape(-1, len(windows()))

    def __len__(self) -> int:
        """Number of images with different pixels."""
        return len(self._images)

    def search(self, encoded: bytes, picture: Image.Image, decode: Callable[[bytes], Image.Image]) -> list[CopyMatch]:
        """Return the rows of whose images a picture is a copy: the surest match of each, in their order.

        Args:
            encoded: The picture's bytes.
            picture: The picture, RGB and upright; its shorter side may be scaled down to 128 pixels.
            decode: Decodes the bytes with every pixel; called if a candidate was found.
        """
        if not self._images:
            return []
        found: dict[int, CopyMatch] = {}

        def add(rows: Iterable[int], kind: Kind, distance: int = 0) -> None:
            found.update({row: CopyMatch(row, kind, distance) for row in rows if row not in found})

        add(self._files.get(hashlib.sha256(encoded).digest(), ()), "file")
        thumb = thumbnail(picture)
        near = [match for match in self._near(thumb) if not found.keys() >= set(self._rows[match[0]])]
        if near or not _has_structure(thumb):
            number = self._pixels.get(pixel_hash(decode(encoded)))
            add(() if number is None else self._rows[number], "pixels")
        for number, kind, distance in near:
            add(self._rows[number], kind, distance)
        return [found[row] for row in sorted(found)]

    def _near(self, thumb: Thumbnail) -> Iterator[tuple[int, Kind, int]]:
        """Yield the images that a thumbnail agrees with, nearest first: number, kind, distance."""
        if not _has_structure(thumb):
            return
        own = window_hashes(thumb)[0]
        inside = distances(self._hashes, own[0])  # of their crops to the whole of this
        outside = np.bitwise_count(self._hashes[:, :1] ^ own[None])  # of their whole to crops of this
        best = np.minimum(inside.min(axis=1), outside.min(axis=1))
        best[~self._structured] = NO_HASH
        for number in np.argsort(best, kind="stable")[:_CANDIDATES].tolist():
            if best[number] > DISTANCE:
                return
            image = self._images[number]
            kind = _compared(image, thumb, inside[number], outside[number])
            if kind:
                yield number, kind, int(inside[number, 0] if kind == "picture" else best[number])


def _compared(image: BenchmarkImage, thumb: Thumbnail, inside: Bits, outside: Bits) -> Kind | None:
    """Lay a thumbnail and an image over each other; return what the one is of the other, None if no copy."""
    pairs = ((image.thumb, inside, thumb), (thumb, outside, image.thumb))
    for larger, bits, smaller in pairs:
        for number in np.argsort(bits, kind="stable")[:3].tolist():
            if bits[number] > DISTANCE:
                break
            window, agrees = aligned(larger, windows()[number], smaller)
            if agrees.correlation >= CORRELATION and agrees.changed <= CHANGED:
                return "picture" if window.area >= _FULL else "crop"
    return None


def benchmark_image(row: int, encoded: bytes, picture: Image.Image) -> BenchmarkImage:
    """Return what is kept of an image. `picture` has every pixel of it, RGB and upright."""
    return BenchmarkImage(row, hashlib.sha256(encoded).digest(), pixel_hash(picture), thumbnail(picture))


def pixel_hash(picture: Image.Image) -> bytes:
    """Return the SHA-256 of the size and pixels of an RGB picture."""
    return hashlib.sha256(b"%d %d " % picture.size + picture.tobytes()).digest()


def _has_structure(thumb: Thumbnail) -> bool:
    return bool(window_hashes(thumb)[1][0])
