"""Stage `AltCaption`: the alt text as the caption to train on. It asks no model."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from core.stages import Stage
from manifests.schemas import column


class AltCaption(Stage):
    """The alt text, published as the short caption: what a training without curation learns. Without one, an error."""

    name: ClassVar = "alt_caption"
    driver_rows: ClassVar = 100_000
    reads: ClassVar = ("alt_text",)
    writes: ClassVar = pa.schema([column("short_caption", pa.string(), "The alt text, as it came with the image")])

    def __call__(self, batch: pa.Table) -> pa.Table:
        texts = batch["alt_text"].to_pylist()
        errors = [None if text and text.strip() else "no alt text" for text in texts]
        captions = [None if error else text for text, error in zip(texts, errors, strict=True)]
        return pa.table({"short_caption": pa.array(captions, pa.string()), "error": pa.array(errors, pa.string())})
