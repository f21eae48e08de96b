"""Files of one pool that disagree on a column's type: each row is judged by its own file's type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.runs import run

pytestmark = pytest.mark.usefixtures("here")


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


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_stages_read_columns_of_lists_in_text_form(tmp_path: Path, form: str) -> None:
    lines = {
        "csv": ["url,num_faces,image_phash", "http://x/0,3,0f", "http://x/1", "http://x/2,,a1", "http://x/3,-1,7"],
        "jsonl": [
            '{"url": "http://x/0", "num_faces": 3, "image_phash": "0f"}',
            '{"url": "http://x/1"',
            '{"url": "http://x/2", "image_phash": "a1"}',
            '{"url": "http://x/3", "num_faces": -1, "image_phash": "7"}',
        ],
    }
    (tmp_path / f"list.{form}").write_text("\n".join(lines[form]))
    recipe = {"name": "t", "pool": {"urls": f"{tmp_path}/list.{form}"}, "stages": [{"stage": "coyo"}]}
    opened, jobs = run(recipe, tmp_path / "run")
    manifest = opened.manifest().sort("offset").collect()
    assert (jobs["index"].computed, jobs["coyo"].computed) == (4, 3)
    assert manifest.select("coyo_faces", "coyo_phash", "coyo_words", "status").rows() == [
        (3, "0f", None, "kept"),
        (None, None, None, "error"),
        (None, "a1", None, "kept"),
        (None, None, None, "error"),
    ]
    assert manifest["drop_reason"][3] == "bad metadata: num_faces is -1, not a whole number from 0"
    assert manifest["drop_reason"][1].startswith("bad row: line ")
