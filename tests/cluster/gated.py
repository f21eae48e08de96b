"""A stage that waits at some images until a file is there, so that a test can look at a job that is under way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
from PIL.Image import Image

from core.stages import ImageStage
from manifests.schemas import column


class Gated(ImageStage):
    """Upright images wait for the file `gate`."""

    name: ClassVar = "gated"
    gate: str
    writes: ClassVar = pa.schema([column("pixels", pa.int32(), "Pixels", 0)])

    def measure(self, image: Image) -> Mapping[str, object]:
        while image.height > image.width and not Path(self.gate).exists():
            time.sleep(0.05)
        return {"pixels": image.width * image.height}
