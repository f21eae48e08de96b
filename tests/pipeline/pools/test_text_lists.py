"""Lists of URLs in text form: the same rows in every form, broken rows, packed files, and columns for stages."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.schemas import INDEX
from manifests.storage import LEADS_OUT
from pipeline.execution.index import open_pool
from pipeline.pools import pool_of
from pipeline.pools.base import image_id
from pipeline.pools.listing import shards_of
from pipeline.pools.tables import ROWS_AT_ONCE

Row = dict[str, Any]

ROWS: list[Row] = [
    {"url": "http://x/0.jpg", "caption": 'a "fox",\nin two lines', "width": 640, "height": 480, "score": 0.5},
    {"url": "http://x/1.jpg", "caption": None, "width": None, "height": 200, "score": None},
    {"url": "http://x/2.jpg", "caption": "ein Fuchs 🦊;\t|", "width": 3, "height": 4, "score": 7.0},
]
FORMS = ("csv", "tsv", "jsonl", "parquet")
PACKINGS = ("", ".gz", ".zst")


def encoded(rows: Sequence[Row], form: str) -> bytes:
    names = list(rows[0]) if rows else ["url"]
    out = io.BytesIO()
    if form == "parquet":
        pq.write_table(pa.table({name: [row[name] for row in rows] for name in names}), out)
        return out.getvalue()
    if form == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, delimiter="\t" if form == "tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def packed(data: bytes, packing: str) -> bytes:
    if packing == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        return bytes(sink.getvalue().to_pybytes())
    return gzip.compress(data) if packing == ".gz" else data


def index(folder: Path, **names: str) -> list[Row]:
    """The rows of the whole pool, checked for what holds of every index."""
    pool = pool_of(urls=str(folder), **names)
    listing = pool.listing()
    table = pool.index(listing.root, listing.shards)
    assert table.schema.equals(INDEX, check_metadata=True)
    table.validate(full=True)
    rows: list[Row] = table.to_pylist()
    assert {row["shard"] for row in rows} == set(listing.shards["path"].to_pylist())
    assert len({row["id"] for row in rows}) == len(rows)
    assert all("\n" not in (row["error"] or "") for row in rows)
    return rows


def index_of(folder: Path, name: str, data: bytes, **names: str) -> list[Row]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return index(folder / name, **names)


def columns(folder: Path, names: Sequence[str], rows: Sequence[int]) -> pa.Table:
    """`pool.X` of the only list of a pool."""
    pool = pool_of(urls=str(folder))
    listing = pool.listing()
    (shard,) = shards_of(listing.shards)
    return pool.columns(listing.root, shard.path, names, np.array(rows, np.int64))


# The same rows


def expected(rows: Sequence[Row]) -> list[Row]:
    """What the index says of `rows`, but for the file and the ids."""
    sized = [bool(row["width"] and row["height"]) for row in rows]
    return [
        {
            **dict.fromkeys(INDEX.names),
            "key": row["url"],
            "offset": number,
            "width": row["width"] if known else None,
            "height": row["height"] if known else None,
            "url": row["url"],
            "alt_text": row["caption"],
            "retry": False,
            **dict.fromkeys(("id", "shard", "shard_bytes")),
        }
        for number, (row, known) in enumerate(zip(rows, sized, strict=True))
    ]


def without_file(rows: Sequence[Row]) -> list[Row]:
    return [{**row, **dict.fromkeys(("id", "shard", "shard_bytes"))} for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_the_same_in_every_form(tmp_path: Path, form: str) -> None:
    for packing in PACKINGS if form != "parquet" else ("",):
        rows = index_of(tmp_path, f"list.{form}{packing}", packed(encoded(ROWS, form), packing))
        assert without_file(rows) == expected(ROWS)
        assert {(row["shard"], row["error"]) for row in rows} == {(f"list.{form}{packing}", None)}


CAPTIONS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
LISTS = st.lists(
    st.fixed_dictionaries(
        {
            "url": st.from_regex(r"https?://[a-z]{1,3}/[a-z0-9?=,;\"'|%]{0,9}", fullmatch=True),
            "caption": st.none() | CAPTIONS,
            "width": st.none() | st.integers(0, 2**31 - 1),
            "height": st.none() | st.integers(0, 2**31 - 1),
            "more": st.none() | st.integers(-(2**63), 2**63 - 1),
        }
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=25)
@given(rows=LISTS, form=st.sampled_from(FORMS), packing=st.sampled_from(PACKINGS))
def test_any_rows_are_the_same_in_every_form(
    rows: list[Row], form: str, packing: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    packing = "" if form == "parquet" else packing
    folder = tmp_path_factory.mktemp("lists")
    assert without_file(index_of(folder, f"list.{form}{packing}", packed(encoded(rows, form), packing))) == expected(
        rows
    )
    backwards = range(len(rows) - 1, -1, -1)
    stored = columns(folder, ["more", "missing"], backwards).to_pydict()
    assert stored == {"more": [rows[n]["more"] for n in backwards], "missing": [None] * len(rows)}


@pytest.mark.parametrize("packing", PACKINGS)
def test_plain_text_has_one_url_per_line(tmp_path: Path, packing: str) -> None:
    data = b"\xef\xbb\xbfhttp://x/0.jpg\r\n\n   \nhttp://x/1.jpg  \n# no comment\nhttp://x/2.jpg"
    rows = index_of(tmp_path, f"list.txt{packing}", packed(data, packing), alt_text="caption", url="link")
    assert [(row["url"], row["offset"], row["width"], row["error"]) for row in rows] == [
        ("http://x/0.jpg", 0, None, None),
        ("http://x/1.jpg", 1, None, None),
        ("# no comment", 2, None, None),
        ("http://x/2.jpg", 3, None, None),
    ]


def test_folder_and_glob_of_mixed_forms_are_pools(tmp_path: Path) -> None:
    for form in FORMS:
        (tmp_path / f"{form}.{form}").write_bytes(encoded(ROWS, form))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "text.txt.gz").write_bytes(packed(b"http://x/9.jpg\n", ".gz"))
    (tmp_path / "README.txt").write_text("These lists are mine.\nhttp://x/no-list\n")
    rows = [row for row in index(tmp_path) if row["shard"] != "README.txt"]
    text = rows.pop(-len(ROWS) - 1)
    assert (text["shard"], text["url"]) == ("sub/text.txt.gz", "http://x/9.jpg")
    assert without_file(rows) == expected(ROWS) * 4
    (readme,) = [row for row in index(tmp_path) if row["shard"] == "README.txt"]
    assert readme["error"] == ("unread plain text: its first line is no URL: 'These lists are mine.'; it was not read")
    assert open_pool(pool_of(urls=str(tmp_path)), str(tmp_path / "run")).shards.num_rows == 6
    assert {row["shard"] for row in index(tmp_path / "*.[ct]sv")} == {"csv.csv", "tsv.tsv"}


def test_other_files_in_a_folder_of_parquet_do_not_refuse_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"name,size\nb.parquet,3\n")
    (tmp_path / "b.parquet").write_bytes(encoded(ROWS, "parquet"))
    listing = open_pool(pool_of(urls=str(tmp_path)), str(tmp_path / "run"))
    assert listing.alt_text == "alt text from the column 'caption'"
    assert listing.shards["path"].to_pylist() == ["a.csv", "b.parquet"]
    other, *rows = index(tmp_path)
    assert other["error"].startswith("unread CSV: no column 'url' (there are name, size); ")
    assert without_file(rows) == expected(ROWS)


def test_file_of_an_unknown_ending_says_which_are_known(tmp_path: Path) -> None:
    (row,) = index_of(tmp_path, "list.lst", b"http://x/0.jpg\n")
    assert row["error"].startswith("broken Parquet: ")
    assert row["error"].endswith(
        "(a file that is not called *.csv or *.tsv or *.jsonl or *.ndjson or *.txt is read as Parquet)"
    )


def test_delimiter_is_that_of_the_header(tmp_path: Path) -> None:
    for delimiter in ",;\t|":
        data = f"url{delimiter}text\nhttp://x/0.jpg{delimiter}a fox\n".encode()
        (row,) = index_of(tmp_path, "list.csv", data)
        assert (row["url"], row["alt_text"]) == ("http://x/0.jpg", "a fox")


def test_list_on_s3_is_read(tmp_path: Path, bucket: str) -> None:
    for packing in PACKINGS:
        data = packed(encoded(ROWS, "csv"), packing)
        boto3.client("s3").put_object(Bucket="vl3syn", Key=f"lists/list.csv{packing}", Body=data)
    pool = pool_of(urls=f"{bucket}/lists")
    listing = open_pool(pool, str(tmp_path / "run"))
    assert listing.shards["path"].to_pylist() == ["list.csv", "list.csv.gz", "list.csv.zst"]
    assert without_file(pool.index(listing.root, listing.shards).to_pylist()) == expected(ROWS) * 3
    for path in listing.shards["path"].to_pylist():
        assert pool.columns(listing.root, path, ["score"], np.array([2, 0]))["score"].to_pylist() == [7.0, 0.5]


# Columns by the pool's settings


@pytest.mark.parametrize("form", FORMS)
def test_columns_are_named_by_the_settings(tmp_path: Path, form: str) -> None:
    rows = [{"Link": "http://x/0.jpg", "url": "page", "titel": "ein Fuchs", "text": "no", "uid": 2**63 - 1}]
    (row,) = index_of(tmp_path, f"list.{form}", encoded(rows, form), url="link", alt_text="titel", id="uid")
    assert (row["url"], row["alt_text"], row["id"], row["error"]) == ("http://x/0.jpg", "ein Fuchs", 2**63 - 1, None)


def test_unusable_ids_are_errors_of_their_rows(tmp_path: Path) -> None:
    data = b"uid,url\n7,http://x/0\nx7,http://x/1\n,http://x/2\n9223372036854775808,http://x/3\n1_0,http://x/4\n"
    rows = index_of(tmp_path, "list.csv", data, id="uid")
    bad = "bad id: {} in the column 'uid'"
    texts = ("'x7'", "null", "'9223372036854775808'", "'1_0'")
    assert [row["error"] for row in rows] == [None, *(bad.format(text) for text in texts)]
    assert rows[0]["id"] == 7


@pytest.mark.parametrize(
    ("name", "data", "names", "said"),
    [
        ("list.csv", b"http://x/0.jpg,a\n", {}, r"no column 'url' \(there are http://x/0\.jpg, a\)"),
        ("list.tsv", b"link\ttext\na\tb\n", {}, r"no column 'url' \(there are link, text\); `url: COLUMN` in the pool"),
        ("list.csv", b"url,text\na,b\n", {"url": "link"}, r"no column 'link' \(there are url, text\)"),
        ("list.csv", b"url,text\na,b\n", {"alt_text": "titel"}, r"alt_text: no column 'titel'"),
        ("list.csv", b"url,text\na,b\n", {"id": "uid"}, r"no integer column 'uid' \(there are url, text\)"),
        ("list.csv", b"url,url\na,b\n", {}, r"2 columns are called 'url'"),
        ("list.jsonl", b'{"a": 1}\n', {}, r"no column 'url' \(there are a\)"),
        ("list.txt", b"http://x/0.jpg\n", {"id": "uid"}, r"no integer column 'uid'"),
    ],
)
def test_list_without_its_columns_is_refused(
    tmp_path: Path, name: str, data: bytes, names: dict[str, str], said: str
) -> None:
    (row,) = index_of(tmp_path, name, data, **names)
    assert row["error"].startswith("unread ")
    with pytest.raises(ValueError, match=rf"^urls: {name}: {said}") as caught:
        open_pool(pool_of(urls=str(tmp_path / name), **names), str(tmp_path / "run"))
    assert "\n" not in str(caught.value)


def test_list_without_sizes_says_so_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"url,text\nhttp://x/0.jpg,a\n")
    listing = open_pool(pool_of(urls=str(tmp_path / "list.csv")), str(tmp_path / "run"))
    assert listing.alt_text == "alt text from the column 'text'"
    assert listing.image == (
        "no sizes in list.csv: it has no columns width and height; they are unknown until the images are downloaded"
    )


# Broken rows


def test_broken_rows_of_csv_are_errors_and_keep_their_numbers(tmp_path: Path) -> None:
    data = b'url,text\nhttp://x/0,"two\nlines"\nhttp://x/1\n\nhttp://x/2,b,c\nhttp://x/3,d\n,e\n'
    rows = index_of(tmp_path, "list.csv", data)
    assert [(row["offset"], row["key"], row["error"]) for row in rows] == [
        (0, "http://x/0", None),
        (1, "1", "bad row: line 4: 1 cells, and the header has 2"),
        (2, "2", "bad row: line 6: 3 cells, and the header has 2"),
        (3, "http://x/3", None),
        (4, "4", "no url: the cell is null"),
    ]
    assert columns(tmp_path, ["text"], [4, 3, 1, 0])["text"].to_pylist() == ["e", "d", None, "two\nlines"]


def test_quote_that_is_not_closed_is_said_and_reading_goes_on(tmp_path: Path) -> None:
    data = b'url,text\nhttp://x/0,"open\n' + b"http://x/1,b\n" * 20_000 + b'http://x/2,"c"\nhttp://x/3,"d'
    first, *rows, last_but_one, last = index_of(tmp_path, "list.csv", data)
    lines = int(first["error"].split("lines 2 to ")[1].split(":")[0].replace(",", ""))
    assert first["error"].endswith("a cell has more than 131,072 characters; is a quote not closed?")
    assert 10_000 < lines < 10_200
    assert (len(rows), {row["url"] for row in rows}) == (20_002 - lines, {"http://x/1"})
    assert (last_but_one["url"], last_but_one["error"]) == ("http://x/2", None)
    assert last["error"] == "bad row: line 20,004: a quote is not closed"


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_stray_quotes_do_not_join_rows_without_a_word(tmp_path: Path, form: str) -> None:
    data = b'url,text\nhttp://x/0,"Hello\nhttp://x/1,the "best" fox\nhttp://x/2,5" wide\nhttp://x/3,"A fox" - by me\n'
    rows = index_of(tmp_path, f"list.{form}", data.replace(b",", b"\t") if form == "tsv" else data)
    said = "text after a closing quote; is a quote not closed, or not doubled?"
    assert [(row["key"], row["alt_text"], row["error"]) for row in rows] == [
        ("0", None, f"bad row: lines 2 to 3: {said}"),
        ("http://x/2", '5" wide', None),
        ("2", None, f"bad row: line 5: {said}"),
    ]


JOINED = "a quote joins lines that are rows by themselves; is a quote not closed, or not doubled?"


@pytest.mark.parametrize("form", ["csv", "tsv"])
@pytest.mark.parametrize(
    ("header", "lines"),
    [
        ("url,text", ['http://x/0,"Hello', "http://x/1,b", 'http://x/2,TV 55"']),
        ("url,text", ['http://x/0,"Hello', 'http://x/2,TV 55"']),
        ("text,url", ['"Hello,http://x/0', "b,http://x/1", 'TV 55",http://x/2']),
        ("text,url", ['"Hello,http://x/0', 'TV 55",http://x/2']),
        ("url,text,n", ['http://x/0,"Hello,1', "http://x/1,b,2", 'http://x/2,TV 55",3']),
        ("url,text", ['"http://x/0,Hello', "http://x/1,b", 'http://x/2",TV']),
    ],
)
def test_rows_between_stray_quotes_are_an_error(tmp_path: Path, form: str, header: str, lines: Sequence[str]) -> None:
    after = dict.fromkeys(header.split(","), "c") | {"url": "http://x/9"}
    data = "\n".join([header, *lines, ",".join(after.values()), ""])
    rows = index_of(tmp_path, f"list.{form}", data.replace(",", "\t" if form == "tsv" else ",").encode())
    assert [(row["url"], row["error"]) for row in rows] == [
        (None, f"bad row: lines 2 to {len(lines) + 1}: {JOINED}"),
        ("http://x/9", None),
    ]


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("A fox\nin snow", "url"),
        ("A fox\nfrom http://y/1, in snow", "url"),
        ('by Jane\n\n"A fox", http://y/1', "url"),
        ("http://y/1\nhttp://y/2", "url"),
        ("A fox\nin snow", "text"),
        ("see, http://y/1 for more\nhttp://y/2", "text"),
    ],
)
def test_texts_of_several_lines_stay(tmp_path: Path, text: str, column: str) -> None:
    names = ["url", "text"] if column == "url" else ["text", "url"]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    writer.writerows({"url": f"http://x/{number}", "text": text} for number in range(3))
    rows = index_of(tmp_path, "list.csv", out.getvalue().encode())
    assert [(row["url"], row["alt_text"], row["error"]) for row in rows] == [
        (f"http://x/{number}", text, None) for number in range(3)
    ]


def test_broken_lines_of_json_are_errors_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [
        b'{"url": "http://x/0", "text": ["", "a", "b"], "width": "640", "height": 480.0}',
        b'{"url": "http://x/1"',
        b"",
        b'["http://x/2"]',
        b"[" * 100_000,
        b'{"url": 1' + b"0" * 5000 + b"}",
        b'{"url": "http://x/3\\ud800", "text": 5, "width": true, "height": NaN}',
        b'{"url": null, "text": "\xe9t"}',
        b'{"text": "a"}',
        b'{"url": "http://x/4", "later": {"a": 1}}',
    ]
    rows = index_of(tmp_path, "list.jsonl", b"\n".join(lines))
    assert [(row["key"], row["alt_text"], row["error"]) for row in rows] == [
        ("http://x/0", "a", None),
        ("1", None, "bad row: line 2: not JSON: Expecting ',' delimiter (character 22)"),
        ("2", None, "bad row: line 4: no JSON object"),
        ("3", None, "bad row: line 5: not usable JSON: a number of thousands of digits, or thousands of nested lists"),
        ("4", None, "bad row: line 6: not usable JSON: a number of thousands of digits, or thousands of nested lists"),
        ("http://x/3\\ud800", None, None),
        ("6", "ét", "no url: the cell is null"),
        ("7", "a", "no url: the cell is null"),
        ("http://x/4", None, None),
    ]
    assert [row["text_encoding"] for row in rows][5:7] == [None, "windows-1252"]
    assert [(row["width"], row["height"]) for row in (rows[0], rows[5])] == [(640, 480), (None, None)]
    assert columns(tmp_path, ["later", "text"], [8, 0, 1]).to_pydict() == {
        "later": ['{"a": 1}', None, None],
        "text": [None, '["", "a", "b"]', None],
    }


def test_list_of_broken_lines_only_has_a_row_for_each(tmp_path: Path) -> None:
    rows = index_of(tmp_path, "list.jsonl", b"{\n" * (ROWS_AT_ONCE + 1) + b'{"url": "http://x/0"}\n')
    assert (len(rows), rows[-1]["url"], rows[-1]["offset"]) == (ROWS_AT_ONCE + 2, "http://x/0", ROWS_AT_ONCE + 1)
    assert {row["error"][:14] for row in rows[:-1]} == {"bad row: line "}


@pytest.mark.parametrize("form", ["csv", "jsonl", "txt"])
def test_line_that_is_too_long_is_an_error_of_its_row(tmp_path: Path, form: str) -> None:
    long = b"x" * (5 << 20)
    rows = {"csv": b"url\nhttp://x/0\n%s\nhttp://x/1\n", "txt": b"http://x/0\n%s\nhttp://x/1\n"}
    rows["jsonl"] = b'{"url": "http://x/0"}\n{"url": "%s"}\n{"url": "http://x/1"}\n'
    line = 3 if form == "csv" else 2
    assert [(row["key"], row["error"]) for row in index_of(tmp_path, f"list.{form}", rows[form] % long)] == [
        ("http://x/0", None),
        ("1", f"bad row: line {line}: too long"),
        ("http://x/1", None),
    ]


def test_texts_that_are_not_utf8_report_their_encoding(tmp_path: Path) -> None:
    text = "url,text\nhttp://x/0,é\nhttp://x/1,b\n"
    for encoding, encodings in {
        "windows-1252": ["windows-1252", None],
        "utf-8-sig": [None, None],
        "utf-16": ["utf-16"] * 2,
    }.items():
        rows = index_of(tmp_path, "list.csv", text.encode(encoding))
        assert [(row["url"], row["alt_text"]) for row in rows] == [("http://x/0", "é"), ("http://x/1", "b")]
        assert [row["text_encoding"] for row in rows] == encodings
        assert columns(tmp_path, ["text"], [1, 0])["text"].to_pylist() == ["b", "é"]


# Damaged and hostile files


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_rows_before_a_truncation_are_kept(tmp_path: Path, packing: str) -> None:
    urls = [f"http://x/{os.urandom(40).hex()}" for _ in range(3 * ROWS_AT_ONCE)]
    data = packed("\n".join(["url,n", *(f"{url},7" for url in urls)]).encode(), packing)
    *rows, last = index_of(tmp_path, f"list.csv{packing}", data[: len(data) * 2 // 3])
    assert [row["url"] for row in rows] == urls[: len(rows)]
    assert len(rows) > ROWS_AT_ONCE
    assert (last["key"], last["url"]) == ("", None)
    assert last["error"].endswith(f"; {len(rows):,} rows were read before it")
    assert columns(tmp_path, ["n"], [len(rows) - 1])["n"].to_pylist() == [7]
    with pytest.raises(ValueError, match=rf"^list\.csv{packing}: "):
        columns(tmp_path, ["n"], [len(urls) - 1])


def bomb(packing: str, line: bytes) -> bytes:
    data = packed(b"http://x/0\n" + line * (66 << 10), packing)
    assert len(data) < 1 << 20
    return data


@pytest.mark.thorough  # as the next one, with the other compression
def test_decompression_bomb_is_one_error(tmp_path: Path) -> None:
    first, *_, last = index_of(tmp_path, "bomb.txt.zst", bomb(".zst", b"x" * 4095 + b"\n"))
    assert first["url"] == "http://x/0"
    assert last["error"].startswith("broken plain text: decompression bomb: ")


def test_bomb_on_s3_is_copied_packed_and_is_one_error(bucket: str) -> None:
    boto3.client("s3").put_object(Bucket="vl3syn", Key="bombs/bomb.txt.gz", Body=bomb(".gz", b"x" * 4096))
    pool = pool_of(urls=f"{bucket}/bombs")
    listing = pool.listing()
    first, last = pool.index(listing.root, listing.shards).to_pylist()
    assert first["url"] == "http://x/0"
    assert last["error"].startswith("broken plain text: decompression bomb: the list unpacks to more than 268,435,456")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("list.csv", b"", "no images: a CSV file without rows"),
        ("list.csv", b"url,text\n", "no images: a CSV file without rows"),
        ("list.jsonl", b"\n\n", "no images: a JSON Lines file without rows"),
        ("list.txt", b"", "no images: a plain text file without rows"),
        ("list.csv", "url\nhttp://x/0\n".encode("utf-16")[:-1], "broken CSV: 'utf-16-le' codec can't decode"),
        (
            "list.csv",
            "url,a\nhttp://x/0,b\n".encode("utf-16-le"),
            "broken CSV: the header has zero bytes, as UTF-16 has",
        ),
        (
            "list.csv",
            b"url," + b"x" * 132_000 + b"\nhttp://x/0,a\n",
            "broken CSV: the header cannot be read: field larger",
        ),
        ("list.csv", b"\x1f\x8b no gzip at all", "broken CSV: "),
        ("list.csv", b"a," * 10_000, "broken CSV: the header has 10,001 columns, more than 10,000"),
        ("list.csv", b'url,a\n"' + b'","\n' * 4_300_000, "broken CSV: the row that ends after line "),
        ("list.jsonl", b'{"url":"u"' + b"".join(b',"%d":0' % n for n in range(10_000)) + b"}", "broken JSON Lines: "),
        ("list.parquet", b"url\nhttp://x/0\n", "broken Parquet: "),
    ],
)
def test_unusable_list_is_one_error_row(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (row,) = index_of(tmp_path, name, data)
    assert (row["key"], row["retry"]) == ("", False)
    assert row["error"].startswith(said)


@pytest.mark.timeout(20)
def test_links_out_of_the_pool_and_pipes_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_bytes(encoded(ROWS, "csv"))
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "0.csv").symlink_to(tmp_path / "secret.csv")
    os.mkfifo(tmp_path / "pool" / "1.csv")
    link, pipe = index(tmp_path / "pool")
    assert (link["error"], pipe["error"].partition(":")[0]) == (LEADS_OUT, "not a file")


# Ids, and columns for stages


def test_ids_depend_on_what_the_row_says_not_on_its_place(tmp_path: Path) -> None:
    first = [*ROWS, ROWS[0]]
    before = index_of(tmp_path, "list.csv", encoded(first, "csv"))
    after = index_of(tmp_path, "list.csv", encoded([ROWS[2], {**ROWS[1], "caption": "new"}, *ROWS[:1] * 3], "csv"))
    ids = [row["id"] for row in before]
    assert after[0]["id"] == ids[2]
    assert [row["id"] for row in after][2:4] == [ids[0], ids[3]]
    assert not {after[1]["id"], after[4]["id"]} & set(ids)
    assert before[1]["id"] == image_id("list.csv", '["http://x/1.jpg", null, null, null, null, null, 0]')


def test_columns_have_the_type_that_the_whole_list_has(tmp_path: Path) -> None:
    cells = {
        "whole": ["1", "", "-3", "n/a"],
        "real": ["1", "2.5", "1e3", ""],
        "text": ["1", "2", "3", "x"],
        "code": ["007", "1", "2", "3"],
        "none": ["", "", "", ""],
    }
    rows = [{"url": f"http://x/{n}", **{name: cells[name][n] for name in cells}} for n in range(4)]
    (tmp_path / "list.csv").write_bytes(encoded(rows, "csv"))
    table = columns(tmp_path, list(cells), [2, 0, 2, 1])
    assert [str(type_) for type_ in table.schema.types] == ["int64", "double", "string", "string", "null"]
    assert table.to_pydict() == {
        "whole": [-3, 1, -3, None],
        "real": [1000.0, 1.0, 1000.0, 2.5],
        "text": ["3", "1", "3", "2"],
        "code": ["2", "007", "2", "1"],
        "none": [None] * 4,
    }
    with pytest.raises(ValueError, match=r"^list\.csv: has 4 rows, and row 4 is asked for"):
        columns(tmp_path, ["whole"], [0, 4])


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_columns_of_one_name_are_refused(tmp_path: Path, form: str) -> None:
    if form == "csv":
        (tmp_path / "list.csv").write_bytes(b"url,n,n\nhttp://x/0,1,2\n")
    else:
        pq.write_table(pa.table([["http://x/0"], [1], [2]], names=["url", "n", "n"]), tmp_path / "list.parquet")
    with pytest.raises(ValueError, match=rf"^list\.{form}: 2 columns are called 'n'"):
        columns(tmp_path, ["n"], [0])
