"""Images in the columns of Parquet as public data sets have them: read, or the column and what is accepted is named."""

from __future__ import annotations

import base64
import io
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.errors import UserError
from manifests import open_run
from pipeline.execution.index import open_pool
from pipeline.pools import pool_of
from pipeline.pools.reader import Images

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]


def picture(number: int, format_: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (240 + number, 200), (number * 40, 90, 90)).save(data, format_)
    return data.getvalue()


IMAGES = [picture(number) for number in range(4)]
TEXTS = [f"the text of {number}" for number in range(4)]
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CELLS = [{"bytes": image, "path": f"{number}.jpg"} for number, image in enumerate(IMAGES)]
LONGEST = max(map(len, IMAGES))
BASE64 = [base64.b64encode(image).decode() for image in IMAGES]
LINES = [base64.encodebytes(image).decode() for image in IMAGES]
WEB = [base64.urlsafe_b64encode(image).decode().rstrip("=") for image in IMAGES]
SIGNED = [[byte - 256 if byte > 127 else byte for byte in image] for image in IMAGES]

FORMS: dict[str, tuple[str, Any]] = {
    "bytes": ("jpg", IMAGES),
    "large bytes": ("image_bytes", pa.array(IMAGES, pa.large_binary())),
    "views": ("image", pa.array(IMAGES, pa.binary_view())),
    "dictionary": ("img", pa.array(IMAGES).dictionary_encode()),
    "fixed size": ("image", pa.array([image.ljust(LONGEST, b"\0") for image in IMAGES], pa.binary(LONGEST))),
    "struct": ("image", pa.array(CELLS, CELL)),
    "list of structs": ("images", pa.array([[cell] for cell in CELLS], pa.list_(CELL))),
    "large list of structs": ("images", pa.array([[cell] for cell in CELLS], pa.large_list(CELL))),
    "list of bytes": ("images", pa.array([[image] for image in IMAGES], pa.list_(pa.binary()))),
    "list of views": ("images", pa.array([[image] for image in IMAGES], pa.list_(pa.binary_view()))),
    "list of uint8": ("image", pa.array([list(image) for image in IMAGES], pa.list_(pa.uint8()))),
    "large list of uint8": ("image", pa.array([list(image) for image in IMAGES], pa.large_list(pa.uint8()))),
    "list of int8": ("image", pa.array(SIGNED, pa.list_(pa.int8()))),
    "base64": ("image", BASE64),
    "base64 in lines": ("image_base64", LINES),
    "base64 for URLs": ("image", pa.array(WEB, pa.string_view())),
    "base64 in a dictionary": ("image", pa.array(BASE64).dictionary_encode()),
    "base64 as bytes": ("image", [text.encode() for text in BASE64]),
    "list of base64": ("images", [[text] for text in BASE64]),
    "data URI": ("image", [f"data:image/jpeg;base64,{text}" for text in BASE64]),
    "data URI in capitals": ("image", [f"Data:image/jpeg;BASE64,{text}" for text in BASE64]),
    "data URI as bytes": ("image", [f"data:image/jpeg;base64,{text}".encode() for text in BASE64]),
}


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def index(path: Path, **settings: Any) -> list[dict[str, Any]]:
    """The rows of a pool; the images of those without an error are read and have the length that is stored."""
    pool = pool_of(parquet=str(path), **settings)
    listing = pool.listing()
    table = pool.index(listing.root, listing.shards)
    rows: list[dict[str, Any]] = table.to_pylist()
    images = Images(pool, listing.root)
    good = [row for row in rows if row["error"] is None]
    read = [data for group in images.groups(table.filter(table["error"].is_null())) for data in images.read(group)]
    for row, data in zip(good, read, strict=True):
        assert isinstance(data, bytes)
        assert len(data) == row["bytes"]
        row["data"] = data.rstrip(b"\0") if pa.types.is_fixed_size_binary(_type(path)) else data
    return rows


def _type(path: Path) -> pa.DataType:
    return pq.read_schema(path).field(0).type


@pytest.mark.parametrize("form", FORMS)
def test_image_column_of_any_form_is_read(tmp_path: Path, form: str) -> None:
    name, column = FORMS[form]
    rows = index(write(tmp_path / "0.parquet", **{name: column}, text=TEXTS))
    assert [(row["error"], row["width"], row["alt_text"]) for row in rows] == [
        (None, 240 + number, text) for number, text in enumerate(TEXTS)
    ]
    assert [row["data"] for row in rows] == IMAGES
    paths = "struct" in form
    assert [row["key"] for row in rows] == [f"{number}.jpg" if paths else str(number) for number in range(4)]


def test_list_with_several_images_is_an_error_row(tmp_path: Path) -> None:
    lists = [CELLS[:3], CELLS[3:], [], None]
    rows = index(write(tmp_path / "0.parquet", images=pa.array(lists, pa.list_(CELL))))
    assert [(row["error"] or row["width"]) for row in rows] == [
        "several images: the cell holds 3, one is read per row",
        243,
        "null image: the cell holds no bytes",
        "null image: the cell holds no bytes",
    ]


def test_list_of_numbers_with_nulls_is_an_error_row(tmp_path: Path) -> None:
    numbers = [list(IMAGES[0]), [255, None, 3], None, []]
    rows = index(write(tmp_path / "0.parquet", image=pa.array(numbers, pa.list_(pa.uint8()))))
    assert [(row["error"] or "").partition(":")[0] for row in rows] == ["", "null image", "null image", "empty"]


def test_slice_of_a_list_of_numbers_is_read(tmp_path: Path) -> None:
    """More rows than a batch has, with an empty one and a null among them."""
    numbers = [list(picture(number, "PNG")) for number in range(150)]
    numbers[70], expected = [], [240 + number for number in range(150)]
    rows = index(write(tmp_path / "0.parquet", image=pa.array([*numbers, None], pa.list_(pa.uint8()))))
    assert [row["width"] for row in rows] == [*expected[:70], None, *expected[71:], None]


def test_plain_pnm_is_not_taken_for_base64(tmp_path: Path) -> None:
    plain = b"P3\n2\n1\n255\n" + b"0\n" * 6 + b"\n" * 100
    (row,) = index(write(tmp_path / "0.parquet", image=[plain]))
    assert (row["error"], row["width"], row["data"]) == (None, 2, plain)


def test_path_of_a_struct_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(IMAGES[0])
    for name, column in {
        "struct": pa.array([{"path": str(tmp_path / "secret.jpg")}], CELL),
        "list": pa.array([[{"path": str(tmp_path / "secret.jpg")}]], pa.list_(CELL)),
    }.items():
        (row,) = index(write(tmp_path / f"{name}.parquet", image=column))
        assert row["error"].startswith("null image: the cell holds no bytes, and its path ")
        assert row["width"] is None


@pytest.mark.parametrize("form", ["base64", "data URI", "list of uint8", "bytes", "list of structs"])
def test_image_above_the_limit_is_an_error_row(tmp_path: Path, form: str) -> None:
    name, column = FORMS[form]
    rows = index(write(tmp_path / "0.parquet", **{name: column}), max_image_bytes=len(IMAGES[0]) - 1)
    assert {row["error"].partition(":")[0] for row in rows if len(IMAGES[row["offset"]]) >= len(IMAGES[0])} == {
        "too long"
    }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "paths": ({"image": ["a.jpg"]}, "column 'image' has no image in its first 1 rows: no image: the text 'a.jpg'"),
    "URLs": ({"image": ["https://x.org/a.jpg"]}, "is not base64; a path or URL is not followed"),
    "hexadecimal": ({"image": [IMAGES[0].hex()]}, "column 'image' has no image in its first 1 rows: not an image"),
    "only paths": ({"image": [{"path": "/a"}]}, "no column can hold the image (image: struct<path: string>"),
    "other fields": ({"image": [{"data": b"x", "n": 1}]}, "(image: struct<data: binary, n: int64>); accepted: bytes, "),
    "pixels": ({"image": pa.array([[[1]]], pa.list_(pa.list_(pa.uint8())))}, "(image: list<element: list<element: "),
    "long numbers": ({"image": [[255, 216]]}, "(image: list<element: int64>)"),
    "digests": ({"md5": pa.array([b"x" * 16], pa.binary(16)), "text": ["a"]}, "(md5: fixed_size_binary[16], text"),
    "two": ({"image": [b"x"], "mask": [b"x"]}, "2 columns (image, mask) can hold the image; name one as `image`"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_column_without_images_is_named(tmp_path: Path, kind: str) -> None:
    columns, said = REFUSED[kind]
    with pytest.raises(UserError) as caught:
        open_pool(pool_of(parquet=str(write(tmp_path / "0.parquet", **columns))), str(tmp_path / "run"))
    assert str(caught.value).startswith("parquet: 0.parquet: ")
    assert said in str(caught.value)
    assert "broken" not in str(caught.value)


def test_plain_bytes_column_is_preferred(tmp_path: Path) -> None:
    """A file whose image was plain from its schema reads as before, whatever lists and texts are beside it."""
    columns = {"image": IMAGES, "images": [[b"x"]] * 4, "png": BASE64, "md5": pa.array([b"x" * 16] * 4, pa.binary(16))}
    assert [row["width"] for row in index(write(tmp_path / "0.parquet", **columns))] == [240, 241, 242, 243]


BESIDE: dict[str, tuple[str, str, Any]] = {
    "base64, bytes": ("base64", "thumbnail", [b"x"] * 4),
    "base64, text as bytes": ("base64", "caption", [b"x"] * 4),
    "base64, digest": ("base64", "sha256", [b"x" * 32] * 4),
    "base64, two of bytes": ("base64", "meta", pa.array([{"bytes": b"x"}] * 4)),
    "list of structs, struct": ("list of structs", "thumbnail", pa.array(CELLS[::-1], CELL)),
    "list of uint8, bytes": ("list of uint8", "mask", IMAGES[::-1]),
    "fixed size, bytes": ("fixed size", "mask", IMAGES[::-1]),
}


@pytest.mark.parametrize("beside", BESIDE)
def test_column_named_image_is_preferred_to_a_plainer_one(tmp_path: Path, beside: str) -> None:
    form, other, values = BESIDE[beside]
    name, column = FORMS[form]
    rows = index(write(tmp_path / "0.parquet", **{name: column, other: values}))
    assert [row["error"] for row in rows] == [None] * 4
    assert [row["data"] for row in rows] == IMAGES


@pytest.mark.parametrize("name", ["bytes", "data", "content", "raw"])
def test_usual_bytes_column_is_preferred_to_a_path_named_image(tmp_path: Path, name: str) -> None:
    rows = index(write(tmp_path / "0.parquet", **{name: IMAGES, "image": ["a.jpg"] * 4}))
    assert [row["data"] for row in rows] == IMAGES


def test_two_image_columns_of_one_name_are_an_error_row(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", image=IMAGES)
    twice = pa.Table.from_arrays([pa.array(IMAGES), pa.array(IMAGES[::-1])], names=["image", "image"])
    pq.write_table(twice, tmp_path / "1.parquet")
    pool = pool_of(parquet=f"{tmp_path}/*.parquet")
    listing = open_pool(pool, str(tmp_path / "run"))
    rows = pool.index(listing.root, listing.shards).to_pylist()
    said = "unread Parquet: 2 columns are called 'image'; none of its 4 rows were read"
    assert [row["error"] for row in rows] == [None] * 4 + [said]
    with pytest.raises(UserError, match=r"1\.parquet: 2 columns are called 'image'"):
        open_pool(pool_of(parquet=str(tmp_path / "1.parquet")), str(tmp_path / "run"))


def test_image_column_is_named_in_the_listing(tmp_path: Path) -> None:
    listing = open_pool(
        pool_of(parquet=str(write(tmp_path / "0.parquet", image=BASE64, mask=IMAGES))), str(tmp_path / "run")
    )
    assert listing.image == "image from the column 'image'"


@pytest.mark.parametrize("column", ["jpg", "image_bytes"])
def test_other_bytes_column_of_img2dataset_is_not_the_image(tmp_path: Path, column: str) -> None:
    table = {"exif_raw": [b"x"] * 4, "key": list("abcd"), column: IMAGES, "more": [b"y"] * 4, "status": ["success"] * 4}
    write(tmp_path / "00000.parquet", **table)
    (tmp_path / "00000_stats.json").write_text("{}")
    pool = pool_of(img2dataset=str(tmp_path))
    listing = pool.listing()
    rows = pool.index(listing.root, listing.shards)
    assert rows["width"].to_pylist() == [240, 241, 242, 243]
    images = Images(pool, listing.root)
    assert [data for group in images.groups(rows) for data in images.read(group)] == IMAGES


@pytest.mark.parametrize("empty", [0, 3])
def test_first_file_with_rows_sets_the_column_of_the_pool(tmp_path: Path, empty: int) -> None:
    write(tmp_path / "1.parquet", image=BASE64, text=TEXTS)
    for number in range(empty):
        write(tmp_path / f"0{number}.parquet", image=pa.array([], pa.string()))
    listing = open_pool(pool_of(parquet=f"{tmp_path}/*.parquet"), str(tmp_path / "run"))
    assert listing.alt_text == "alt text from the column 'text'"


@pytest.mark.parametrize(
    "form",
    [
        "list of structs",
        *(pytest.param(form, marks=pytest.mark.thorough) for form in ("list of bytes", "list of uint8")),
    ],
)
def test_row_group_of_many_images_in_lists_is_read(tmp_path: Path, form: str) -> None:
    """All of 70 MB are in one dictionary, which alone does not show that no value is repeated."""
    noise = random.Random(0)
    images = [IMAGES[0] + noise.randbytes(1 << 20 if number == 0 else 70_000) for number in range(1000)]
    column: Any = [[{"bytes": image, "path": None}] for image in images]
    type_ = pa.list_(CELL)
    if form != "list of structs":
        column, type_ = ([[image] for image in images], pa.list_(pa.binary()))
    if form == "list of uint8":
        column = pa.array(images, pa.large_binary())
        numbers = pa.Array.from_buffers(pa.uint8(), sum(map(len, images)), [None, column.buffers()[2]])
        column, type_ = pa.LargeListArray.from_arrays(pa.array(np.cumsum([0, *map(len, images)])), numbers), None
    path = write(tmp_path / "0.parquet", image=column if type_ is None else pa.array(column, type_))
    assert pq.read_metadata(path).num_row_groups == 1
    pool = pool_of(parquet=str(path))
    listing = pool.listing()
    rows = pool.index(listing.root, listing.shards).to_pylist()
    assert [(row["error"], row["bytes"]) for row in rows] == [(None, len(image)) for image in images]


def test_index_command_reads_base64_and_names_paths(tmp_path: Path, vl3syn: Vl3syn) -> None:
    done = vl3syn(
        "index", "--parquet", write(tmp_path / "0.parquet", image=BASE64, TEXT=TEXTS), "--run", tmp_path / "run"
    )
    assert done.returncode == 0, done.stderr
    rows = open_run(tmp_path / "run").index.scan().sort("offset").collect()
    assert rows["width"].to_list() == [240, 241, 242, 243]
    assert rows["bytes"].to_list() == [len(image) for image in IMAGES]
    assert rows["alt_text"].to_list() == TEXTS
    refused = vl3syn("index", "--parquet", write(tmp_path / "1.parquet", image=["a.jpg"]), "--run", tmp_path / "other")
    assert refused.returncode == 1
    assert "column 'image' has no image in its first 1 rows" in refused.stderr
    assert not (tmp_path / "other").exists()
