"""Aspect ratio, shorter side and pixel count, from the image sizes in the index."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa

from core.stages import Stage
from manifests.schemas import column


class AspectRatio(Stage):
    """Aspect ratio and size of an image as displayed. The stage has no settings, so its facts never become outdated.

    The first step of VL3-Syn7M drops images of extreme aspect ratio (VideoLLaMA 3, arXiv 2501.13106, section 2.3);
    the paper gives no threshold.
    """

    name: ClassVar = "aspect_ratio"
    driver_rows: ClassVar = 100_000
    reads: ClassVar = ("width", "height")
    writes: ClassVar = pa.schema(
        [
            column("aspect_ratio", pa.float32(), "Longer side divided by shorter side", low=1),
            column("side", pa.int32(), "Shorter side, in pixels", low=1),
            column("pixels", pa.int64(), "Number of pixels: width × height", low=1),
        ]
    )

    def __call__(self, batch: pa.Table) -> pa.Table:
        width, height = (batch[name].to_numpy().astype(np.int64) for name in self.reads)
        short, long = np.minimum(width, height), np.maximum(width, height)
        return pa.table([(long / short).astype(np.float32), short.astype(np.int32), width * height], schema=self.writes)
