"""Aspect ratio, shorter side and pixel count, from the image sizes in the index."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.stages import Stage
from manifests.schemas import column


class AspectRatio(Stage):
    """Aspect ratio and size of an image as displayed. The stage has no settings, so its facts never become outdated.

    The first step of VL3-Syn7M drops images of extreme aspect ratio (VideoLLaMA 3, arXiv 2501.13106, section 2.3);
    the paper gives no threshold. An image whose size is unknown, as a URL without one, has no values; it passes the
    rules, and can be judged when it has been downloaded.
    """

    name: ClassVar = "aspect_ratio"
    driver_rows: ClassVar = 100_000
    reads: ClassVar = ("width", "height")
    writes: ClassVar = pa.schema(
        [
            column("aspect_ratio", pa.float32(), "Longer side divided by shorter side", 1, passes_unknown=True),
            column("side", pa.int32(), "Shorter side, in pixels", 1, passes_unknown=True),
            column("pixels", pa.int64(), "Number of pixels: width × height", 1, passes_unknown=True),
        ]
    )

    def __call__(self, batch: pa.Table) -> pa.Table:
        unknown = pc.or_(pc.is_null(batch["width"]), pc.is_null(batch["height"])).to_numpy()
        width, height = (batch[name].fill_null(1).to_numpy().astype(np.int64) for name in self.reads)
        short, long = np.minimum(width, height), np.maximum(width, height)
        values = (long / short).astype(np.float32), short.astype(np.int32), width * height
        return pa.table([pa.array(value, mask=unknown) for value in values], schema=self.writes)
