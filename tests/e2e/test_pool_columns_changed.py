"""Files of URLs that are sorted anew in place, with the same length: no stage reads another row's columns."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from tests.runs import run_here

pytestmark = pytest.mark.usefixtures("here")


def write(path: Path, numbers: Sequence[int]) -> None:
    """A list whose rows have 1 to 4 faces, with the same bytes in any order."""
    rows = [{"url": f"http://x/{number}", "num_faces": number} for number in numbers]
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(rows)
        if path.name.startswith("list.dictionary"):
            table = table.set_column(0, "url", table["url"].dictionary_encode())
        pq.write_table(table, path, compression="none", use_dictionary=False)
        return
    if path.suffix == ".jsonl":
        names = ("image_url", "url") if path.name == "list.later.jsonl" else ("url", "url")
        lines = [json.dumps({names[n % 2]: row["url"], "num_faces": row["num_faces"]}) for n, row in enumerate(rows)]
    else:
        lines = ["url,num_faces", *(f"{row['url']},{row['num_faces']}" for row in rows)]
    text = "".join(f"{line}\n" for line in lines)
    path.write_text(text.replace(",", "\t") if path.suffix == ".tsv" else text)


def faces(path: Path) -> dict[str, int]:
    """`num_faces` by URL, as a run stores them."""
    recipe = {"name": "t", "pool": {"urls": str(path)}, "stages": [{"stage": "coyo"}]}
    opened, _ = run_here(recipe, path.parent / "run")
    return dict(opened.manifest().select("url", "coyo_faces").collect().iter_rows())


def index_only(path: Path) -> None:
    run_here({"name": "t", "pool": {"urls": str(path)}, "stages": []}, path.parent / "run")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "later.jsonl", "a.parquet", "dictionary.parquet"])
def test_rows_sorted_anew_in_place_are_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"list.{name}"
    write(path, [1, 2, 3, 4])
    index_only(path)
    before = os.path.getsize(path)
    write(path, [4, 1, 2, 3])
    assert os.path.getsize(path) == before
    said = "has other rows at the same length (4 of 4 URLs differ): "
    with pytest.raises(UserError, match=f"^the pool's columns cannot be read: list.{re.escape(name + ' ' + said)}"):
        faces(path)
    write(path, [1, 2, 3, 4])
    assert faces(path) == {f"http://x/{number}": number for number in (1, 2, 3, 4)}


def test_list_of_another_length_is_indexed_again(tmp_path: Path) -> None:
    """What the error says: an empty line at the end."""
    path = tmp_path / "list.csv"
    write(path, [1, 2, 3, 4])
    index_only(path)
    write(path, [4, 1, 2, 3])
    path.write_text(path.read_text() + "\n")
    assert faces(path) == {f"http://x/{number}": number for number in (1, 2, 3, 4)}
