"""A stage that makes a clip of each image: stored frames and times, as the stage `frames` stores them for clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pyarrow as pa

from core.stages import ImageStage
from manifests.schemas import column
from tests.conftest import jpeg

FRAMES = pa.schema(
    [
        column("frames", pa.list_(pa.binary()), "JPEGs", bulky=True),
        column("frame_times", pa.list_(pa.float32()), "Seconds from the clip's start", bulky=True),
        column("duration", pa.float64(), "Length of the clip in seconds", 0),
    ]
)


class FramesOfImages(ImageStage):
    """Three frames, one for each second: the image, and two pictures."""

    name: ClassVar = "frames_of_images"
    reads: ClassVar = ("encoded", "id")
    writes: ClassVar = FRAMES

    def measure(self, encoded: bytes, id_: int) -> Mapping[str, object]:  # type: ignore[override]
        frames = [encoded, jpeg(24, 16, id_ % 60_000), jpeg(24, 16, id_ % 50_000)]
        return {"frames": frames, "frame_times": [0.0, 1.0, 2.0], "duration": 3.0}
