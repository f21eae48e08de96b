"""A pool of URLs: its index from metadata alone, and the columns of its files at some of their rows."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.schemas import INDEX
from manifests.storage import LEADS_OUT, NO_FILE, Folder
from pipeline.execution.index import open_pool
from pipeline.pools import Shard, pool_of
from pipeline.pools.base import image_id
from pipeline.pools.listing import shard_table, shards_of
from pipeline.pools.tables import ROWS_AT_ONCE, columns_at

Row = dict[str, Any]

URLS = ["http://x/0.jpg", "http://x/1.jpg", "http://x/2.jpg"]
GOOD: dict[str, Any] = {
    "id": [70, 80, 90],
    "url": URLS,
    "text": ["a fox", None, "ein Fuchs 🦊"],
    "width": [640, 300, 1],
    "height": [480, 200, 2**31 - 1],
    "image_phash": ["aa", "bb", "cc"],
}


def write(path: Path, take_out: str = "", **columns: Any) -> Path:
    """A Parquet file of three rows as COYO has them, with some columns put in place."""
    columns = {name: cells for name, cells in {**GOOD, **columns}.items() if name != take_out}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def index(folder: Path, **names: str) -> list[Row]:
    """The rows of the whole pool, checked for what holds of every index."""
    pool = pool_of(urls=str(folder), **names)
    listing = pool.listing()
    table = pool.index(listing.root, listing.shards)
    assert table.schema.equals(INDEX, check_metadata=True)
    table.validate(full=True)
    rows: list[Row] = table.to_pylist()
    assert {row["shard"] for row in rows} == set(listing.shards["path"].to_pylist())
    assert all(row["error"] or row["url"] for row in rows)
    assert all((row["width"] is None) == (row["height"] is None) for row in rows)
    for row in rows:
        assert row["format"] is row["animated"] is row["bytes"] is None
        assert "\n" not in (row["error"] or "")
    return rows


def not_utf8(*last: str) -> pa.Array:
    """Strings of two bytes, the last of which is not valid."""
    texts = [*(text.encode() for text in last), b"\xe9t"]
    offsets = struct.pack(f"<{len(texts) + 1}i", *range(0, 2 * len(texts) + 2, 2))
    return pa.Array.from_buffers(pa.string(), len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))])


# The index


def test_rows_are_built_from_the_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "part-0.parquet", sha256=["ff", None, "ee"])
    first, second, third = index(tmp_path)
    assert first == {
        **dict.fromkeys(INDEX.names),
        "id": image_id("part-0.parquet", "0"),
        "shard": "part-0.parquet",
        "key": "http://x/0.jpg",
        "offset": 0,
        "width": 640,
        "height": 480,
        "shard_bytes": path.stat().st_size,
        "sha256": "ff",
        "url": "http://x/0.jpg",
        "alt_text": "a fox",
        "retry": False,
    }
    assert (second["id"], second["offset"], second["alt_text"], second["sha256"]) == (
        *(image_id("part-0.parquet", "1"), 1),
        *(None, None),
    )
    assert (third["alt_text"], third["width"], third["height"]) == ("ein Fuchs 🦊", 1, 2**31 - 1)


def test_ids_are_read_from_a_column(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet")
    assert [row["id"] for row in index(tmp_path, id="id")] == [70, 80, 90]


def test_invalid_ids_of_a_column_are_errors(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", id=pa.array([2**63, None, 5], pa.uint64()))
    rows = index(tmp_path, id="id")
    assert [row["error"] for row in rows] == [
        "bad id: 9223372036854775808 in the column 'id'",
        "bad id: None in the column 'id'",
        None,
    ]
    assert [row["id"] for row in rows] == [image_id("0.parquet", "0"), image_id("0.parquet", "1"), 5]


@pytest.mark.parametrize("type_", [pa.int8(), pa.uint16(), pa.int64(), pa.uint64()])
def test_ids_of_any_integer_type_are_read(tmp_path: Path, type_: pa.DataType) -> None:
    write(tmp_path / "0.parquet", id=pa.array([7, 0, 9], type_))
    assert [row["id"] for row in index(tmp_path, id="id")] == [7, 0, 9]


def test_null_or_empty_url_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", url=[None, URLS[1], ""])
    rows = index(tmp_path)
    assert [row["key"] for row in rows] == ["0", URLS[1], "2"]
    assert [row["error"] for row in rows] == ["no url: the cell is null", None, "no url: the cell is empty"]


def test_equal_urls_are_separate_rows(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", url=[URLS[0]] * 3)
    write(tmp_path / "1.parquet", url=[URLS[0]] * 3)
    rows = index(tmp_path)
    assert len({row["id"] for row in rows}) == 6
    assert {row["error"] for row in rows} == {None}


@pytest.mark.parametrize(
    "width",
    [
        pytest.param([640, None, 1], id="null"),
        pytest.param([640, 0, 1], id="zero"),
        pytest.param([640, -5, 1], id="negative"),
        pytest.param([640, 2**31, 1], id="beyond 31 bits"),
        pytest.param(pa.array([640, 2**63, 1], pa.uint64()), id="beyond 63 bits"),
        pytest.param([640.0, None, 1.0], id="floats as pandas makes them"),
        pytest.param([640.0, float("nan"), 1.0], id="NaN"),
        pytest.param([640.0, float("inf"), 1.0], id="infinite"),
        pytest.param([640.0, 299.5, 1.0], id="fraction"),
    ],
)
def test_size_that_is_not_usable_is_unknown(tmp_path: Path, width: Any) -> None:
    write(tmp_path / "0.parquet", width=width)
    rows = index(tmp_path)
    assert [row["error"] for row in rows] == [None] * 3
    assert [(row["width"], row["height"]) for row in rows] == [(640, 480), (None, None), (1, 2**31 - 1)]
    assert [row["url"] for row in rows] == URLS


@pytest.mark.parametrize(
    "columns", [{"take_out": "height"}, {"height": ["480 px", "4e2", "-1"]}, {"height": [None] * 3}]
)
def test_list_without_usable_sizes_has_unknown_ones(tmp_path: Path, columns: Any) -> None:
    write(tmp_path / "0.parquet", **columns)
    rows = index(tmp_path)
    assert [(row["width"], row["height"], row["error"], row["url"]) for row in rows] == [
        (None, None, None, url) for url in URLS
    ]


@pytest.mark.parametrize("height", [[True] * 3, [[480]] * 3, [b"480"] * 3])
def test_size_column_of_another_type_is_named(tmp_path: Path, height: list[Any]) -> None:
    write(tmp_path / "0.parquet", height=height)
    assert {(row["width"], row["height"], row["error"]) for row in index(tmp_path)} == {(None, None, None)}
    said = open_pool(pool_of(urls=str(tmp_path)), str(tmp_path / "run")).image
    type_ = str(pa.array(height).type).replace("item", "element")
    assert said.startswith(f"no sizes in 0.parquet: column 'height' is {type_}, not numbers; they are unknown until")


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(["480", "200.0", " 1 "], id="texts"),
        pytest.param(pa.array(["480", "200", "1"], pa.string_view()), id="views"),
        pytest.param(pa.array(["480", "200", "1"]).dictionary_encode(), id="dictionary of texts"),
        pytest.param(pa.array([480, 200, 1], pa.decimal128(12, 2)), id="decimals"),
        pytest.param([480.0, 200.0, 1.0], id="floats"),
    ],
)
def test_sizes_of_any_type_are_read(tmp_path: Path, column: Any) -> None:
    write(tmp_path / "0.parquet", height=column)
    assert [(row["height"], row["error"]) for row in index(tmp_path)] == [(480, None), (200, None), (1, None)]


def test_lists_of_laion_and_datacomp_are_read(tmp_path: Path) -> None:
    texts, sizes = ["a", "b", "c"], {"wide": [640, 300, 1], "high": [480, 200, 5]}
    laion = {"URL": URLS, "TEXT": texts, "WIDTH": sizes["wide"], "HEIGHT": [480.0, 200.0, 5.0], "similarity": [0.3] * 3}
    datacomp = {"uid": ["0f" * 16] * 3, "url": URLS, "text": texts, "clip_b32_similarity_score": [0.3] * 3}
    datacomp |= {"original_width": sizes["wide"], "original_height": sizes["high"]}
    for name, columns in {"laion": laion, "datacomp": datacomp}.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    rows = index(tmp_path)
    assert [(row["url"], row["alt_text"], row["width"], row["height"], row["error"]) for row in rows] == [
        (*row, None) for row in zip(URLS, texts, sizes["wide"], sizes["high"], strict=True)
    ] * 2


def test_first_alt_text_present_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", caption=["c", "c", "c"], alt_text=["a", None, None], text=["t", "t", None])
    assert [row["alt_text"] for row in index(tmp_path)] == ["a", "t", "c"]


def test_columns_of_other_types_are_not_read(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", text=[1, 2, 3], sha256=[b"f", b"e", b"d"], error=["x"] * 3, retry=[True] * 3)
    assert [(row["alt_text"], row["sha256"], row["error"], row["retry"]) for row in index(tmp_path)] == [
        (None, None, None, False)
    ] * 3


@pytest.mark.parametrize("type_", [pa.large_string(), pa.string_view()])
def test_texts_of_any_type_are_read(tmp_path: Path, type_: pa.DataType) -> None:
    write(tmp_path / "0.parquet", url=pa.array(URLS, type_), text=pa.array(["a", None, ""], type_))
    assert [(row["url"], row["alt_text"]) for row in index(tmp_path)] == list(zip(URLS, ["a", None, ""], strict=True))


def test_texts_that_are_not_utf8_report_their_encoding(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", url=not_utf8("ab", "cd"), text=not_utf8("ef", "gh"))
    rows = index(tmp_path)
    assert [row["url"] for row in rows] == [row["key"] for row in rows] == ["ab", "cd", "ét"]
    assert [row["alt_text"] for row in rows] == ["ef", "gh", "ét"]
    assert [row["text_encoding"] for row in rows] == [None, None, "windows-1252"]


def test_utf16_in_a_column_of_bytes_is_decoded(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", text=pa.array(["a fox".encode("utf-16-le"), b"a cat", None], pa.binary()))
    rows = index(tmp_path)[:2]
    assert [(row["alt_text"], row["text_encoding"]) for row in rows] == [("a fox", "utf-16"), ("a cat", None)]


@pytest.mark.parametrize("name", ["url", "text", "width"])
def test_two_columns_of_one_name_are_an_error_row(tmp_path: Path, name: str) -> None:
    write(tmp_path / "0.parquet")
    table = pq.read_table(tmp_path / "0.parquet")
    column = table[name] if name in table.column_names else pa.array(["a"] * table.num_rows)
    pq.write_table(table.append_column(name, column).append_column(name, column), tmp_path / "0.parquet")
    (row,) = index(tmp_path)
    count = 2 + (name in table.column_names)
    assert row["error"] == f"unread Parquet: {count} columns are called {name!r}; none of its 3 rows were read"


def test_first_url_and_size_that_are_not_empty_are_taken(tmp_path: Path) -> None:
    columns = {"url": ["", None, "c"], "image_url": ["a", "b", "d"], "original_width": [7, 8, 9]}
    write(tmp_path / "0.parquet", **columns, width=[None, 0, 5])
    rows = index(tmp_path)
    assert [(row["url"], row["width"], row["error"]) for row in rows] == [
        ("a", 7, None),
        ("b", 8, None),
        ("c", 5, None),
    ]


def test_pool_of_several_batches_keeps_order_and_ids(tmp_path: Path) -> None:
    count = 2 * ROWS_AT_ONCE + 10
    urls = [f"http://x/{n}" for n in range(count)]
    whole = pa.table({"url": urls, "width": np.arange(count) + 1, "height": np.arange(count) + 2})
    pq.write_table(whole, tmp_path / "0.parquet", row_group_size=3000)
    rows = index(tmp_path)
    assert [(row["key"], row["offset"], row["width"]) for row in rows] == [(urls[n], n, n + 1) for n in range(count)]
    assert len({row["id"] for row in rows}) == count


def test_ids_depend_on_the_revision_not_on_other_shards(tmp_path: Path) -> None:
    for name in ("0.parquet", "1.parquet"):
        write(tmp_path / name)
    root, pool = Folder.at(tmp_path), pool_of(urls=str(tmp_path))

    def ids(*shards: Shard) -> list[int]:
        result: list[int] = pool.index(root, shard_table(shards))["id"].to_pylist()
        return result

    first, second = Shard("0.parquet", 1), Shard("1.parquet", 1)
    assert ids(first, second) == ids(first) + ids(second)
    assert not set(ids(first)) & set(ids(Shard("0.parquet", 1, revision="1")))


# Damage


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"", "broken Parquet", id="empty file"),
        pytest.param(b"PAR1PAR1", "broken Parquet", id="only its marks"),
        pytest.param(b"id,url\n1,http://x\n", "broken Parquet", id="CSV"),
        pytest.param(b"PAR1" + bytes(40) + b"\xff\xff\xff\x7fPAR1", "broken Parquet", id="a gigantic footer"),
    ],
)
def test_damaged_file_is_one_error_row(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "0.parquet").write_bytes(data)
    write(tmp_path / "1.parquet")
    broken, *rows = index(tmp_path)
    assert (broken["shard"], broken["key"], broken["offset"], broken["retry"]) == ("0.parquet", "", None, False)
    assert broken["error"].startswith(f"{said}: ")
    assert broken["error"].endswith("; 0 rows were read before it")
    assert [row["key"] for row in rows] == URLS


def test_rows_before_the_damage_are_kept(tmp_path: Path) -> None:
    count = 4 * ROWS_AT_ONCE
    urls = [f"http://x/{os.urandom(40).hex()}" for _ in range(count)]
    whole = pa.table({"url": urls, "width": [9] * count, "height": [9] * count})
    pq.write_table(whole, tmp_path / "0.parquet", row_group_size=ROWS_AT_ONCE, compression="snappy")
    data = (tmp_path / "0.parquet").read_bytes()
    start, end = int(len(data) * 0.6), int(len(data) * 0.8)
    flipped = bytes(255 - byte for byte in data[start:end])
    (tmp_path / "0.parquet").write_bytes(data[:start] + flipped + data[end:])
    *rows, last = index(tmp_path)
    assert [row["key"] for row in rows] == urls[: len(rows)]
    assert ROWS_AT_ONCE <= len(rows) < count
    assert (last["key"], last["id"]) == ("", image_id("0.parquet", ""))
    assert last["error"].endswith(f"; {len(rows):,} rows were read before it")


def test_list_with_more_text_than_its_limit_keeps_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many texts, each of which is allowed."""
    monkeypatch.setattr("pipeline.pools.url_files.text_limit", lambda length: 1 << 20)
    table = pa.table(
        {"url": [f"http://x/{n}" for n in range(3 * ROWS_AT_ONCE)], "caption": ["x" * 400] * 3 * ROWS_AT_ONCE}
    )
    pq.write_table(table, tmp_path / "0.parquet")
    *rows, last = index(tmp_path)
    assert 0 < len(rows) < table.num_rows
    assert [row["url"] for row in rows] == table["url"].to_pylist()[: len(rows)]
    assert last["error"].startswith("broken Parquet: decompression bomb: ")


def test_file_without_rows_is_one_error_row(tmp_path: Path) -> None:
    pq.write_table(pa.table(GOOD).slice(0, 0), tmp_path / "0.parquet")
    (row,) = index(tmp_path)
    assert (row["key"], row["error"]) == ("", "no images: a Parquet file without rows")


def test_shard_that_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    pool, root = pool_of(urls=str(tmp_path)), Folder.at(tmp_path)
    (row,) = pool.index(root, shard_table([Shard("gone.parquet", 9)])).to_pylist()
    assert (row["key"], row["retry"], row["shard_bytes"]) == ("", True, 9)
    assert row["error"].startswith("unreadable: ")
    (changed,) = pool.index(root, shard_table([Shard("gone.parquet", 9, revision="9")])).to_pylist()
    assert changed["shard_bytes"] == 0


@pytest.mark.timeout(20)
def test_link_out_of_the_pool_and_pipe_are_not_opened(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "secret.parquet")
    write(tmp_path / "pool" / "0.parquet")
    (tmp_path / "pool" / "1.parquet").symlink_to(outside)
    os.mkfifo(tmp_path / "pool" / "2.parquet")
    *rows, link, pipe = index(tmp_path / "pool")
    assert [row["url"] for row in rows] == URLS
    assert (link["shard"], link["error"], link["url"]) == ("1.parquet", LEADS_OUT, None)
    assert (pipe["shard"], pipe["error"], pipe["retry"]) == ("2.parquet", NO_FILE, False)


def test_later_shard_without_urls_is_one_error_row(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet")
    write(tmp_path / "1.parquet", take_out="url")
    *rows, last = index(tmp_path)
    assert [row["key"] for row in rows] == URLS
    assert (last["key"], last["shard"]) == ("", "1.parquet")
    assert last["error"].startswith("unread Parquet: no column 'url'")


# What is refused before anything runs


@pytest.mark.parametrize(
    ("columns", "names", "said"),
    [
        ({"take_out": "url"}, {}, r"^urls: 0\.parquet: no column 'url' \(there are id, text, width, "),
        ({"url": [1, 2, 3]}, {}, r"^urls: 0\.parquet: column 'url' is int64, not text$"),
        ({"take_out": "id"}, {"id": "id"}, r"^urls: 0\.parquet: no integer column 'id' \(there are url, "),
        ({"id": ["x", "y", "z"]}, {"id": "id"}, r"^urls: 0\.parquet: no integer column 'id' "),
    ],
)
def test_pool_without_its_columns_is_refused(tmp_path: Path, columns: Any, names: dict[str, str], said: str) -> None:
    write(tmp_path / "pool" / "0.parquet", **columns)
    with pytest.raises(ValueError, match=said) as caught:
        open_pool(pool_of(urls=str(tmp_path / "pool"), **names), str(tmp_path / "run"))
    assert "\n" not in str(caught.value)


def test_pool_of_urls_is_opened(tmp_path: Path) -> None:
    write(tmp_path / "pool" / "0.parquet")
    write(tmp_path / "pool" / "sub" / "1.parquet")
    (tmp_path / "pool" / "notes.txt").write_text("x")
    pool = pool_of(urls=str(tmp_path / "pool" / "**" / "*.parquet"), id="id")
    listing = open_pool(pool, str(tmp_path / "run"))
    assert listing.shards["path"].to_pylist() == ["0.parquet", "sub/1.parquet"]
    assert (pool.kind, pool.where) == ("urls", str(tmp_path / "pool" / "**" / "*.parquet"))
    assert pool.root() == listing.root


def test_broken_first_shard_does_not_refuse_the_pool(tmp_path: Path) -> None:
    (tmp_path / "0.parquet").write_bytes(b"no Parquet")
    assert len(open_pool(pool_of(urls=str(tmp_path)), str(tmp_path / "run")).shards) == 1


def test_pool_of_urls_has_no_image_column() -> None:
    with pytest.raises(ValueError, match="a pool of urls has no setting 'image'"):
        pool_of(urls="a", image="x")
    assert pool_of(urls="a", id="x").id == "x"


# Columns at rows


def numbered(count: int = 100) -> pa.Table:
    return pa.table(
        {
            "url": [f"http://x/{n}" for n in range(count)],
            "score": np.arange(count) / 2,
            "phash": pa.array([None if n % 7 == 0 else f"{n:x}" for n in range(count)]),
            "site": pa.array([f"s{n % 3}" for n in range(count)]).dictionary_encode(),
            "a.b": np.arange(count),
        }
    )


@pytest.fixture
def stored(tmp_path: Path) -> Folder:
    pq.write_table(numbered(), tmp_path / "0.parquet", row_group_size=13)
    return Folder.at(tmp_path)


ROWS: dict[str, list[int]] = {
    "all": list(range(100)),
    "backwards": list(range(99, -1, -1)),
    "one": [57],
    "both ends": [0, 99],
    "edges of row groups": [12, 13, 25, 26, 0, 99, 91, 90],
    "repeated": [50, 3, 50, 50, 3, 98],
    "of one row group": [14, 13, 20],
    "none": [],
}


@pytest.mark.parametrize("rows", [pytest.param(rows, id=kind) for kind, rows in ROWS.items()])
def test_columns_at_returns_the_requested_rows(stored: Folder, rows: list[int]) -> None:
    result = columns_at(stored, "0.parquet", ["phash", "score", "missing", "a.b"], np.array(rows, np.int64))
    assert result.column_names == ["phash", "score", "missing", "a.b"]
    assert result["missing"].type == pa.null()
    whole = numbered()
    wanted = {name: whole[name].take(pa.array(rows, pa.int64())).to_pylist() for name in ("phash", "score", "a.b")}
    assert result.to_pydict() == {**wanted, "missing": [None] * len(rows)}


def test_columns_at_returns_null_for_missing_columns(stored: Folder) -> None:
    result = columns_at(stored, "0.parquet", ["x", "y"], np.array([4, 2, 4]))
    assert result.to_pydict() == {"x": [None] * 3, "y": [None] * 3}
    assert columns_at(stored, "0.parquet", [], np.array([4])).num_columns == 0


def test_dictionary_columns_are_read_as_values(stored: Folder) -> None:
    result = columns_at(stored, "0.parquet", ["site"], np.array([99, 1]))
    assert (result["site"].type, result["site"].to_pylist()) == (pa.string(), ["s0", "s1"])


@pytest.mark.parametrize("type_", [pa.string_view(), pa.binary_view(), pa.list_(pa.string_view())])
def test_view_columns_are_read_as_values(tmp_path: Path, type_: pa.DataType) -> None:
    values: list[Any] = ["a", "b", None, "d"]
    if type_ == pa.binary_view():
        values = [b"a", b"b", None, b"d"]
    values = [[value] for value in values] if pa.types.is_list(type_) else values
    pq.write_table(pa.table({"x": pa.array(values, type_)}), tmp_path / "0.parquet")
    columns = columns_at(Folder.at(tmp_path), "0.parquet", ["x"], np.array([3, 0, 2]))
    assert columns["x"].to_pylist() == [values[3], values[0], values[2]]


def test_only_requested_row_groups_and_columns_are_read(stored: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[Any, Any]] = []
    read = pq.ParquetFile.iter_batches

    def spy(self: Any, rows: int, row_groups: Any, columns: Any) -> Any:
        for batch in read(self, rows, row_groups=row_groups, columns=columns):
            reads.append((row_groups, columns))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    columns_at(stored, "0.parquet", ["score", "missing"], np.array([99, 14, 13, 98]))
    assert reads == [([1], ["score"]), ([7], ["score"])]  # attempts, which look at the footer only, yield nothing


@pytest.mark.parametrize("row", [100, -1])
def test_row_beyond_the_file_is_an_error(stored: Folder, row: int) -> None:
    with pytest.raises(ValueError, match=r"^0\.parquet: has 100 rows, and row"):
        columns_at(stored, "0.parquet", ["score"], np.array([5, row]))


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "0.parquet").write_bytes(b"no Parquet at all")
    with pytest.raises(ValueError, match=r"^0\.parquet: "):
        columns_at(Folder.at(tmp_path), "0.parquet", ["score"], np.array([0]))
    with pytest.raises(FileNotFoundError):
        columns_at(Folder.at(tmp_path), "1.parquet", ["score"], np.array([0]))


def test_columns_of_a_pool_on_s3_are_read(bucket: str) -> None:
    data = io.BytesIO()
    pq.write_table(numbered(), data, row_group_size=13)
    boto3.client("s3").put_object(Bucket="vl3syn", Key="urls/sub/0.parquet", Body=data.getvalue())
    pool = pool_of(urls=f"{bucket}/urls/**/*.parquet")
    (shard,) = shards_of(pool.listing().shards)
    result = columns_at(pool.root(), shard.path, ["score", "missing"], np.array([99, 0, 14]))
    assert result.to_pydict() == {"score": [49.5, 0.0, 7.0], "missing": [None] * 3}
    rows = pool.index(pool.root(), shard_table([shard]))
    assert rows["url"].to_pylist() == numbered()["url"].to_pylist()
    assert set(rows["error"].to_pylist()) == {None}
