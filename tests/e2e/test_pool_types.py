"""Files of one pool that disagree on a column's type: each row is judged by its own file's type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.runs import run

pytestmark = pytest.mark.usefixtures("engine")


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_coyo_values_of_another_type_are_errors_of_their_rows(tmp_path: Path, order: str) -> None:
    faces: dict[str, Any] = {order[0]: pa.array([1, 2, 3]), order[1]: pa.array(["4", None, "6"])}
    (tmp_path / "pool").mkdir()
    for name, values in faces.items():
        urls = [f"https://x.org/{name}{number}.jpg" for number in range(3)]
        table = {"url": urls, "width": [300] * 3, "height": [300] * 3, "num_faces": values}
        pq.write_table(pa.table(table), tmp_path / "pool" / f"{name}.parquet")
    pool = {"urls": f"{tmp_path}/pool/*.parquet"}
    opened, _ = run({"name": "t", "pool": pool, "stages": [{"stage": "coyo"}]}, tmp_path / "run")
    facts = opened.facts("coyo").select("id", "coyo_faces", "error").collect()
    rows = opened.index.scan().select("id", "shard", "offset").collect().join(facts, on="id").sort("shard", "offset")
    bad = "bad metadata: num_faces is string, not a number"
    right = {order[0]: [(1, None), (2, None), (3, None)], order[1]: [(None, bad), (None, None), (None, bad)]}
    assert rows.select("coyo_faces", "error").rows() == [*right["a"], *right["b"]]
