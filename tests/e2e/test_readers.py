"""Shards become rows: tars, Parquet files and img2dataset's output, whole, damaged or made to do harm."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manifests.schemas import INDEX
from manifests.storage import Folder
from pipeline.pools import Pool, Shard, pool_of
from pipeline.pools.base import image_id
from pipeline.pools.listing import shard_table
from pipeline.pools.parquet_rows import parquet_rows
from pipeline.pools.side_files import stem
from pipeline.pools.tars import tar_rows

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:PIL"), pytest.mark.timeout(60)]

Row = dict[str, Any]
BLOCK = 512
END = bytes(2 * BLOCK)


@functools.cache
def picture(width: int = 40, height: int = 30) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height)).save(data, "PNG")
    return data.getvalue()


def index(pool: Pool) -> list[Row]:
    """The rows of the whole pool, checked for what holds of every index."""
    listing = pool.listing()
    table = pool.index(listing.root, listing.shards)
    assert table.schema.equals(INDEX, check_metadata=True)
    rows: list[Row] = table.to_pylist()
    assert {row["shard"] for row in rows} == set(listing.shards["path"].to_pylist())
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row["error"] or row["width"] for row in rows)
    return rows


def summary(row: Row) -> str:
    """`a.png 40x30`, `a.png: cut off`, or both; the key is empty where a row is about the shard."""
    size = f" {row['width']}x{row['height']}" if row.get("width") else ""
    error = f": {row['error'].partition(':')[0]}" if row.get("error") else ""
    return f"{row['key']}{size}{error}"


# Tars


def member(name: str, data: bytes = b"", **fields: Any) -> bytes:
    """One member with its padding; `fields` go into its header as they are, `format` into how it is written."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    format_ = fields.pop("format", tarfile.GNU_FORMAT)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(format_, "utf-8", "surrogateescape") + data + bytes(-len(data) % BLOCK)


def image(name: str, **fields: Any) -> bytes:
    return member(name, picture(), **fields)


def pax(records: dict[str, str], type_: bytes = tarfile.XHDTYPE) -> bytes:
    """A pax header for what follows."""
    text = b""
    for key, value in records.items():
        rest = f" {key}={value}\n".encode("utf-8", "surrogateescape")
        length = len(rest) + len(str(len(rest)))
        length = len(rest) + len(str(length))
        text += str(length).encode() + rest
    return member("pax", text, type=type_)


def long_name(size: int, data: bytes = b"", type_: bytes = tarfile.GNUTYPE_LONGNAME) -> bytes:
    return member("././@LongLink", data, type=type_, size=size)


def rehashed(header: bytes) -> bytes:
    """A header block with its checksum put right."""
    blank = header[:148] + b" " * 8 + header[156:BLOCK]
    return blank[:148] + f"{sum(blank):06o}\0 ".encode() + blank[156:] + header[BLOCK:]


def bad_checksum(data: bytes) -> bytes:
    return data[:148] + b"0000000\0" + data[156:]


def with_size_field(field: bytes) -> bytes:
    data = image("b.png")
    return rehashed(data[:124] + field.ljust(12, b"\0") + data[136:])


def old_sparse(extended: int) -> bytes:
    """A member in GNU's old sparse format, whose map goes on in the next block or not."""
    data = image("b.png", type=tarfile.GNUTYPE_SPARSE)
    field = b"00000000000\0"
    return rehashed(data[:386] + field * 2 + bytes(482 - 410) + bytes([extended]) + b"00000000777\0" + data[495:])


A, B, C = image("a.png"), image("b.png"), image("c.png")
A_OK, B_OK, C_OK = "a.png 40x30", "b.png 40x30", "c.png 40x30"
BROKEN = ": broken tar"
LONG = "deep/" * 60 + "a.png"

TARS: list[tuple[str, bytes | Callable[[], bytes], list[str]]] = [
    ("whole", A + B + END, [A_OK, B_OK]),
    ("one zero block at its end", A + B + bytes(BLOCK), [A_OK, B_OK]),
    ("padded to a record", A + B + bytes(20 * BLOCK), [A_OK, B_OK]),
    ("nested directories", member("x", type=tarfile.DIRTYPE) + image("x/y/z/a.png") + END, ["x/y/z/a.png 40x30"]),
    ("texts are no images", member("a.txt", b"x") + member("a.json", b"{}") + A + member("a.cls", b"1") + END, [A_OK]),
    ("upper case and no ending", image("A.PNG") + image("b") + END, ["A.PNG 40x30", "b 40x30"]),
    # Names
    ("name that climbs", image("../../../up.png") + B + END, ["../../../up.png 40x30", B_OK]),
    ("absolute name", image("/tmp/vl3syn-absolute.png") + B + END, ["/tmp/vl3syn-absolute.png 40x30", B_OK]),
    ("name of GNU's long kind", image(LONG) + B + END, [f"{LONG} 40x30", B_OK]),
    ("name of pax's kind", image(LONG, format=tarfile.PAX_FORMAT) + B + END, [f"{LONG} 40x30", B_OK]),
    ("pax name in UTF-8", image("é🦊.png", format=tarfile.PAX_FORMAT) + END, ["é🦊.png 40x30"]),
    ("name that is not UTF-8", image("caf\udce9.png") + B + END, ["caf\\udce9.png 40x30", B_OK]),
    ("pax name that is not UTF-8", pax({"path": "\udcff.png"}) + A + B + END, ["\\udcff.png 40x30", B_OK]),
    ("name with a newline", image("a\nb.png") + END, ["a\nb.png 40x30"]),
    ("empty name", image("") + B + END, [" 40x30", B_OK]),
    ("empty name in a broken tar", image("") + B, [" 40x30", B_OK, BROKEN]),
    ("pax name of 10,000 letters", pax({"path": "n" * 10_000}) + A + END, ["n" * 10_000 + " 40x30"]),
    ("global pax name for all", pax({"path": "g.png"}, tarfile.XGLTYPE) + A + B + END, ["g.png 40x30"] * 2),
    # Members that are no files
    ("symlink", member("l.png", type=tarfile.SYMTYPE, linkname="/etc/passwd") + B + END, ["l.png: link", B_OK]),
    ("hard link", A + member("l.png", type=tarfile.LNKTYPE, linkname="a.png") + END, [A_OK, "l.png: link"]),
    ("link to itself", member("l.png", type=tarfile.LNKTYPE, linkname="l.png") + B + END, ["l.png: link", B_OK]),
    ("character device", member("d.png", type=tarfile.CHRTYPE, devmajor=1) + B + END, ["d.png: not a file", B_OK]),
    ("block device", member("d.png", type=tarfile.BLKTYPE, devmajor=8) + B + END, ["d.png: not a file", B_OK]),
    ("pipe", member("p.png", type=tarfile.FIFOTYPE) + B + END, ["p.png: not a file", B_OK]),
    ("directory named as an image", member("d.png", type=tarfile.DIRTYPE) + B + END, [B_OK]),
    ("text that is a link", member("a.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd") + A + END, [A_OK]),
    ("unknown type", image("a.png", type=b"Z") + B + END, ["a.png: not a file", B_OK]),
    # Twice
    ("duplicate name", A + image("a.png") + B + END, [A_OK, "a.png 40x30", B_OK]),
    ("two tars in one file", A + END + B + END, [A_OK, BROKEN]),
    ("garbage behind the end", A + END + b"x" * 99, [A_OK, BROKEN]),
    # Cut off
    ("empty file", b"", [BROKEN]),
    ("zeros only", bytes(20 * BLOCK), [": no images"]),
    ("100 zeros", bytes(100), [BROKEN]),
    ("texts only", member("a.txt", b"x") + END, [": no images"]),
    ("cut between members", A + B, [A_OK, B_OK, BROKEN]),
    ("cut in the data", (A + image("b.png", size=9000))[:-9], [A_OK, "b.png: cut off", BROKEN]),
    ("cut in the first data", image("a.png", size=9000), ["a.png: cut off", BROKEN]),
    ("cut in the padding", (A + B)[:-1], [A_OK, B_OK, BROKEN]),
    ("cut in a header", A + B[:100], [A_OK, BROKEN]),
    ("cut in the first header", A[:100], [BROKEN]),
    ("cut behind a long name", A + image(LONG)[:BLOCK], [A_OK, BROKEN]),
    ("cut behind a pax header", A + pax({"path": "b.png"}), [A_OK, BROKEN]),
    ("cut in a text", A + member("a.txt", b"x" * 900)[:-800], [A_OK, BROKEN]),
    # Headers that lie
    ("bad checksum in the middle", A + bad_checksum(B) + C + END, [A_OK, BROKEN]),
    ("bad checksum at the start", bad_checksum(A) + B + END, [BROKEN]),
    ("garbage between members", A + b"\xa5" * BLOCK + B + END, [A_OK, BROKEN]),
    ("bad header behind a long name", A + long_name(6, b"b.png\0") + bad_checksum(B) + END, [A_OK, BROKEN]),
    ("member of -1 bytes", A + member("b.png", size=-1) + C + END, [A_OK, BROKEN]),
    ("member that leads back to itself", A + member("b.png", size=-BLOCK) + C + END, [A_OK, BROKEN]),
    ("pax size that leads back", A + pax({"size": "-2048"}) + B + END, [A_OK, BROKEN]),
    ("global pax size below zero", pax({"size": "-5"}, tarfile.XGLTYPE) + A + END, [BROKEN]),
    ("pax size of no number", pax({"size": "many"}) + A + B + END, ["a.png: empty", BROKEN]),
    ("member of 2**40 bytes", A + image("b.png", size=1 << 40), [A_OK, "b.png: cut off", BROKEN]),
    ("member of 2**60 bytes", A + image("b.png", size=1 << 60), [A_OK, "b.png: cut off", BROKEN]),
    ("member of 2**80 bytes", A + image("b.png", size=1 << 80), [A_OK, BROKEN]),
    ("pax size of 2**80 bytes", A + pax({"size": str(1 << 80)}) + B, [A_OK, BROKEN]),
    ("text of 2**60 bytes", A + member("b.txt", b"x", size=1 << 60), [A_OK, BROKEN]),
    ("size in base 256", with_size_field(b"\x80" + len(picture()).to_bytes(11, "big")) + C + END, [B_OK, C_OK]),
    ("size of no digits", A + with_size_field(b"12345z") + C + END, [A_OK, BROKEN]),
    ("long name of 2**60 bytes", A + long_name(1 << 60) + B + END, [A_OK, BROKEN]),
    ("long name of 50 GB", A + long_name(50_000_000_000) + B + END, [A_OK, BROKEN]),
    ("long name of -1 bytes", A + long_name(-1) + B + END, [A_OK, BROKEN]),
    ("long link of 2**60 bytes", A + long_name(1 << 60, type_=tarfile.GNUTYPE_LONGLINK) + B + END, [A_OK, BROKEN]),
    ("pax header of 2**60 bytes", A + member("p", type=tarfile.XHDTYPE, size=1 << 60) + B + END, [A_OK, BROKEN]),
    ("pax header of 4 MB of digits", A + member("p", b"1" * 4_000_000, type=tarfile.XHDTYPE) + B, [A_OK, BROKEN]),
    ("pax header of length 0", A + member("p", b"0 path=b.png\n", type=tarfile.XHDTYPE) + B + END, [A_OK, BROKEN]),
    ("pax header of garbage", A + member("p", b"\xff" * 99, type=tarfile.XHDTYPE) + B + END, [A_OK, B_OK]),
    ("thousands of long names in a row", A + long_name(6, b"b.png\0") * 5000 + B + END, [A_OK, BROKEN]),
    ("thousands of pax headers in a row", A + pax({"path": "b.png"}) * 5000 + B + END, [A_OK, BROKEN]),
    ("sparse member", A + old_sparse(0) + C + END, [A_OK, "b.png: sparse member", C_OK]),
    ("sparse member cut in its map", A + old_sparse(1)[:BLOCK], [A_OK, BROKEN]),
    ("pax sparse map of no numbers", A + pax({"GNU.sparse.map": "a,b"}) + B + END, [A_OK, BROKEN]),
    ("pax sparse map that is short", A + pax({"GNU.sparse.size": "9"}) + B + END, [A_OK, "b.png: sparse member"]),
    # Not a tar
    ("compressed", lambda: gzip.compress(A + END), [": compressed tar"]),
    ("an image", picture(), [BROKEN]),
    ("HTML", b"<!doctype html><html>404</html>" * 40, [BROKEN]),
    ("Parquet", b"PAR1" + bytes(600) + b"PAR1", [BROKEN]),
]


def bytes_of(make: bytes | Callable[[], bytes]) -> bytes:
    return make if isinstance(make, bytes) else make()


@pytest.mark.parametrize(("make", "said"), [pytest.param(make, said, id=kind) for kind, make, said in TARS])
def test_tar_gives_the_expected_rows(tmp_path: Path, make: bytes | Callable[[], bytes], said: list[str]) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(bytes_of(make))
    with path.open("rb") as file:
        rows = list(tar_rows(file))
    assert [summary(row) for row in rows] == said
    assert [summary(row) for row in tar_rows(io.BytesIO(path.read_bytes()))] == said
    assert all("\n" not in (row["error"] or "") for row in rows)

    indexed = index(pool_of(tars=str(path)))
    assert [row["retry"] for row in indexed] == [False] * len(said)
    assert [row["key"] for row in indexed] == [row["key"] for row in rows]
    assert sorted(os.listdir(tmp_path)) == ["0.tar"]


def test_tar_is_not_unpacked_to_disk(tmp_path: Path) -> None:
    outside = tmp_path / "absolute.png"
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "0.tar").write_bytes(image("../up.png") + image(str(outside)) + image("in/a.png") + END)
    rows = index(pool_of(tars=str(tmp_path / "pool")))
    assert [summary(row) for row in rows] == ["../up.png 40x30", f"{outside} 40x30", "in/a.png 40x30"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.tar", "pool"]


def test_offset_is_the_position_of_the_image(tmp_path: Path) -> None:
    data = image(LONG) + member("a.txt", b"x" * 700) + B + END
    for row in tar_rows(io.BytesIO(data)):
        assert data[row["offset"] :].startswith(picture())
        assert row["bytes"] == len(picture())


def test_later_member_of_the_same_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(A + image("a.png") + image("a.png") + B + END)
    rows = index(pool_of(tars=str(tmp_path)))
    assert [summary(row) for row in rows] == [A_OK, f"{A_OK}: duplicate name", f"{A_OK}: duplicate name", B_OK]


def test_ids_do_not_depend_on_the_shards_read_before(tmp_path: Path) -> None:
    for name in ("0.tar", "1.tar"):
        (tmp_path / name).write_bytes(A + image("a.png") + END)
    root = Folder.at(tmp_path)
    pool, first, second = pool_of(tars=str(tmp_path)), Shard("0.tar", 1), Shard("1.tar", 1)
    together = pool.index(root, shard_table([first, second]))["id"].to_pylist()
    assert together == [
        i for shard in (first, second) for i in pool.index(root, shard_table([shard]))["id"].to_pylist()
    ]
    assert len(set(together)) == 4


def test_broken_tar_with_a_nameless_member_keeps_its_message(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(image("") + image("") + bad_checksum(B))
    _, second, last = index(pool_of(tars=str(tmp_path)))
    assert second["error"].startswith("duplicate name")
    assert "bad header" in last["error"]


def test_broken_tar_reports_its_position_and_rows_read() -> None:
    *_, last = tar_rows(io.BytesIO(A + B + bad_checksum(C)))
    assert f"at byte {len(A + B):,}" in last["error"]
    assert "2 images were read before it" in last["error"]


ABOUT = {"url": "http://x/a", "caption": "a fox", "sha256": "ff", "width": 9, "key": "a"}

NOTES: list[tuple[str, bytes, Row]] = [
    ("text before", member("a.txt", b" a fox\n") + A, {"alt_text": "a fox", "url": None}),
    ("text behind", A + member("a.txt", "ein Fuchs 🦊".encode()), {"alt_text": "ein Fuchs 🦊"}),
    ("JSON before", member("a.json", json.dumps(ABOUT).encode()) + A, {"url": "http://x/a", "alt_text": "a fox"}),
    ("JSON behind", A + member("a.json", json.dumps(ABOUT).encode()), {"url": "http://x/a", "sha256": "ff"}),
    ("JSON does not tell the size", A + member("a.json", b'{"width": 9, "error": "x", "id": 5}'), {"error": None}),
    ("of another image", A + member("b.txt", b"a fox"), {"alt_text": None}),
    ("of another folder", image("x/a.png") + member("y/a.txt", b"a fox"), {"alt_text": None}),
    ("up to the first dot", image("x.y/a.seg.png") + member("x.y/a.txt", b"a fox"), {"alt_text": "a fox"}),
    ("text of Windows-1252", A + member("a.txt", b"caf\xe9"), {"alt_text": "café", "text_encoding": "windows-1252"}),
    (
        "text of Shift-JIS",
        A + member("a.txt", b"\x83\x81\x83\x8f"),
        {"alt_text": "\ufffd" * 4, "text_encoding": "unknown"},
    ),
    (
        "JSON of Windows-1252",
        A + member("a.json", b'{"url": "caf\xe9"}'),
        {"url": "café", "text_encoding": "windows-1252"},
    ),
    (
        "JSON of UTF-16",
        A + member("a.json", '{"url": "café"}'.encode("utf-16")),
        {"url": "café", "text_encoding": "utf-16"},
    ),
    (
        "UTF-8 with its mark",
        A + member("a.txt", b"\xef\xbb\xbfcaf\xc3\xa9"),
        {"alt_text": "café", "text_encoding": None},
    ),
    ("broken JSON", A + member("a.json", b'{"url": "http'), {"url": None}),
    ("empty JSON", A + member("a.json"), {"url": None}),
    ("JSON list", A + member("a.json", b'["url", "x"]'), {"url": None}),
    ("JSON null", A + member("a.json", b"null"), {"url": None}),
    ("JSON of other types", A + member("a.json", b'{"url": 5, "caption": ["x"], "sha256": {}}'), {"url": None}),
    ("JSON of lone surrogates", A + member("a.json", b'{"url": "\\ud800x"}'), {"url": "\\ud800x"}),
    ("deep JSON", A + member("a.json", b"[" * 500_000), {"url": None}),
    ("JSON of a gigantic number", A + member("a.json", b'{"url": ' + b"9" * 9000 + b"}"), {"url": None}),
    ("text above 1 MiB", A + member("a.txt", b"x" * ((1 << 20) + 1)), {"alt_text": None}),
    ("text with NUL", A + member("a.txt", b"a\0b"), {"alt_text": "a\0b"}),
    ("image name that is not UTF-8", image("\udce9.png") + member("\udce9.txt", b"a fox"), {"alt_text": "a fox"}),
]


@pytest.mark.parametrize(("data", "said"), [pytest.param(data, said, id=kind) for kind, data, said in NOTES])
def test_texts_beside_an_image_of_a_tar_are_read(tmp_path: Path, data: bytes, said: Row) -> None:
    (tmp_path / "0.tar").write_bytes(data + END)
    (row,) = index(pool_of(tars=str(tmp_path)))
    assert {key: row[key] for key in said} == said
    assert (row["width"], row["height"], row["error"]) == (40, 30, None)


def test_stem_removes_the_last_ending() -> None:
    assert [stem(key) for key in ("a.b.c", "x.y/a.b", "a", "/a.b", "..")] == ["a", "x.y/a", "a", "/a", ""]


# Parquet

HF = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.table(columns), data, **options)
    return data.getvalue()


def images(type_: str = "binary", count: int = 2) -> pa.Array:
    return pa.array([picture(40 + n, 30) for n in range(count)], pa.type_for_alias(type_))


def cells(*values: Any, type_: pa.DataType = HF) -> pa.Array:
    return pa.array(values, type_)


def struct_of(**fields: Any) -> pa.DataType:
    return pa.struct(fields)


def not_utf8(count: int = 2) -> pa.Array:
    """Strings of which the last is not valid."""
    data = b"ok" * (count - 1) + b"\xe9t"
    offsets = struct.pack(f"<{count + 1}i", *range(0, 2 * count + 2, 2))
    return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def flipped(data: bytes, at: float, length: int) -> bytes:
    """Bytes inverted at that part of the file."""
    start = int(len(data) * at)
    return data[:start] + bytes(255 - byte for byte in data[start : start + length]) + data[start + length :]


TWO = ["0 40x30", "1 41x30"]
BAD, UNREAD = ": broken Parquet", ": unread Parquet"
PARQUETS: list[tuple[str, bytes | Callable[[], bytes], dict[str, str], list[str]]] = [
    ("binary", lambda: parquet({"image": images()}), {}, TWO),
    ("large_binary", lambda: parquet({"image": images("large_binary")}), {}, TWO),
    ("binary_view", lambda: parquet({"image": images("binary_view")}), {}, TWO),
    ("any name", lambda: parquet({"n": [1, 2], "jpg": images(), "t": ["a", "b"]}), {}, TWO),
    (
        "struct as Hugging Face writes it",
        lambda: parquet({"image": cells({"bytes": picture(), "path": "x/a.png"}, {"bytes": picture(), "path": None})}),
        {},
        ["x/a.png 40x30", "1 40x30"],
    ),
    (
        "equal paths",
        lambda: parquet({"image": cells(*[{"bytes": picture(), "path": "a.png"}] * 2)}),
        {},
        [A_OK, A_OK],
    ),
    (
        "path that is a number",
        lambda: parquet(
            {"i": cells({"bytes": picture(), "path": 7}, type_=struct_of(bytes=pa.binary(), path=pa.int8()))}
        ),
        {},
        ["0 40x30"],
    ),
    (
        "struct without path",
        lambda: parquet({"i": cells({"bytes": picture()}, type_=struct_of(bytes=pa.binary()))}),
        {},
        ["0 40x30"],
    ),
    ("null cell", lambda: parquet({"i": cells(None, picture(), type_=pa.binary())}), {}, ["0: null image", "1 40x30"]),
    ("null struct", lambda: parquet({"i": cells(None, {"bytes": picture()})}), {}, ["0: null image", "1 40x30"]),
    ("null bytes and a path", lambda: parquet({"i": cells({"path": "/etc/passwd"})}), {}, ["/etc/passwd: null image"]),
    (
        "only nulls",
        lambda: parquet({"i": cells(None, None, type_=pa.binary())}),
        {},
        ["0: null image", "1: null image"],
    ),
    (
        "no image in a cell",
        lambda: parquet({"i": [b"", b"<html>", picture()]}),
        {},
        ["0: empty", "1: not an image", "2 40x30"],
    ),
    (
        "many rows",
        lambda: parquet({"i": [picture()] * 300}, row_group_size=100),
        {},
        [f"{n} 40x30" for n in range(300)],
    ),
    # The image column
    ("two candidates", lambda: parquet({"a": images(), "b": images()}), {}, [UNREAD]),
    ("two candidates, one named", lambda: parquet({"a": [b"x", b"y"], "b": images()}), {"image": "b"}, TWO),
    ("no candidate", lambda: parquet({"a": [1, 2], "b": ["x", "y"]}), {}, [UNREAD]),
    ("named column missing", lambda: parquet({"a": images()}), {"image": "b"}, [UNREAD]),
    ("named column of text", lambda: parquet({"b": [".", "a.jpg"]}), {"image": "b"}, ["0: no image", "1: no image"]),
    ("list of images", lambda: parquet({"a": pa.array([[picture()]], pa.list_(pa.binary()))}), {}, ["0 40x30"]),
    (
        "struct in a struct",
        lambda: parquet({"a": cells({"bytes": {"bytes": b""}}, type_=struct_of(bytes=HF))}),
        {},
        [UNREAD],
    ),
    ("no columns", lambda: parquet({}), {}, [UNREAD]),
    ("no rows", lambda: parquet({"a": images(count=0)}), {}, [": no images"]),
    ("odd column names", lambda: parquet({"a.b": images(), "": [1, 2], "url.x": ["a", "b"]}), {}, TWO),
    # Ids
    ("id", lambda: parquet({"a": images(), "n": [7, 8]}), {"id": "n"}, TWO),
    ("negative id", lambda: parquet({"a": images(), "n": [-(2**63), -1]}), {"id": "n"}, TWO),
    ("null id", lambda: parquet({"a": images(), "n": pa.array([7, None])}), {"id": "n"}, ["0 40x30", "1: bad id"]),
    (
        "id above 63 bits",
        lambda: parquet({"a": images(), "n": pa.array([2**63, 5], pa.uint64())}),
        {"id": "n"},
        ["0: bad id", "1 41x30"],
    ),
    ("id of text", lambda: parquet({"a": images(), "n": ["x", "y"]}), {"id": "n"}, [UNREAD]),
    ("id of fractions", lambda: parquet({"a": images(), "n": [1.0, 2.0]}), {"id": "n"}, [UNREAD]),
    ("id missing", lambda: parquet({"a": images()}), {"id": "n"}, [UNREAD]),
    # Texts
    ("text that is not UTF-8", lambda: parquet({"a": images(), "url": not_utf8()}), {}, TWO),
    (
        "path that is not UTF-8",
        lambda: parquet({"a": pa.StructArray.from_arrays([images(), not_utf8()], ["bytes", "path"])}),
        {},
        ["ok 40x30", "1 41x30"],
    ),
    ("url that is a number", lambda: parquet({"a": images(), "url": [1, 2]}), {}, TWO),
    ("url that is a time", lambda: parquet({"a": images(), "url": pa.array([1, 2], pa.timestamp("ns"))}), {}, TWO),
    # Damage
    ("empty file", b"", {}, [BAD]),
    ("not Parquet", picture(), {}, [BAD]),
    ("only its marks", b"PAR1PAR1", {}, [BAD]),
    ("a gigantic footer", b"PAR1" + bytes(40) + b"\xff\xff\xff\x7fPAR1", {}, [BAD]),
    ("cut in the middle", lambda: parquet({"a": images()})[:200], {}, [BAD]),
    ("cut by one byte", lambda: parquet({"a": images()})[:-1], {}, [BAD]),
    ("footer overwritten", lambda: flipped(parquet({"a": images()}), 0.9, 40), {}, [BAD]),
    ("first page overwritten", lambda: flipped(parquet({"a": images()}, compression="zstd"), 0.01, 60), {}, [BAD]),
]


@pytest.mark.parametrize(
    ("make", "names", "said"), [pytest.param(make, names, said, id=kind) for kind, make, names, said in PARQUETS]
)
def test_parquet_gives_the_expected_rows(
    tmp_path: Path, make: bytes | Callable[[], bytes], names: dict[str, str], said: list[str]
) -> None:
    (tmp_path / "0.parquet").write_bytes(bytes_of(make))
    rows = index(pool_of(parquet=str(tmp_path), **names))
    assert [summary(row) for row in rows] == said
    assert [row["retry"] for row in rows] == [False] * len(said)
    assert all("\n" not in (row["error"] or "") for row in rows)


def test_rows_before_a_damaged_row_group_are_kept(tmp_path: Path) -> None:
    noise = [picture() + os.urandom(3000) for _ in range(300)]
    data = parquet({"a": noise}, row_group_size=100, compression="snappy")
    (tmp_path / "0.parquet").write_bytes(flipped(data, 0.5, 400_000))
    *whole, last = index(pool_of(parquet=str(tmp_path)))
    assert [summary(row) for row in whole] == [f"{n} 40x30" for n in range(len(whole))]
    assert len(whole) >= 64
    assert summary(last) == BAD
    assert f"{len(whole)} rows were read before it" in last["error"]


def test_columns_beside_the_image_of_parquet_are_read(tmp_path: Path) -> None:
    beside = {"url": ["http://x", None], "caption": ["a fox", ""], "sha256": ["ff", None], "alt_text": [None, "a dog"]}
    (tmp_path / "0.parquet").write_bytes(parquet({"a": images(), **beside, "n": [70, 80], "error": ["x", "y"]}))
    first, second = index(pool_of(parquet=str(tmp_path), id="n"))
    assert (first["id"], first["url"], first["alt_text"], first["sha256"], first["error"]) == (
        *(70, "http://x", "a fox", "ff"),
        None,
    )
    assert (second["id"], second["offset"], second["url"], second["alt_text"]) == (80, 1, None, "a dog")


def test_text_that_is_not_utf8_reports_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "0.parquet").write_bytes(parquet({"a": images(), "url": not_utf8(), "caption": ["a fox", "a dog"]}))
    rows = index(pool_of(parquet=str(tmp_path)))
    assert [(row["url"], row["alt_text"]) for row in rows] == [("ok", "a fox"), ("ét", "a dog")]
    assert [row["text_encoding"] for row in rows] == [None, "windows-1252"]


class FailingDisk(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise OSError(5, "the disk")


def test_disk_error_is_not_reported_as_a_parquet_error() -> None:
    with pytest.raises(OSError, match="the disk"):
        list(parquet_rows(FailingDisk(parquet({"a": images()})), None, None))


# Output of img2dataset

SIDECAR = {
    "key": ["000000000", "000000001", "000000002"],
    "status": ["success", "success", "failed_to_download"],
    "error_message": [None, None, "HTTP Error 404: Not Found"],
    "url": ["http://x/0", "http://x/1", "http://x/2"],
    "caption": ["a fox", "a dog", "a cat"],
    "sha256": ["f0", "f1", None],
}
DONE = ["000000000", "000000001"]


def downloads(folder: Path, format_: str, done: list[str] = DONE, **sidecar: Any) -> Path:
    """One shard as img2dataset leaves it."""
    columns = {**SIDECAR, **sidecar}
    folder.mkdir(exist_ok=True)
    if format_ == "webdataset":
        members = b"".join(image(f"{key}.png") + member(f"{key}.txt", b"text of the tar") for key in done)
        (folder / "00000.tar").write_bytes(members + END)
    elif format_ == "files":
        (folder / "00000").mkdir()
        for key in done:
            (folder / "00000" / f"{key}.png").write_bytes(picture())
            (folder / "00000" / f"{key}.txt").write_text("text of the folder")
    else:
        columns["png"] = pa.array([picture() if key in done else None for key in columns["key"]], pa.binary())
    (folder / "00000.parquet").write_bytes(parquet(columns))
    (folder / "00000_stats.json").write_text("{}")
    return folder


@pytest.mark.parametrize("format_", ["webdataset", "parquet", "files"])
def test_img2dataset_gives_the_expected_rows(tmp_path: Path, format_: str) -> None:
    rows = index(pool_of(img2dataset=str(downloads(tmp_path, format_))))
    assert [(stem(row["key"]), row["url"], row["alt_text"], row["sha256"]) for row in rows] == [
        ("000000000", "http://x/0", "a fox", "f0"),
        ("000000001", "http://x/1", "a dog", "f1"),
        ("000000002", "http://x/2", "a cat", None),
    ]
    assert [row["width"] for row in rows] == [40, 40, None]
    assert [row["error"] for row in rows] == [None, None, "failed_to_download: HTTP Error 404: Not Found"]
    assert [row["retry"] for row in rows] == [False] * 3


@pytest.mark.parametrize("format_", ["webdataset", "parquet", "files"])
def test_img2dataset_success_missing_in_the_shard_is_an_error(tmp_path: Path, format_: str) -> None:
    rows = index(pool_of(img2dataset=str(downloads(tmp_path, format_, DONE[:1]))))
    assert [summary(row).partition(":")[2] for row in rows] == ["", " missing", " failed_to_download"]
    assert rows[1]["url"] == "http://x/1"


def test_img2dataset_shard_without_stats_is_skipped(tmp_path: Path) -> None:
    downloads(tmp_path, "webdataset")
    (tmp_path / "00001.tar").write_bytes(A)
    (tmp_path / "00001.parquet").write_bytes(b"")
    listing = pool_of(img2dataset=str(tmp_path)).listing()
    assert listing.shards["path"].to_pylist() == ["00000.tar"]
    assert listing.passed_over == {"unfinished": 1}


def test_img2dataset_shard_of_failed_downloads_has_error_rows(tmp_path: Path) -> None:
    failed = {"status": ["failed_to_download"] * 3, "error_message": ["no route"] * 3}
    rows = index(pool_of(img2dataset=str(downloads(tmp_path, "webdataset", [], **failed))))
    assert [row["error"] for row in rows] == ["failed_to_download: no route"] * 3


@pytest.mark.parametrize(
    "sidecar",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"PAR1 no PAR1", id="damaged"),
        pytest.param(parquet({"url": ["x"]}), id="without key"),
        pytest.param(flipped(parquet(SIDECAR), 0.9, 40), id="footer overwritten"),
        pytest.param(flipped(parquet(SIDECAR), 0.01, 60), id="page overwritten"),
    ],
)
@pytest.mark.parametrize("format_", ["webdataset", "files"])
def test_img2dataset_with_a_broken_sidecar_keeps_its_images(
    tmp_path: Path, format_: str, sidecar: bytes | None
) -> None:
    downloads(tmp_path, format_)
    (tmp_path / "00000.parquet").unlink()
    if sidecar is not None:
        (tmp_path / "00000.parquet").write_bytes(sidecar)
    first, *rows = index(pool_of(img2dataset=str(tmp_path)))
    assert summary(first) == ": broken sidecar"
    assert [(stem(row["key"]), row["width"], row["error"]) for row in rows] == [(key, 40, None) for key in DONE]


def test_img2dataset_with_sidecar_and_tar_broken_has_two_errors(tmp_path: Path) -> None:
    downloads(tmp_path, "webdataset")
    (tmp_path / "00000.parquet").write_bytes(b"")
    (tmp_path / "00000.tar").write_bytes(A + bad_checksum(B))
    assert [summary(row) for row in index(pool_of(img2dataset=str(tmp_path)))] == [": broken sidecar", A_OK, BROKEN]


@pytest.mark.parametrize("damage", [lambda data: data[:300], lambda data: flipped(data, 0.9, 40), lambda data: b""])
def test_img2dataset_broken_parquet_shard_is_an_error_row(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = downloads(tmp_path, "parquet") / "00000.parquet"
    path.write_bytes(damage(path.read_bytes()))
    assert [summary(row) for row in index(pool_of(img2dataset=str(tmp_path)))] == [": broken sidecar", BAD]


def test_img2dataset_key_that_is_a_file_name_is_a_duplicate(tmp_path: Path) -> None:
    downloads(tmp_path, "webdataset", key=["000000000.png", "000000001", "000000002"])
    rows = index(pool_of(img2dataset=str(tmp_path)))
    assert [summary(row).partition(": ")[2] for row in rows] == ["", "", "duplicate name", "failed_to_download"]


def test_img2dataset_hostile_images_and_names_become_rows(tmp_path: Path) -> None:
    downloads(tmp_path, "webdataset")
    odd = member("000000000.jpg", b"<html>") + image("../000000001.png") + image("stranger.png")
    (tmp_path / "00000.tar").write_bytes(odd + END)
    rows = index(pool_of(img2dataset=str(tmp_path)))
    assert [summary(row) for row in rows] == [
        "000000000.jpg: not an image",
        "../000000001.png 40x30",
        "stranger.png 40x30",
        "000000002: failed_to_download",
    ]
    assert [row["url"] for row in rows] == ["http://x/0", "http://x/1", None, "http://x/2"]


# Conservation


def test_every_shard_has_rows_and_ids_are_unique(tmp_path: Path) -> None:
    for number, (_, make, _) in enumerate(TARS):
        (tmp_path / f"{number:03d}.tar").write_bytes(bytes_of(make))
    rows = index(pool_of(tars=str(tmp_path)))
    assert len(rows) == sum(len(said) for *_, said in TARS)
    assert len({row["shard"] for row in rows}) == len(TARS)


def test_every_parquet_shard_has_rows(tmp_path: Path) -> None:
    plain = [(make, said) for _, make, names, said in PARQUETS if not names]
    for number, (make, _) in enumerate(plain):
        (tmp_path / f"{number:03d}.parquet").write_bytes(bytes_of(make))
    rows = index(pool_of(parquet=str(tmp_path)))
    assert len(rows) == sum(len(said) for _, said in plain)


@pytest.mark.parametrize("kind", ["images", "tars", "parquet", "img2dataset"])
def test_shard_that_vanished_is_one_row_to_retry(tmp_path: Path, kind: str) -> None:
    pool = pool_of(**{kind: str(tmp_path)})
    shard = Shard({"images": "a.png", "parquet": "a.parquet"}.get(kind, "a.tar"), 9)
    rows = pool.index(Folder.at(tmp_path), shard_table([shard])).to_pylist()
    (row,) = [row for row in rows if row["retry"]]
    assert row["error"].startswith("unreadable: ")


def test_shard_with_a_problem_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    shard = Shard("a.jpg", 0, "not a file: a pipe")
    (row,) = pool_of(images=str(tmp_path)).index(Folder.at(tmp_path), shard_table([shard])).to_pylist()
    assert (row["key"], row["error"], row["width"], row["bytes"]) == ("a.jpg", "not a file: a pipe", None, None)


def test_no_shards_are_an_empty_index(tmp_path: Path) -> None:
    table = pool_of(images=str(tmp_path)).index(Folder.at(tmp_path), shard_table([]))
    assert table.num_rows == 0
    assert table.schema.equals(INDEX, check_metadata=True)


def test_image_id_is_stable_and_positive() -> None:
    assert image_id("0.tar", "a.png") == image_id("0.tar", "a.png") != image_id("1.tar", "a.png")
    assert all(0 <= image_id("0.tar", str(n)) < 1 << 63 for n in range(1000))


# Fuzzing: the same bytes with some of them changed or cut off always yield rows that fit the index

CHANGES = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=12)), max_size=8)
KEPT = st.one_of(st.just(1.0), st.floats(0, 1))


def changed(data: bytes, changes: list[tuple[float, bytes]], kept: float, step: int = 1) -> bytes:
    """`step` keeps a change at the start of a block; bytes in its header change much more."""
    mutable = bytearray(data)
    for share, new in changes:
        at = int(share * len(data))
        at = at // step * step + at % 200 if step > 1 else at
        mutable[at : at + len(new)] = new
    return bytes(mutable[: round(kept * len(mutable))])


@functools.cache
def fuzzed_tar() -> bytes:
    """Every kind of header, the checksums right."""
    return b"".join(
        [
            *(A, image(LONG), image("é" * 80 + ".png", format=tarfile.PAX_FORMAT), pax({"size": "99"}), B),
            *(old_sparse(0), member("l.png", type=tarfile.SYMTYPE, linkname="x")),
            *(member("a.txt", b"x"), member("a.json", b"{}"), END),
        ]
    )


def with_checksums(data: bytes) -> bytes:
    """Every block that was a header made valid again, so that the changes get past the checksum."""
    valid = fuzzed_tar()
    blocks = [(data[at : at + BLOCK], valid[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]
    return b"".join(rehashed(now) if was[257:262] == b"ustar" and len(now) == BLOCK else now for now, was in blocks)


def fit_the_index(rows: Iterator[Row]) -> bool:
    result = list(rows)
    names = [name for name in INDEX.names if name not in ("id", "shard", "shard_bytes", "retry")]
    for name in names:
        pa.array([row.get(name) for row in result], INDEX.field(name).type)
    return bool(result) and all(row.get("width") or row["error"] for row in result)


@pytest.mark.parametrize("valid", [False, True])
@given(changes=CHANGES, kept=KEPT)
@settings(max_examples=150)
def test_fuzzed_tar_yields_rows(valid: bool, changes: list[tuple[float, bytes]], kept: float) -> None:
    data = changed(fuzzed_tar(), changes, kept, BLOCK)
    assert fit_the_index(tar_rows(io.BytesIO(with_checksums(data) if valid else data), {}))


@given(data=st.binary(max_size=2000))
@settings(max_examples=150)
def test_any_bytes_as_a_tar_yield_rows(data: bytes) -> None:
    assert fit_the_index(tar_rows(io.BytesIO(data), {}))


@functools.cache
def fuzzed_parquet(compression: str) -> bytes:
    cell = {"bytes": picture(), "path": "a.png"}
    columns = {"image": cells(*[cell] * 90), "url": ["http://x"] * 90, "n": list(range(90))}
    return parquet(columns, compression=compression, row_group_size=40)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@given(changes=CHANGES, kept=KEPT, named=st.booleans())
@settings(max_examples=150)
def test_fuzzed_parquet_yields_rows(
    compression: str, changes: list[tuple[float, bytes]], kept: float, named: bool
) -> None:
    data = changed(fuzzed_parquet(compression), changes, kept)
    names = ("image", "n") if named else (None, None)
    assert fit_the_index(parquet_rows(io.BytesIO(data), *names))


@pytest.mark.parametrize("byte", [0x15, 0x80])
def test_footer_with_any_byte_changed_yields_rows(byte: int) -> None:
    """0x15 is -11 in a footer: pyarrow's objects abort the process on a compression of that number."""
    columns = {"image": images(), "n": [1, 2]}
    data = parquet(columns, row_group_size=1, write_statistics=False, store_schema=False)
    for at in range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data)):
        damaged = data[:at] + bytes([byte]) + data[at + 1 :]
        assert fit_the_index(parquet_rows(io.BytesIO(damaged), "image", "n"))
