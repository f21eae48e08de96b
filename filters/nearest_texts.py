"""The texts nearest to an image, with the same result for an image in any batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Numbers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_AT_ONCE = 1 << 24  # cosines of a matrix product, 64 MiB
_PAIRS = 1 << 14  # pairs whose cosines are computed again at once
_MARGIN = 1e-4  # a matrix product in float32 is at most 5e-5 off: 768 products, each rounded by 6e-8 of it or less


class NearestTexts:
    """A search among the embeddings of texts, by matrix products on a device."""

    def __init__(self, vectors: npt.NDArray[np.float16], device: torch.device) -> None:
        """Hold the vectors twice: in float32 on the device, in float16 in memory.

        Args:
            vectors: Embeddings of length 1, (texts, dimensions).
            device: Where products are computed.
        """
        import torch

        self._exact = vectors
        self._columns = torch.from_numpy(vectors.astype(np.float32)).to(device).T

    def search(self, images: Vectors, count: int) -> tuple[Numbers, Vectors]:
        """Return the nearest texts of each image, nearest first; ties are sorted by number.

        The last bits of a matrix product depend on the shapes of the matrices. So it only selects candidates, all
        texts that may be among the nearest, whose cosines are then computed again in float64, pair by pair.

        Args:
            images: Length 1, (images, dimensions).
            count: Number of texts for each image, up to all.

        Returns:
            Numbers of texts, and cosines from -1 to 1 (float32), both (images, count).
        """
        rows = max(1, _AT_ONCE // self._exact.shape[0])
        numbers, cosines = np.empty((len(images), count), np.int64), np.empty((len(images), count), np.float32)
        for start in range(0, len(images), rows):
            part = slice(start, start + rows)
            numbers[part], cosines[part] = self._nearest(images[part], count)
        return numbers, cosines

    def _nearest(self, images: Vectors, count: int) -> tuple[Numbers, Vectors]:
        row, number = self._candidates(images, count)
        cosine = np.empty(len(row), np.float32)
        for start in range(0, len(row), _PAIRS):
            pairs = slice(start, start + _PAIRS)
            image, text = images[row[pairs]].astype(np.float64), self._exact[number[pairs]].astype(np.float64)
            cosine[pairs] = np.einsum("nd,nd->n", image, text).clip(-1, 1)
        order = np.lexsort((number, -cosine, row))
        first = np.searchsorted(row, np.arange(len(images)))  # `row` is sorted
        chosen = order[first[:, None] + np.arange(count)]
        return number[chosen], cosine[chosen]

    def _candidates(self, images: Vectors, count: int) -> tuple[Numbers, Numbers]:
        """Return pairs of image and text, sorted by image: at least the `count` nearest of each image."""
        import torch

        with torch.inference_mode():
            products = torch.from_numpy(images).to(self._columns.device) @ self._columns
            lowest = products.topk(count, dim=1).values[:, -1:]
            pairs = torch.nonzero(products >= lowest - _MARGIN).cpu().numpy()
        return pairs[:, 0], pairs[:, 1]
