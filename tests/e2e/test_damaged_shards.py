"""Damage in the pages of published shards is an error, and nothing else is learned in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from model.training.data.shards import ShardSource
from model.training.metrics_log import read_metrics
from model.training.recipe import parse_recipe
from model.training.run import train
from tests.model.training import training_data
from tests.model.training.shard_files import write


def test_flipped_bit_of_a_shard_is_never_learned(tmp_path: Path) -> None:
    """Pages carry checksums: 40 single bits, each an error, or the samples are as they were."""
    file = write(tmp_path / "data", [[4]]) / "data/shard-00000.parquet"
    good = file.read_bytes()
    whole = [ShardSource("s", str(tmp_path / "data")).sample(row).conversation for row in range(4)]
    noticed = 0
    for bit in np.random.default_rng(0).integers(0, 8 * len(good), 40).tolist():
        broken = bytearray(good)
        broken[bit // 8] ^= 1 << bit % 8
        file.write_bytes(broken)
        try:
            source = ShardSource("s", str(tmp_path / "data"))
            assert [source.sample(row).conversation for row in range(4)] == whole, bit
        except ValueError:
            noticed += 1
    assert noticed > 30


def _recipe(tmp_path: Path) -> dict[str, Any]:
    """One epoch over shards of 16 images, 4 in a row group."""
    written = training_data.recipe(tmp_path, steps=None, epochs=1)
    return {**written, "stages": written["stages"][:1], "ask": 0}


def test_shard_damaged_during_training_is_named(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    file = tmp_path / "shards/data/shard-00001.parquet"
    start = pq.ParquetFile(file).metadata.row_group(2).column(1).data_page_offset
    broken = bytearray(file.read_bytes())
    broken[start : start + 64] = b"\xff" * 64
    file.write_bytes(broken)
    with pytest.raises(UserError) as raised:
        train(parse_recipe(recipe, "test"), tmp_path / "out")
    assert str(raised.value).startswith(f"captions: {file}: row group 2 is damaged: copy it again (")
    assert "\n" not in str(raised.value)


def test_bug_during_training_is_not_a_bad_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(*_: Any, **__: Any) -> Any:
        return np.zeros(3) + np.zeros(4)

    recipe = _recipe(tmp_path)
    monkeypatch.setattr("model.processor.plan_sizes", buggy)
    with pytest.raises(ValueError, match="operands could not be broadcast together") as raised:
        train(parse_recipe(recipe, "test"), tmp_path / "out")
    assert type(raised.value) is ValueError, "it shows its traceback"


def test_bad_image_of_a_shard_is_skipped_and_counted(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    file = tmp_path / "shards/data/shard-00000.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[5]["image"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file, row_group_size=4)
    recipe["sources"]["captions"]["held_out"] = 0
    train(parse_recipe(recipe, "test"), tmp_path / "out")
    steps = [record for record in read_metrics(tmp_path / "out") if record["kind"] == "step"]
    assert sum(step["samples"] for step in steps) == 39
    (line,) = [line for step in steps for line in step["skipped"]]
    assert line == (
        "captions: shard-00000.parquet row 5 (id 1005): cannot read image: not an image: begins with "
        "6e 6f 20 69 6d 61 67 65; give a whole JPEG, PNG or WebP file"
    )
