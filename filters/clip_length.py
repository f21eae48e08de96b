"""Length of a clip, from its times in the index: rules drop pieces of films that are too short or too long."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from core.stages import Stage
from manifests.schemas import column


class ClipLength(Stage):
    """Length of a clip in seconds, and how much of its scene it leaves out. The stage has no settings.

    All pieces of a film are rows, also those of a few frames. `keep: {min: 2, max: 60}` drops the others with a reason:
    Panda-70M (arXiv 2402.19479) has clips of 2 to 60 s.
    """

    name: ClassVar = "clip_length"
    driver_rows: ClassVar = 100_000
    reads: ClassVar = ("start", "end", "scene_start", "scene_end")
    writes: ClassVar = pa.schema(
        [
            column("seconds", pa.float32(), "Length of the clip, in seconds", 0),
            column("trimmed", pa.float32(), "Seconds of the scene that the clip leaves out at its two ends", 0),
        ]
    )

    def __call__(self, batch: pa.Table) -> pa.Table:
        seconds = pc.subtract(batch["end"], batch["start"])
        trimmed = pc.subtract(pc.subtract(batch["scene_end"], batch["scene_start"]), seconds)
        return pa.table([each.cast(pa.float32()) for each in (seconds, trimmed)], schema=self.writes)
