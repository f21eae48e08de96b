"""A stage in place of the earlier ones of a run of clips: captions, events and frames for tests of what reads them."""

from __future__ import annotations

import io
from typing import ClassVar

import pyarrow as pa
from PIL import Image

from core.stages import Stage
from manifests.schemas import column

EVENT = pa.struct([("start", pa.float32()), ("end", pa.float32()), ("text", pa.string())])


class ClipColumns(Stage):
    """Columns of a clip of the number in the image's name: `clip 7`, 10.7 seconds long.

    Attributes:
        missing: The number of a clip without caption and frames.
    """

    name: ClassVar = "clip_columns"
    reads: ClassVar = ("key",)
    driver_rows: ClassVar = 10_000
    writes: ClassVar = pa.schema(
        [
            column("duration", pa.float64(), "Length in seconds", 0),
            column("dense_caption", pa.string(), "A paragraph"),
            column("events", pa.list_(EVENT), "What happens when"),
            column("frames", pa.list_(pa.binary()), "JPEGs", bulky=True),
            column("frame_times", pa.list_(pa.float32()), "Seconds from the start", bulky=True),
        ]
    )

    missing: int = -1

    def __call__(self, batch: pa.Table) -> pa.Table:
        numbers = [int("".join(filter(str.isdigit, key))) for key in batch["key"].to_pylist()]
        return pa.Table.from_pylist([self._row(number) for number in numbers], schema=self.writes)

    def _row(self, number: int) -> dict[str, object]:
        if number == self.missing:
            return {"duration": 10.0}
        return {
            "duration": 10 + number / 10,
            "dense_caption": f"Clip {number}: a player runs, throws the ball, and falls down.",
            "events": [{"start": 0.0, "end": 4.5, "text": "runs"}, {"start": 4.5, "end": 9.0, "text": "falls down"}],
            "frames": [_jpeg(shade) for shade in (10, 200)],
            "frame_times": [0.0, 5.0],
        }


def _jpeg(shade: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 24), (shade, 90, 90)).save(data, "JPEG")
    return data.getvalue()
