"""The rows of a job as a choice of the ids that are alive: one byte per row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa


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
        return pl.DataFrame({"id": self.ids})

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
        by_value = np.argsort(values, kind="stable")  # neighbours are found near each other: the search is much faster
        sorted_values = values[by_value]
        place = np.searchsorted(self.ids, sorted_values)
        known = place < len(self.ids)
        known[known] = self.ids[place[known]] == sorted_values[known]
        at = np.full(len(values), -1, np.intp)
        at[by_value[known]] = place[known]
        rows = np.flatnonzero(at >= 0)
        return rows, at[rows]
