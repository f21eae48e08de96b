"""The lengths of images that were read before, for the blocks of a job."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from manifests.contents import LENGTH, SHA256
from pipeline.execution.inputs import Source

DIGEST = "sha256"
"""The name under which `SeenLengths.downloaded` reads the digest of a downloaded image, as a hexadecimal text."""


@dataclass(frozen=True)
class SeenLengths:
    """Adds `seen_bytes` to a block: the driver reads the few parts of the contents table that the block is in.

    Attributes:
        contents: Reads `seen_bytes`, and `seen_sha256` of downloaded images.
        downloaded: Reads the digests of downloaded images. An image of another download, with other settings, of the
            same URL was not seen.
    """

    contents: Source
    downloaded: Source | None = None

    def add_to(self, block: pa.Table) -> pa.Table:
        """Return the block with `seen_bytes`, and without the numbers of parts that only this needs."""
        seen = self.contents.read(block)
        block = block.drop_columns([self.contents.part_column])
        lengths = pl.Series(seen[LENGTH])
        if self.downloaded:
            digests = pl.DataFrame({"seen": seen[SHA256], "now": self.downloaded.read(block)[DIGEST]})
            block = block.drop_columns([self.downloaded.part_column])
            same = digests.select(pl.col("seen").bin.encode("hex").eq_missing(pl.col("now")))
            lengths = lengths.set(~same.to_series(), None)
        return block.append_column(LENGTH, lengths.to_arrow())
