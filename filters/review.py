"""What people said about images on a page of `vl3syn review`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa

from core.stages import Stage
from manifests.schemas import column


class Review(Stage):
    """Marks of people. The stage itself says of every image that nobody has marked it; `review --marks` stores marks.

    `keep: {max: 0}` drops what anybody marked as wrong. Marks and notes are not published.
    """

    name: ClassVar = "review"
    driver_rows: ClassVar = 1_000_000
    published: ClassVar = False
    reads: ClassVar = ("format",)
    writes: ClassVar = pa.schema(
        [
            column("review_wrong", pa.int32(), "Number of people who marked the image or its captions as wrong", 0),
            column("review_good", pa.int32(), "Number of people who marked it as good", 0),
            column("review_unsure", pa.int32(), "Number of people who were unsure", 0),
            column("review_note", pa.string(), "What they wrote beside it; null if nothing"),
        ]
    )

    def __call__(self, batch: pa.Table) -> pa.Table:
        nobody = pa.array(np.zeros(batch.num_rows, np.int32))
        notes = pa.nulls(batch.num_rows, pa.string())
        return pa.table([nobody, nobody, nobody, notes], names=self.writes.names)
