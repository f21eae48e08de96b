"""The rows of a job as a choice of the ids that are alive: one byte per row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

_STEP = 256


@dataclass(frozen=True)
class Selection:
    """Some of many ids. Other arrays have a value for each id; its position is that of the id.

    Attributes:
        ids: All ids, int64, sorted, each once.
        chosen: Whether each of them is selected.
    """

    ids: npt.NDArray[np.int64]
    chosen: npt.NDArray[np.bool_]

    @classmethod
    def all_of(cls, rows: pl.DataFrame) -> Self:
        """Select all rows of a frame with the column `id`, in any order."""
        ids = rows["id"].to_numpy()
        if len(ids) > 1 and not rows["id"].is_sorted():
            ids = np.sort(ids)
        return cls(ids, np.ones(len(ids), bool))

    @property
    def height(self) -> int:
        """The number of selected ids."""
        return int(np.count_nonzero(self.chosen))

    def alive(self) -> pl.DataFrame:
        """Return all ids: column `id`, sorted."""
        return pl.DataFrame(pa.table({"id": self.ids}))  # polars copies numpy arrays

    def frame(self) -> pl.DataFrame:
        """Return the selected ids: column `id`, sorted."""
        return pl.DataFrame({"id": self.ids[self.chosen]})

    def with_ids(self, ids: pl.DataFrame) -> Self:
        """Return the rows that are selected, and those with these ids."""
        chosen = self.chosen.copy()
        chosen[self.positions(pa.chunked_array([ids["id"].to_arrow()]))[1]] = True
        return replace(self, chosen=chosen)

    def positions(self, ids: pa.ChunkedArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the row numbers of those `ids` that are in `self.ids`, in their order, and their positions there."""
        values = ids.to_numpy()
        if not len(self.ids):
            return np.array([], np.intp), np.array([], np.intp)
        by_value = np.argsort(values)  # neighbours are found near each other, mostly in the processor's cache
        found = np.empty(len(values), np.intp)
        found[by_value] = self._search(values[by_value])
        rows = np.flatnonzero(self.ids[found] == values)
        return rows, found[rows]

    def _search(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """Return the position of the last id that is not larger than each value, else 0: first among every 256th id."""
        place = np.maximum(np.searchsorted(self._every_256th, values, side="right") - 1, 0) * _STEP
        step = _STEP // 2
        while step:
            probe = np.minimum(place + step, len(self.ids) - 1)
            place = np.where(self.ids[probe] <= values, probe, place)
            step //= 2
        return place

    @cached_property
    def _every_256th(self) -> npt.NDArray[np.int64]:
        return self.ids[::_STEP].copy()
