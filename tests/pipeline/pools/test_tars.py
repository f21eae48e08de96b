"""What a tar holds beside plain images and texts: names that repeat, other endings and encodings, compression."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
import subprocess
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.errors import UserError
from core.image_header import FORMATS, IMAGE_ENDINGS
from manifests import open_run
from manifests.run import index_table
from manifests.storage import Folder
from pipeline.execution.index import open_pool
from pipeline.execution.runner import prepare
from pipeline.pools import pool_of
from pipeline.recipe import parse_recipe

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]
Members = Sequence[tuple[str, bytes]]


def picture(width: int = 40, format_: str = "PNG", mode: str = "RGB") -> bytes:
    data = io.BytesIO()
    Image.new(mode, (width, 30)).save(data, format_)
    return data.getvalue()


def packed(members: Members) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def index(folder: Path, data: bytes, passed_over: Counter[str] | None = None) -> list[dict[str, object]]:
    (folder / "0.tar").write_bytes(data)
    pool = pool_of(tars=str(folder))
    listing = pool.listing()
    counts = () if passed_over is None else (passed_over,)
    rows: list[dict[str, object]] = pool.index(listing.root, listing.shards, *counts).to_pylist()
    return rows


A, B = picture(40), picture(41)
PNG = picture(42)


def text(name: str, content: str) -> tuple[str, bytes]:
    return name, content.encode()


def about(name: str, content: str) -> tuple[str, bytes]:
    return name, json.dumps({"caption": content, "url": f"http://x/{content}"}).encode()


IN_ANOTHER_FORMAT = [("0.png", B), text("0.txt", "3"), ("1.png", B), text("1.txt", "4")]
AGAIN: dict[str, tuple[Members, list[str | None]]] = {
    "text behind": ([("a.jpg", A), text("a.txt", "1"), ("a.jpg", B), text("a.txt", "2")], ["1", "2"]),
    "text before": ([text("a.txt", "1"), ("a.jpg", A), text("a.txt", "2"), ("a.jpg", B)], ["1", "2"]),
    "JSON": ([("a.jpg", A), about("a.json", "1"), ("a.jpg", B), about("a.json", "2")], ["1", "2"]),
    "one text between them": ([("a.jpg", A), text("a.txt", "1"), ("a.jpg", B)], ["1", "1"]),
    "both images before one text": ([("a.jpg", A), ("a.jpg", B), text("a.txt", "1")], ["1", "1"]),
    "texts of all behind images of all": (
        [("a.jpg", A), ("b.jpg", A), text("a.txt", "1"), text("b.txt", "2")] * 2,
        ["1", "2", None, None],
    ),
    "tars joined, in another format": (
        [("0.jpg", A), text("0.txt", "1"), ("1.jpg", A), text("1.txt", "2"), *IN_ANOTHER_FORMAT],
        ["1", "2", "3", "4"],
    ),
    "two images of one sample, twice": (
        [("a.jpg", A), ("a.png", A), text("a.txt", "1"), ("a.jpg", B), ("a.png", B), text("a.txt", "2")],
        ["1", "1", "2", "2"],
    ),
    "a text that was added again": ([("a.jpg", A), text("a.txt", "1"), text("b.txt", "2"), text("a.txt", "3")], ["1"]),
    "dots in the names": (
        [
            ("2.5.png", A),
            text("2.5.txt", "1"),
            ("2.6.png", A),
            text("2.6.txt", "2"),
            ("2.5.png", B),
            text("2.5.txt", "3"),
        ],
        ["1", "2", "3"],
    ),
    "nothing repeats": ([("a.jpg", A), ("b.jpg", B), text("b.txt", "2"), text("a.txt", "1")], ["1", "2"]),
}


@pytest.mark.parametrize("kind", AGAIN)
def test_repeated_names_keep_their_texts(tmp_path: Path, kind: str) -> None:
    members, expected = AGAIN[kind]
    rows = index(tmp_path, packed(members))
    assert [row["alt_text"] for row in rows] == expected
    names = [row["key"] for row in rows]
    again = [name in names[:number] for number, name in enumerate(names)]
    assert [str(row["error"]).startswith("duplicate name") for row in rows] == again
    if kind == "JSON":
        assert [row["url"] for row in rows] == ["http://x/1", "http://x/2"]


def test_tar_misread_by_an_earlier_version_is_read_again(tmp_path: Path, vl3syn: Vl3syn) -> None:
    pool, run = pool_of(tars=str(tmp_path / "pool")), tmp_path / "run"
    (tmp_path / "pool").mkdir()
    members: Members = [("a.jpg", A), text("a.txt", "1"), ("a.jpg", B), text("a.txt", "2")]
    (tmp_path / "pool/0.tar").write_bytes(packed(members))
    (tmp_path / "pool/1.tar").write_bytes(packed([("b.jpg", A), ("b.txt", "café".encode("cp1252"))]))
    (tmp_path / "pool/2.tar").write_bytes(packed([("c.jpg", A), text("c.txt", "c")]))
    prepare(parse_recipe({"pool": {"tars": str(tmp_path / "pool")}}, "test"), str(run))
    table, listing = index_table(Folder.at(run)), pool.listing()
    right = pool.index(listing.root, listing.shards)
    wrong = right.to_pylist()
    for row, alt_text in zip(wrong, ["2", "2", "caf\ufffd", "c"], strict=True):
        row |= {"alt_text": alt_text, "text_encoding": None}
    made_by = {"stage": "index", "pool": "tars", "reader": 2, "vl3syn": "0.1.0"}
    table.append(pa.Table.from_pylist(wrong, schema=right.schema), table.next_writer(), made_by)

    done = vl3syn("index", "--tars", pool.where, "--run", run, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jobs"][0]["computed"] == 3  # those of 0.tar and 1.tar
    stored = open_run(run).index.scan().sort("id").collect().to_dicts()
    assert stored == right.sort_by("id").to_pylist()
    assert json.loads(vl3syn("index", "--run", run, "--json").stdout)["jobs"][0]["computed"] == 0


# Endings


def test_every_ending_of_a_format_that_is_read_is_listed() -> None:
    Image.init()
    known = {
        ending for ending, format_ in Image.registered_extensions().items() if format_ in (*FORMATS, "WEBP", "ICO")
    }
    assert known - IMAGE_ENDINGS == set()


def test_pnm_of_any_ending_is_read_in_a_folder_and_in_a_tar(tmp_path: Path) -> None:
    pictures = {
        f"a.{ending}": picture(50, "PPM", mode) for ending, mode in {"pbm": "1", "pgm": "L", "ppm": "RGB"}.items()
    }
    rows = index(tmp_path, packed(list(pictures.items())))
    assert [(row["key"], row["width"], row["error"]) for row in rows] == [(name, 50, None) for name in pictures]
    (tmp_path / "folder").mkdir()
    for name, data in pictures.items():
        (tmp_path / "folder" / name).write_bytes(data)
    listing = pool_of(images=str(tmp_path / "folder")).listing()
    assert listing.shards["path"].to_pylist() == list(pictures)
    assert not listing.passed_over


OTHERS = ["a.jxl", "b.JXL", "a.svg", "a.tga", "a.cls", "a.npy"]


def test_skipped_members_are_counted(tmp_path: Path) -> None:
    passed_over = Counter[str]()
    members = [("a.jpg", A), text("a.txt", "1"), about("a.json", "1"), ("b.json", b"{"), *((n, b"x") for n in OTHERS)]
    assert len(index(tmp_path, packed(members), passed_over)) == 1
    assert passed_over == {".jxl": 2, ".svg": 1, ".tga": 1, ".cls": 1, ".npy": 1, ".json": 1}


def test_many_endings_take_little_memory(tmp_path: Path) -> None:
    passed_over = Counter[str]()
    index(tmp_path, packed([("a.jpg", A), *((f"a.x{number}{'y' * 50}", b"x") for number in range(500))]), passed_over)
    assert len(passed_over) <= 101
    assert passed_over.total() == 500
    assert max(map(len, passed_over)) <= 17


def test_index_command_counts_skipped_members(tmp_path: Path, vl3syn: Vl3syn) -> None:
    (tmp_path / "pool").mkdir()
    for number in range(3):
        members = [("a.jpg", A), ("a.jxl", b"x"), ("a.heic", b"x"), (f"a.\x1b[2J{number}", b"x")]
        (tmp_path / f"pool/{number}.tar").write_bytes(packed(members))
    done = vl3syn("index", "--tars", tmp_path / "pool", "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stderr.splitlines() if "passed over members of tars" in line)
    assert ".jxl 3" in line
    assert "\x1b" not in done.stderr
    errors = open_run(tmp_path / "run").index.scan().sort("shard", "key").collect()["error"].to_list()
    assert [error is None for error in errors] == [False, True] * 3  # a.heic has a row that says it is no image


# Compression


def compressed() -> dict[str, tuple[bytes, str]]:
    tar = packed([("a.jpg", A), text("a.txt", "1")])
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.jpg", A)
    return {
        "gzip": (gzip.compress(tar), "with gunzip"),
        "bzip2": (bz2.compress(tar), "with bunzip2"),
        "xz": (lzma.compress(tar), "with unxz"),
        "zstd": (pa.compress(tar, "zstd", asbytes=True), "with unzstd"),
        "zip": (zipped.getvalue(), "unpack it and pack it as a .tar"),
    }


@pytest.mark.parametrize("kind", compressed())
def test_compressed_tar_is_recognised_by_its_content(tmp_path: Path, kind: str) -> None:
    data, how = compressed()[kind]
    (row,) = index(tmp_path, data)
    assert str(row["error"]).startswith(f"compressed tar: {kind}, ")
    assert how in str(row["error"])
    with pytest.raises(UserError, match=f"^tars: 0.tar: compressed tar: {kind}, .*{how}"):
        open_pool(pool_of(tars=str(tmp_path / "0.tar")), str(tmp_path / "run"))


@pytest.mark.parametrize("name", ["BZh.jpg", "PK.jpg", "Rar!.jpg", "]", "7z.jpg"])
def test_first_member_named_like_a_compression_is_read(tmp_path: Path, name: str) -> None:
    rows = index(tmp_path, packed([(name, A)]))
    assert [(row["key"], row["width"], row["error"]) for row in rows] == [(name, 40, None)]


def test_compressed_tar_among_others_is_a_row_or_counted(tmp_path: Path) -> None:
    (tmp_path / "1.tar").write_bytes(gzip.compress(packed([("b.jpg", A)])))
    (tmp_path / "2.tar.zst").write_bytes(b"x")
    (tmp_path / "3.TGZ").write_bytes(b"x")
    rows = index(tmp_path, packed([("a.jpg", A)]))
    assert [(row["key"], str(row["error"])[:20]) for row in rows] == [("a.jpg", "None"), ("", "compressed tar: gzip")]
    assert pool_of(tars=str(tmp_path)).listing().passed_over == {"compressed tars (2.tar.zst)": 2}


def test_index_command_names_the_compression(tmp_path: Path, vl3syn: Vl3syn) -> None:
    (tmp_path / "0.tar.gz").write_bytes(gzip.compress(packed([("a.jpg", A)])))
    named = vl3syn("index", "--tars", tmp_path / "0.tar.gz", "--run", tmp_path / "run")
    folder = vl3syn("index", "--tars", tmp_path, "--run", tmp_path / "run")
    assert (named.returncode, folder.returncode) == (1, 1)
    assert "compressed tar: gzip" in named.stderr
    assert "with gunzip" in named.stderr
    assert "compressed tars (0.tar.gz) 1" in folder.stderr
    assert not (tmp_path / "run").exists()


# Encodings

ENCODED: dict[str, tuple[bytes, str, str | None]] = {
    "UTF-8": ("café 🦊".encode(), "café 🦊", None),
    "UTF-8 with a mark": ("café".encode("utf-8-sig"), "café", None),
    "Windows-1252": ("café €".encode("cp1252"), "café €", "windows-1252"),
    "UTF-16": ("café".encode("utf-16"), "café", "utf-16"),
    "UTF-32": ("café".encode("utf-32"), "café", "utf-32"),
    "Shift-JIS": ("メ".encode("shift-jis"), "\ufffd\ufffd", "unknown"),
    "UTF-16 cut off": ("café".encode("utf-16")[:-1], "caf\ufffd", "unknown"),
    "empty": (b"", "", None),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_encoding_of_a_text_is_reported(tmp_path: Path, kind: str) -> None:
    data, expected, how = ENCODED[kind]
    for ending in ("txt", "caption"):
        (row,) = index(tmp_path, packed([("a.jpg", A), (f"a.{ending}", data)]))
        assert (row["alt_text"], row["text_encoding"]) == (expected, how)


def test_encoding_of_an_unused_text_is_not_reported(tmp_path: Path) -> None:
    cp1252 = '{"caption": "café"}'.encode("cp1252")
    (row,) = index(tmp_path, packed([("a.jpg", A), text("a.txt", "a fox"), ("a.json", cp1252)]))
    assert (row["alt_text"], row["text_encoding"]) == ("a fox", None)
    (row,) = index(tmp_path, packed([("a.jpg", A), ("a.json", cp1252)]))
    assert (row["alt_text"], row["text_encoding"]) == ("café", "windows-1252")


@pytest.mark.parametrize("kind", ["tars", "parquet", "urls"])
def test_index_command_reports_encodings_once(tmp_path: Path, vl3syn: Vl3syn, kind: str) -> None:
    texts = [b"a fox", "café".encode("cp1252"), "naïve".encode("cp1252"), "メ".encode("shift-jis")]
    pool = tmp_path / "pool"
    pool.mkdir()
    if kind == "tars":
        for number, data in enumerate(texts):
            (pool / f"{number}.tar").write_bytes(packed([("a.jpg", A), ("a.txt", data)]))
    else:
        ends = pa.py_buffer(pa.array([0, *(sum(map(len, texts[: n + 1])) for n in range(4))], pa.int32()).buffers()[1])
        column = pa.Array.from_buffers(pa.string(), 4, [None, ends, pa.py_buffer(b"".join(texts))])
        images = {"image": [A] * 4} if kind == "parquet" else {"url": list("abcd"), "width": [9] * 4, "height": [9] * 4}
        pq.write_table(pa.table({**images, "caption": column}), pool / "0.parquet")
    done = vl3syn("index", f"--{kind}", pool, "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "not UTF-8" in line]
    assert len(lines) == 1
    assert "texts of 3 rows are not UTF-8, and were read as: windows-1252 2, unknown 1" in lines[0]
    stored = open_run(tmp_path / "run").index.scan().sort("shard", "offset").collect()
    assert stored["alt_text"].to_list() == ["a fox", "café", "naïve", "\ufffd\ufffd"]
    assert stored["text_encoding"].to_list() == [None, "windows-1252", "windows-1252", "unknown"]
    shutil.rmtree(tmp_path / "run")
