"""Near-duplicates across the border of two clusters, which `duplicates`, within one cluster, does not see."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from clustering.duplicates import Duplicates, Method
from core.stages import Stage
from manifests.schemas import column, reference_column_of

PREFIX = "border_"


class Borders(Stage):
    """Which two clusters an image lies between: its own and the next nearest, in either order. It has no settings."""

    name: ClassVar = "borders"
    reads: ClassVar = ("cluster", "second_cluster")
    writes: ClassVar = pa.schema(
        [column("border", pa.int64(), "The smaller of its two nearest clusters × 2³², and the larger", 0, nominal=True)]
    )

    def __call__(self, batch: pa.Table) -> pa.Table:
        first, second = (batch[name].cast(pa.int64()) for name in self.reads)
        pair = first, pc.coalesce(second, first)  # there is no second one where there is one cluster
        low, high = pc.min_element_wise(*pair), pc.max_element_wise(*pair)
        return pa.table([pc.add(pc.shift_left(low, 32), high)], schema=self.writes)


class BorderDuplicates(Duplicates):
    """`duplicates` among the images that lie between the same two clusters, whichever of the two is theirs.

    A copy that was cropped or recoloured may be nearer to another centroid than its original. The two nearest clusters
    of both are then mostly the same two. Rows that an earlier `duplicates` has dropped are not compared again.

    Attributes:
        within: The column of the groups.
        by: As of `duplicates`; `perceptual` reads no embeddings, and so costs little beside them.
    """

    name: ClassVar = "border_duplicates"

    within: str = "border"
    by: tuple[Method, ...] = ("perceptual",)

    @property
    def writes(self) -> pa.Schema:
        """The columns of `duplicates`, called `border_…`."""
        return pa.schema([_renamed(field) for field in super().writes])


def _renamed(field: pa.Field) -> pa.Field:
    meta: dict[Any, Any] = dict(field.metadata or {})
    if reference_column := reference_column_of(field):
        meta[b"witness"] = (PREFIX + reference_column).encode()
    return field.with_name(PREFIX + field.name).with_metadata(meta)
