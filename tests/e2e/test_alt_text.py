"""The text that came with an image, under whatever name and type a pool has it."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from manifests import open_run
from pipeline.execution.index import open_pool
from pipeline.execution.runner import prepare
from pipeline.pools import pool_of
from pipeline.recipe import parse_recipe
from tests.pipeline.pools.test_side_files import tar

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]
TEXTS = ["a fox", "", None, "ein Fuchs 🦊"]


def picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 30)).save(data, "PNG")
    return data.getvalue()


def images_table(**columns: Any) -> pa.Table:
    return pa.table({"image": [picture()] * 4, **columns})


def urls_table(**columns: Any) -> pa.Table:
    urls = {} if {"URL", "image_url"} & set(columns) else {"url": [f"http://x/{n}" for n in range(4)]}
    return pa.table({**urls, "width": [40] * 4, "height": [30] * 4, **columns})


def sidecar_table(**columns: Any) -> pa.Table:
    return pa.table({"key": list("abcd"), "status": ["success"] * 4, "png": [picture()] * 4, **columns})


def index(folder: Path, kind: str, table: pa.Table, **settings: Any) -> tuple[list[dict[str, Any]], str]:
    """The rows of a pool of one file, and what the log says of alt text."""
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "00000.parquet")
    (folder / "00000_stats.json").write_text("{}")
    where = folder if kind == "img2dataset" else folder / "00000.parquet"
    pool = pool_of(**{kind: str(where)}, **settings)
    listing = open_pool(pool, str(folder / "run"))
    return pool.index(listing.root, listing.shards).to_pylist(), listing.alt_text


TABLES = {"parquet": images_table, "urls": urls_table, "img2dataset": sidecar_table}
TYPES: dict[str, Callable[[], pa.Array]] = {
    "string": lambda: pa.array(TEXTS),
    "large_string": lambda: pa.array(TEXTS, pa.large_string()),
    "string_view": lambda: pa.array(TEXTS, pa.string_view()),
    "dictionary": lambda: pa.array(TEXTS).dictionary_encode(),
    "dictionary of large_string": lambda: pa.array(TEXTS, pa.large_string()).dictionary_encode(),
    "binary": lambda: pa.array(TEXTS).cast(pa.binary()),
    "large_binary": lambda: pa.array(TEXTS).cast(pa.large_binary()),
    "binary_view": lambda: pa.array(TEXTS).cast(pa.binary()).cast(pa.binary_view()),
    "dictionary of binary": lambda: pa.array(TEXTS).cast(pa.binary()).dictionary_encode(),
    "list of binary": lambda: pa.array([[b"a fox"], [b""], None, ["ein Fuchs 🦊".encode()]]),
    "JSON": lambda: pa.array(TEXTS, pa.json_()),
    "JSON of large_string": lambda: pa.array(TEXTS, pa.json_(pa.large_string())),
    "list": lambda: pa.array([["", "a fox", "again"], [""], None, ["ein Fuchs 🦊"]]),
    "large_list": lambda: pa.array([["a fox"], [""], [], [None, "ein Fuchs 🦊"]], pa.large_list(pa.string())),
    "list of dictionary": lambda: pa.array(
        [["a fox"], [""], None, ["ein Fuchs 🦊"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))
    ),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("type_", TYPES)
def test_alt_text_of_any_type_is_read(tmp_path: Path, kind: str, type_: str) -> None:
    rows, said = index(tmp_path / "pool", kind, TABLES[kind](caption=TYPES[type_]()))
    assert [row["alt_text"] or None for row in rows] == ["a fox", None, None, "ein Fuchs 🦊"]
    assert [row["error"] for row in rows] == [None] * 4
    assert said == "alt text from the column 'caption'"


@pytest.mark.parametrize("kind", TABLES)
def test_bytes_that_are_not_utf8_report_their_encoding(tmp_path: Path, kind: str) -> None:
    rows, _ = index(tmp_path / "pool", kind, TABLES[kind](caption=[b"a f\xf6x", b"b", b"\x83\x81", b""]))
    assert [row["alt_text"] for row in rows] == ["a föx", "b", "\ufffd\ufffd", ""]
    assert [row["text_encoding"] for row in rows] == ["windows-1252", None, "unknown", None]


def test_url_and_licence_are_read_as_bytes_but_no_digest(tmp_path: Path) -> None:
    columns = {
        "URL": [f"http://x/{n}".encode() for n in range(4)],
        "license": [b"CC0"] * 4,
        "sha256": [b"\xaa" * 32] * 4,
    }
    for kind in TABLES:
        rows, _ = index(tmp_path / kind, kind, TABLES[kind](**columns))
        assert [(row["url"], row["license"], row["sha256"]) for row in rows] == [
            (f"http://x/{n}", "CC0", None) for n in range(4)
        ]


def test_image_column_may_have_the_name_of_a_text_column(tmp_path: Path) -> None:
    table = pa.table({"caption": [picture()] * 4, "text": list("wxyz")})
    rows, said = index(tmp_path / "pool", "parquet", table)
    assert [(row["alt_text"], row["error"]) for row in rows] == [(letter, None) for letter in "wxyz"]
    assert said == "alt text from the column 'text'"


REFUSED_TYPES: dict[str, Callable[[], pa.Array]] = {
    "struct<en: string>": lambda: pa.array([{"en": "a"}] * 4),
    "list<element: struct<en: string>>": lambda: pa.array([[{"en": "a"}]] * 4),
    "map<string, string ('caption')>": lambda: pa.array([[("en", "a")]] * 4, pa.map_(pa.string(), pa.string())),
    "extension<arrow.uuid>": lambda: pa.array([b"a" * 16] * 4, pa.uuid()),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("type_", REFUSED_TYPES)
def test_log_names_a_column_of_alt_text_that_is_not_read(tmp_path: Path, kind: str, type_: str) -> None:
    rows, said = index(tmp_path / "pool", kind, TABLES[kind](caption=REFUSED_TYPES[type_]()))
    assert [(row["alt_text"], row["error"]) for row in rows] == [(None, None)] * 4
    assert said.startswith(f"no alt text in 00000.parquet: the column 'caption' is {type_}, not text; ")


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("name", ["text", "TEXT", "Caption", "alt", "ALT_TEXT", "txt", "captions"])
def test_alt_text_under_any_accepted_name_is_read(tmp_path: Path, kind: str, name: str) -> None:
    rows, said = index(tmp_path / "pool", kind, TABLES[kind](**{name: list("wxyz")}))
    assert [row["alt_text"] for row in rows] == list("wxyz")
    assert said == f"alt text from the column {name!r}"


@pytest.mark.parametrize("kind", TABLES)
def test_first_alt_text_that_is_not_empty_is_taken(tmp_path: Path, kind: str) -> None:
    columns = {"caption": list("wxyz"), "alt_text": ["a", "", None, "d"], "TEXT": ["A", None, "C", "D"]}
    rows, said = index(tmp_path / "pool", kind, TABLES[kind](**columns))
    assert [row["alt_text"] for row in rows] == ["a", "x", "C", "d"]
    assert said.startswith(
        "alt text from the column 'alt_text' or the column 'TEXT' or the column 'caption' (the first"
    )


@pytest.mark.parametrize("kind", TABLES)
def test_columns_of_other_names_or_types_are_not_alt_text(tmp_path: Path, kind: str) -> None:
    rows, said = index(tmp_path / "pool", kind, TABLES[kind](titel=list("wxyz"), text=[1, 2, 3, 4]))
    assert [row["alt_text"] for row in rows] == [None] * 4
    assert said.startswith("no alt text in 00000.parquet: the column 'text' is int64, not text; the pool's setting ")
    rows, said = index(tmp_path / "pool", kind, TABLES[kind](titel=list("wxyz")))
    assert [row["alt_text"] for row in rows] == [None] * 4
    assert said.startswith("no alt text in 00000.parquet: it has none called alt_text, ")


@pytest.mark.parametrize("kind", TABLES)
def test_column_named_in_the_pool_is_the_only_alt_text(tmp_path: Path, kind: str) -> None:
    table = TABLES[kind](titel=["w", None, "", "z"], text=list("abcd"))
    rows, said = index(tmp_path / "pool", kind, table, alt_text="titel")
    assert [row["alt_text"] or None for row in rows] == ["w", None, None, "z"]
    assert said == "alt text from the column 'titel'"
    rows, said = index(tmp_path / "pool", kind, TABLES[kind](Titel=list("wxyz"), text=list("abcd")), alt_text="titel")
    assert [row["alt_text"] for row in rows] == list("wxyz")
    assert said == "alt text from the column 'Titel'"


@pytest.mark.parametrize("kind", TABLES)
def test_alt_text_column_of_an_unreadable_type_is_refused(tmp_path: Path, kind: str) -> None:
    table = TABLES[kind](number=[1, 2, 3, 4])
    with pytest.raises(ValueError, match=rf"^{kind}: 00000\.parquet: alt_text: no column 'titel' \(there are "):
        index(tmp_path / "pool", kind, table, alt_text="titel")
    with pytest.raises(ValueError, match=r"alt_text: column 'number' is int64, not text$"):
        index(tmp_path / "pool", kind, table, alt_text="number")


def test_url_and_sizes_of_laion_are_read(tmp_path: Path) -> None:
    columns = {"URL": [f"http://x/{n}" for n in range(4)], "TEXT": list("wxyz")}
    table = urls_table(**columns).rename_columns(["WIDTH", "HEIGHT", "URL", "TEXT"])
    rows, _ = index(tmp_path / "pool", "urls", table)
    assert [(row["key"], row["url"], row["alt_text"], row["width"], row["height"], row["error"]) for row in rows] == [
        (f"http://x/{n}", f"http://x/{n}", "wxyz"[n], 40, 30, None) for n in range(4)
    ]


def test_url_and_licence_are_read_in_any_letter_case(tmp_path: Path) -> None:
    table = images_table(URL=list("abcd"), Licence=list("efgh"), SHA256=list("ijkl"))
    rows, _ = index(tmp_path / "pool", "parquet", table)
    assert [row["url"] + row["license"] + row["sha256"] for row in rows] == ["aei", "bfj", "cgk", "dhl"]


def test_folder_of_images_has_no_alt_text() -> None:
    with pytest.raises(ValueError, match="a pool of images has no setting 'alt_text'"):
        pool_of(images="a", alt_text="text")


def test_run_of_an_earlier_version_has_the_same_pool(tmp_path: Path) -> None:
    pq.write_table(images_table(text=list("abcd")), tmp_path / "0.parquet")
    recipe = {"pool": {"parquet": str(tmp_path / "0.parquet")}}
    prepare(parse_recipe(recipe, "test"), str(tmp_path / "run"))
    stored = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert stored["pool"] == recipe["pool"]
    named = parse_recipe({"pool": {**recipe["pool"], "alt_text": "text"}}, "test")
    with pytest.raises(ValueError, match="was made from the pool"):
        prepare(named, str(tmp_path / "run"))


def test_index_command_reports_the_alt_text_column_once(tmp_path: Path, vl3syn: Vl3syn) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    for number in range(3):
        pq.write_table(images_table(titel=list("wxyz"), text=list("abcd")), pool / f"{number}.parquet")
    refused = vl3syn("index", "--parquet", pool, "--alt-text", "Title", "--run", tmp_path / "run")
    assert (refused.returncode, refused.stderr) == (
        1,
        "vl3syn: parquet: 0.parquet: alt_text: no column 'Title' (there are image, titel, text)\n",
    )
    for options, name, said in (([], "text", "abcd"), (["--alt-text", "titel"], "titel", "wxyz")):
        done = vl3syn("index", "--parquet", pool, *options, "--run", tmp_path / f"run-{name}")
        assert (done.returncode, done.stderr.count("alt text")) == (0, 1), done.stderr
        assert f"pool: alt text from the column {name!r}\n" in done.stderr
        rows = open_run(tmp_path / f"run-{name}").index.scan().sort("shard", "offset").collect()
        assert rows["alt_text"].to_list() == list(said) * 3


def test_alt_text_ending_of_tars_can_be_chosen(tmp_path: Path) -> None:
    members: list[Any] = ["a.png", "a.txt", ("a.de", b"ein Fuchs"), ("a.json", json.dumps({"en": "x"}).encode())]
    tar(tmp_path / "0.tar", members)
    with pytest.raises(
        ValueError, match=r"^tars: 0\.tar: alt_text: no side file ends in \.fr, and no \.json has that key$"
    ):
        open_pool(pool_of(tars=str(tmp_path), alt_text="fr"), str(tmp_path / "run"))
    assert open_pool(pool_of(tars=str(tmp_path), alt_text=".de"), str(tmp_path / "run")).alt_text == "alt text from .de"
    assert open_pool(pool_of(tars=str(tmp_path), alt_text="en"), str(tmp_path / "run")).alt_text == (
        "alt text from 'en' of .json"
    )
    assert open_pool(pool_of(tars=str(tmp_path)), str(tmp_path / "run")).alt_text == "alt text from .txt"
