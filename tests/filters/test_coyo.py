"""COYO's own metadata as facts: known rows, ranges, and whatever else columns of these names may hold."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from filters.coyo import Coyo
from manifests.rules import parse_rules
from manifests.schemas import bounds

GOOD: dict[str, list[Any]] = {
    "aesthetic_score_laion_v2": [4.77, 8.08],
    "clip_similarity_vitb32": [0.291, -0.05],
    "clip_similarity_vitl14": [0.255, 1.0],
    "watermark_score": [0.18, 0.0],
    "nsfw_score_opennsfw2": [0.01, 0.5],
    "nsfw_score_gantman": [0.02, 1.0],
    "image_phash": ["85a4a3b5d1d2d2c8", "0000000000000000"],
    "num_faces": [0, 3],
    "word_count": [12, 1],
}


def table(**columns: Any) -> pa.Table:
    """Two rows as COYO has them, with some columns put in place; None takes one out, as the worker hands it on."""
    merged = {**GOOD, **columns}
    return pa.table({f"pool.{name}": pa.nulls(2) if cells is None else cells for name, cells in merged.items()})


def facts(**columns: Any) -> dict[str, list[Any]]:
    result = Coyo()(table(**columns))
    writes = Coyo().writes
    assert result.select(writes.names).schema.types == writes.types
    assert result["error"].type == pa.string()
    rows: dict[str, list[Any]] = result.to_pydict()
    for row, error in enumerate(rows["error"]):
        assert error is None or all(rows[name][row] is None for name in writes.names)
    return rows


def test_columns_of_known_rows_are_right() -> None:
    assert facts() == {
        "coyo_aesthetic": pytest.approx([4.77, 8.08]),
        "coyo_clip_b32": pytest.approx([0.291, -0.05]),
        "coyo_clip_l14": pytest.approx([0.255, 1.0]),
        "coyo_watermark": pytest.approx([0.18, 0.0]),
        "coyo_nsfw": pytest.approx([0.01, 0.5]),
        "coyo_nsfw_gantman": pytest.approx([0.02, 1.0]),
        "coyo_phash": ["85a4a3b5d1d2d2c8", "0000000000000000"],
        "coyo_faces": [0, 3],
        "coyo_words": [12, 1],
        "error": [None, None],
    }


def test_columns_declare_their_ranges() -> None:
    writes = Coyo().writes
    assert {f.name: bounds(f) for f in writes if pa.types.is_floating(f.type)} == {
        "coyo_aesthetic": (0, 10),
        "coyo_clip_b32": (-1, 1),
        "coyo_clip_l14": (-1, 1),
        "coyo_watermark": (0, 1),
        "coyo_nsfw": (0, 1),
        "coyo_nsfw_gantman": (0, 1),
    }
    for name, type_ in (("coyo_phash", pa.string()), ("coyo_faces", pa.int32()), ("coyo_words", pa.int32())):
        assert writes.field(name).type == type_
    assert [rule.name for rule in parse_rules({"min": 4.5, "max_coyo_watermark": 0.8}, writes, "t")] == [
        "min_coyo_aesthetic",
        "max_coyo_watermark",
    ]
    with pytest.raises(ValueError, match="runs from 0 to 1"):
        parse_rules({"max_coyo_nsfw": 5}, writes, "t")


def test_column_names_differ_from_those_of_other_stages() -> None:
    assert all(name.startswith("coyo_") for name in Coyo().writes.names)
    assert len(Coyo().reads) == len(Coyo().writes)
    assert {name.removeprefix("pool.") for name in Coyo().reads} == set(GOOD)


@pytest.mark.parametrize("name", list(GOOD))
def test_missing_column_is_null(name: str) -> None:
    rows = facts(**{name: None})
    lacking = Coyo().writes.names[list(GOOD).index(name)]
    assert [key for key, cells in rows.items() if cells == [None, None]] == [lacking, "error"]


def test_table_with_every_column_missing_is_null() -> None:
    rows = facts(**dict.fromkeys(GOOD))
    assert all(cells == [None, None] for cells in rows.values())


@pytest.mark.parametrize(
    "cells",
    [pytest.param(pa.array([0.5, None], type_), id=str(type_)) for type_ in (pa.float16(), pa.float32(), pa.float64())]
    + [pytest.param(pa.array([Decimal("0.5"), None]), id="decimal")]
    + [pytest.param(pa.array([0.5, float("nan")]), id="NaN"), pytest.param([0.5, np.nan], id="NaN of numpy")],
)
def test_null_and_nan_of_any_type_are_null(cells: Any) -> None:
    rows = facts(watermark_score=cells)
    assert rows["coyo_watermark"] == [0.5, None]
    assert rows["error"] == [None, None]


@pytest.mark.parametrize("type_", [pa.int8(), pa.uint8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64()])
def test_counts_of_any_number_type_are_read(type_: pa.DataType) -> None:
    rows = facts(num_faces=pa.array([7, None], type_))
    assert (rows["coyo_faces"], rows["error"]) == ([7, None], [None, None])


def test_integer_scores_are_read() -> None:
    assert facts(aesthetic_score_laion_v2=pa.array([5, None], pa.int64()))["coyo_aesthetic"] == [5.0, None]


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view()])
def test_phash_of_any_text_type_is_read(type_: pa.DataType) -> None:
    assert facts(image_phash=pa.array(["ff", None], type_))["coyo_phash"] == ["ff", None]


def test_phash_that_is_not_utf8_is_an_error() -> None:
    offsets = pa.py_buffer(struct.pack("<3i", 0, 2, 4))
    odd = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab\xff\xfe")])
    assert facts(image_phash=odd)["coyo_phash"] == ["ab", "\\xff\\xfe"]


@pytest.mark.parametrize(
    ("name", "cells", "said"),
    [
        ("watermark_score", ["0.5", None], "is string, not a number"),
        ("watermark_score", pa.array(["n/a", None], pa.large_string()), "is large_string, not a number"),
        ("nsfw_score_gantman", [True, None], "is bool, not a number"),
        ("aesthetic_score_laion_v2", [[4.5], None], "is list<item: double>, not a number"),
        ("clip_similarity_vitb32", pa.array([1, None], pa.timestamp("s")), "is timestamp[s], not a number"),
        ("image_phash", [5, None], "is int64, not text"),
        ("image_phash", [b"ff", None], "is binary, not text"),
        ("num_faces", ["2", None], "is string, not a number"),
        ("num_faces", [1.5, None], "is 1.5, not a whole number from 0"),
        ("num_faces", [-1, None], "is -1, not a whole number from 0"),
        ("word_count", [1 << 31, None], "is 2.14748e+09, not a whole number from 0"),
        ("word_count", pa.array([1 << 63, None], pa.uint64()), "is 9.22337e+18, not a whole number from 0"),
        ("word_count", [float("inf"), None], "is inf, not a whole number from 0"),
        ("aesthetic_score_laion_v2", [-0.5, None], "is -0.5, not from 0 to 10"),
        ("aesthetic_score_laion_v2", [47.7, None], "is 47.7, not from 0 to 10"),
        ("clip_similarity_vitl14", [25.5, None], "is 25.5, not from -1 to 1"),
        ("clip_similarity_vitl14", [-1.5, None], "is -1.5, not from -1 to 1"),
        ("watermark_score", [1.5, None], "is 1.5, not from 0 to 1"),
        ("nsfw_score_opennsfw2", [float("-inf"), None], "is -inf, not from 0 to 1"),
    ],
)
def test_invalid_value_is_an_error_of_its_row_only(name: str, cells: Any, said: str) -> None:
    rows = facts(**{name: cells})
    assert rows["error"] == [f"bad metadata: {name} {said}", None]
    assert rows["coyo_phash"][1] == (None if name == "image_phash" else "0000000000000000")


def test_first_of_several_invalid_values_is_reported() -> None:
    rows = facts(watermark_score=["x", None], num_faces=[-1, -1])
    assert rows["error"] == [
        "bad metadata: watermark_score is string, not a number",
        "bad metadata: num_faces is -1, not a whole number from 0",
    ]


def test_score_rounded_out_of_its_range_is_clipped() -> None:
    rows = facts(clip_similarity_vitb32=[1.0005, -1.0000001], watermark_score=[-1e-8, 1.0009])
    assert (rows["coyo_clip_b32"], rows["coyo_watermark"]) == ([1.0, -1.0], [0.0, 1.0])
    assert rows["error"] == [None, None]


def test_chunked_and_empty_tables_are_read() -> None:
    two = pa.concat_tables([table(), table(watermark_score=[0.9, None])])
    result = Coyo()(two)
    assert result["coyo_watermark"].to_pylist() == pytest.approx([0.18, 0.0, 0.9, None])
    assert Coyo()(two.slice(0, 0)).num_rows == 0


def test_coyo_has_no_settings() -> None:
    assert Coyo().model_dump() == {}
    assert (Coyo().name, Coyo().version) == ("coyo", 1)
