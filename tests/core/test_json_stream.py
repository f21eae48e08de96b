"""JSON value by value: what `json.loads` reads, in chunks of any size, and nothing that it refuses."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BadSampleError
from core.json_stream import JsonStream

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def stream(text: str, chunk: int = 7, largest: int = 1 << 20) -> JsonStream:
    return JsonStream(io.BytesIO(text.encode()), largest, chunk=chunk)


def elements(text: str, **others: Any) -> list[Any]:
    opened = stream(text, **others)
    values = list(opened.elements())
    opened.finish()
    return values


@settings(max_examples=60)
@given(st.lists(VALUES, max_size=5), st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_elements_are_those_of_loads(values: list[Any], chunk: int, ascii_: bool, indent: int | None) -> None:
    text = json.dumps(values, ensure_ascii=ascii_, indent=indent)
    assert elements(f"\ufeff {text}\n ", chunk=chunk) == values


@settings(max_examples=60)
@given(st.dictionaries(st.text(), VALUES, max_size=5), st.integers(1, 40), st.booleans())
def test_keys_have_their_values(values: dict[str, Any], chunk: int, skipped: bool) -> None:
    opened = stream(json.dumps(values), chunk)
    read = {key: opened.skip() if skipped else opened.value() for key in opened.keys()}  # noqa: SIM118
    opened.finish()
    assert read == (dict.fromkeys(values) if skipped else values)


@settings(max_examples=60)
@given(st.lists(VALUES, min_size=1, max_size=4), st.data())
def test_array_that_breaks_off_is_an_error(values: list[Any], data: st.DataObject) -> None:
    text = json.dumps(values)
    with pytest.raises(BadSampleError):
        elements(text[: data.draw(st.integers(0, len(text) - 1))])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1,,2]", "Expecting value"),
        ("[1 2]", r"'2' in place of , or \]"),
        ("[1, 2,]", "Expecting value"),
        ("[1][2]", r"more behind the end, beginning with '\['"),
        ("[1] x", "more behind the end"),
        ("[1", r"cut off before , or \]"),
        ("{}", r"'{' in place of \["),
        ("", r"cut off before \["),
        ("[" * 100_000, "nested too deeply"),
        (f"[{'1' * 5000}]", "4300"),
        ("[nope, 'a far longer text behind what is broken']", "Expecting value"),
    ],
)
@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_what_is_no_array_is_an_error(text: str, reason: str, chunk: int) -> None:
    with pytest.raises(BadSampleError, match=reason):
        elements(text, chunk=chunk)


def test_what_foreign_writers_write_is_read() -> None:
    nan, large, half = elements('[NaN, 100000000000000000000000, "\\ud800"]')
    assert (nan != nan, large, half) == (True, 10**23, "\ud800")
    opened = JsonStream(io.BytesIO(b'["\xff"]'), 99, "surrogateescape")
    assert list(opened.elements()) == ["\udcff"]


@pytest.mark.parametrize("chunk", [1 << 10, 1 << 22])
def test_value_that_would_fill_the_memory_is_an_error(chunk: int) -> None:
    row = "x" * 900_000
    assert len(elements(json.dumps([row] * 3), chunk=chunk)) == 3
    with pytest.raises(BadSampleError, match="of more than 1 MiB: it would fill the memory"):
        elements(json.dumps([row, row * 2]), chunk=chunk)
