"""Near-duplicates across the border of two clusters: `duplicates` compares only images within one cluster."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from clustering.duplicates import Duplicates, Method
from core.stages import Stage
from manifests.schemas import column, reference_column_of

PREFIX = "border_"


class Borders(Stage):
    """The pair of clusters that an image lies between: its nearest two, in either order. It has no settings."""

    name: ClassVar = "borders"
    driver_rows: ClassVar = 10_000
    reads: ClassVar = ("cluster", "second_cluster")
    writes: ClassVar = pa.schema(
        [column("border", pa.int64(), "The two nearest clusters: the smaller × 2³² + the larger", 0, nominal=True)]
    )

    def __call__(self, batch: pa.Table) -> pa.Table:
        first, second = (batch[name].cast(pa.int64()) for name in self.reads)
        pair = first, pc.coalesce(second, first)  # with a single cluster, there is no second one
        low, high = pc.min_element_wise(*pair), pc.max_element_wise(*pair)
        return pa.table([pc.add(pc.shift_left(low, 32), high)], schema=self.writes)


class BorderDuplicates(Duplicates):
    """`duplicates` among images that lie between the same two clusters, whichever of the two is nearest.

    A copy that was cropped or recoloured may be nearest to another centroid than its original. Mostly, both then have
    the same two nearest clusters. Rows that an earlier `duplicates` dropped are not compared again.

    Attributes:
        within: The column that holds the groups.
        by: As in `Duplicates`. `perceptual` reads no embeddings, so it is cheap.
    """

    name: ClassVar = "border_duplicates"

    within: str = "border"
    by: tuple[Method, ...] = ("perceptual",)

    @property
    def writes(self) -> pa.Schema:
        """The columns of `duplicates`, with the prefix `border_`."""
        return pa.schema([_renamed(field) for field in super().writes])


def _renamed(field: pa.Field) -> pa.Field:
    meta: dict[Any, Any] = dict(field.metadata or {})
    if reference_column := reference_column_of(field):
        meta[b"witness"] = (PREFIX + reference_column).encode()
    return field.with_name(PREFIX + field.name).with_metadata(meta)
