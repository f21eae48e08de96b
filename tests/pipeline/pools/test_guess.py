"""What a path is taken for, and what is said where that is not clear."""

from __future__ import annotations

import importlib.metadata
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from manifests.storage import Folder
from pipeline.pools.guess import guess_pool
from pipeline.pools.registry import pool_of
from tests.conftest import jpeg

MakeImages = Callable[..., Path]
URLS = pa.table({"url": ["https://a.example/1.jpg"], "md5": [b"0123456789abcdef"]})
CELLS = pa.table({"url": ["https://a.example/1.jpg"], "image": [jpeg(30, 20)]})


def _write(folder: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, file)
        else:
            file.write_bytes(content if isinstance(content, bytes) else str(content).encode())


@pytest.mark.parametrize(
    ("files", "where", "kind", "what"),
    [
        (
            {"a/1.jpg": jpeg(9, 9), "2.PNG": b"", "a/1.txt": "https://b.example"},
            "",
            "images",
            "images (1 .jpg, 1 .png)",
        ),
        ({"sub/0a1b": jpeg(9, 9), "ff00": jpeg(9, 9)}, "", "images", "images (2 without ending)"),
        ({"1.jpg": jpeg(9, 9), "1.txt": "a", "x.csv": "file,label\na,b\n"}, "", "images", "images (1 .jpg)"),
        ({"0.tar": b"", "1.tar": b""}, "", "tars", "webdataset tars (2 .tar)"),
        ({"0.tar": b"", "1.tar": b"", "2.jpg": b""}, "*.tar", "tars", "webdataset tars (2 .tar)"),
        ({"0.parquet": CELLS, "1.parquet": b"broken"}, "", "parquet", "Parquet files with images (2 .parquet)"),
        ({"0.parquet": CELLS}, "0.parquet", "parquet", "Parquet files with images (1 .parquet)"),
        ({"0.parquet": URLS}, "", "urls", "lists of image URLs (1 .parquet)"),
        ({"l.csv.gz": b"", "l.tsv": "url\tn\nhttps://a.example\t1\n"}, "", "urls", "lists of image URLs (1 .tsv)"),
        ({"l.jsonl": '{"url": "https://a.example"}\n'}, "l.jsonl", "urls", "lists of image URLs (1 .jsonl)"),
        ({"l.txt": "https://a.example/1.jpg\n"}, "l.txt", "urls", "lists of image URLs (1 .txt)"),
        (
            {"00000.tar": b"", "00000.parquet": URLS, "00000_stats.json": "{}", "00001.tar": b""},
            "",
            "img2dataset",
            "an output of img2dataset (1 finished shards)",
        ),
        ({"0/1.jpg": jpeg(9, 9), "0.parquet": URLS, "0_stats.json": "{}"}, "", "img2dataset", "(1 finished shards)"),
    ],
)
def test_path_is_taken_for_what_lies_there(
    files: dict[str, object], where: str, kind: str, what: str, tmp_path: Path
) -> None:
    _write(tmp_path, files)
    pool, said = guess_pool(f"{tmp_path}/{where}", {})
    assert pool.kind == kind
    assert what in said
    assert pool.listing().shards.num_rows


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.jpg": jpeg(9, 9), "l.csv": "url\nhttps://a.example\n"}, r"1 \.jpg.* and lists .*--images or --urls"),
        ({"0.tar": b"", "0.parquet": URLS}, r"tars \(1 \.tar\) and lists .*: --tars or --urls"),
        ({"0.zip": b"", "notes.md": "a"}, r"no pool is recognised \(1 \.md, 1 \.zip\); .*--images or --tars"),
        ({"notes.txt": "no URL"}, r"no pool is recognised \(1 \.txt\)"),
        ({}, "has nothing to index; check the path"),
    ],
)
def test_unclear_path_is_one_line_with_the_options(files: dict[str, object], message: str, tmp_path: Path) -> None:
    _write(tmp_path, files)
    with pytest.raises(UserError, match=message) as refused:
        guess_pool(str(tmp_path), {})
    assert "\n" not in str(refused.value)


def test_option_of_one_kind_decides_for_it(tmp_path: Path) -> None:
    _write(tmp_path, {"1.jpg": jpeg(9, 9), "l.csv": "link\nhttps://a.example\n"})
    assert guess_pool(str(tmp_path), {})[0].kind == "images"
    pool, _ = guess_pool(str(tmp_path), {"url": "link"})
    assert (pool.kind, pool.url) == ("urls", "link")  # type: ignore[attr-defined]


def test_pipes_and_links_out_of_a_folder_are_not_opened(tmp_path: Path) -> None:
    _write(tmp_path, {"pool/1.jpg": jpeg(9, 9), "outside.csv": "url\nhttps://a.example\n"})
    os.mkfifo(tmp_path / "pool" / "pipe.csv")  # opening it would hang
    (tmp_path / "pool" / "link.csv").symlink_to(tmp_path / "outside.csv")
    assert guess_pool(str(tmp_path / "pool"), {})[0].kind == "images"


def test_links_out_of_a_folder_count_if_they_are_followed(tmp_path: Path) -> None:
    _write(tmp_path, {"outside/1.csv": "url\nhttps://a.example\n", "outside/2.csv": ""})
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "pool" / "3.csv").symlink_to(tmp_path / "outside" / "1.csv")
    with pytest.raises(UserError, match=r"nothing to index \(passed over: link: leads out of the pool, not followed"):
        guess_pool(str(tmp_path / "pool"), {})
    pool, said = guess_pool(str(tmp_path / "pool"), {"follow_links": True})
    assert (pool.kind, pool.follow_links) == ("urls", True)
    assert "(3 .csv)" in said


def test_wrong_glob_is_one_line(tmp_path: Path) -> None:
    _write(tmp_path, {"a.tar": b""})
    glob = f"{tmp_path}/a**.tar"
    for taken in (lambda: guess_pool(glob, {}), pool_of(tars=glob).listing):
        with pytest.raises(UserError, match="not a glob: "):
            taken()


def test_run_inside_of_the_pool_is_no_part_of_it(tmp_path: Path) -> None:
    _write(tmp_path, {"1.jpg": jpeg(9, 9), "run/index/part-0.parquet": URLS})
    assert guess_pool(str(tmp_path), {}, Folder.at(str(tmp_path / "run")))[0].kind == "images"


def test_look_at_many_files_ends_after_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.pools.look.NAMES", 5)
    _write(tmp_path, {f"{number}.jpg": b"" for number in range(8)})
    assert "(5 .jpg among the first 5 files)" in guess_pool(str(tmp_path), {})[1]


def test_pool_in_a_bucket_is_recognised(bucket: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        (tmp_path / "1.jpg").write_bytes(jpeg(9, 9))
        archive.add(tmp_path / "1.jpg", "1.jpg")
    folder = Folder.at(f"{bucket}/guess")
    folder.write("tars/sub/0.tar", (tmp_path / "0.tar").read_bytes())
    folder.write("lists/l.csv", b"url\nhttps://a.example\n")
    folder.write("cells/0.parquet", _bytes(CELLS))
    for name, kind in (("tars", "tars"), ("lists/*.csv", "urls"), ("cells", "parquet")):
        assert guess_pool(f"{bucket}/guess/{name}", {})[0].kind == kind


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def test_kind_of_an_installed_package_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("zips", "zips:Zips", "vl3syn.pools")
    monkeypatch.setattr("pipeline.pools.registry.entry_points", lambda group: [point] if "pools" in group else [])
    _write(tmp_path, {"0.zip": b""})
    pool, said = guess_pool(str(tmp_path), {})
    assert pool.kind == "zips:Zips"
    assert "files of the kind zips:Zips (1 .zip)" in said
