"""A filter of your own: how much of an image lies on an edge. Copy this file and change `measure`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFilter
from pydantic import Field

from core.errors import BadSampleError
from core.stages import ImageStage
from manifests.schemas import column


class Edges(ImageStage):
    """The share of pixels whose edge strength is above a threshold: low for blank and blurred images.

    Attributes:
        threshold: Edge strength, 1 to 255, from which a pixel counts.
    """

    name: ClassVar = "edges"
    writes: ClassVar = pa.schema([column("edges", pa.float32(), "Share of pixels on an edge", low=0, high=1)])

    threshold: int = Field(default=64, ge=1, le=255)

    def measure(self, image: Image.Image) -> dict[str, Any]:
        if min(image.size) < 3:
            raise BadSampleError("too small: an edge needs 3 x 3 pixels")
        strength = np.asarray(image.convert("L").filter(ImageFilter.FIND_EDGES))[1:-1, 1:-1]
        return {"edges": float((strength >= self.threshold).mean())}
