"""Damage in the pages of published shards is an error, and nothing else is learned in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.training.data.shards import ShardSource
from tests.model.training.shard_files import write


def test_no_flipped_bit_of_a_shard_is_learned(tmp_path: Path) -> None:
    """Pages carry checksums: 40 single bits, each an error, or the samples are as they were."""
    file = write(tmp_path / "data", [[4]]) / "data/shard-00000.parquet"
    data = file.read_bytes()
    whole = [ShardSource("s", str(tmp_path / "data")).sample(row).conversation for row in range(4)]
    noticed = 0
    for bit in np.random.default_rng(0).integers(0, 8 * len(data), 40).tolist():
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        file.write_bytes(broken)
        try:
            source = ShardSource("s", str(tmp_path / "data"))
            assert [source.sample(row).conversation for row in range(4)] == whole, bit
        except ValueError:
            noticed += 1
    assert noticed > 30
