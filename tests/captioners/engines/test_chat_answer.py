"""Whatever a server answers becomes a row that can be stored: a caption, or why there is none."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captioners.recaption import Captioner, ShortCaption
from tests.chat_server import ChatServer, chat_server
from tests.conftest import jpeg

WORDS = "A red square lies on a grey table beside a small green cup."
SOUND: dict[str, Any] = {
    "object": "chat.completion",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": WORDS}}],
    "usage": {"prompt_tokens": 300, "completion_tokens": 14, "completion_tokens_details": {"reasoning_tokens": 0}},
}
Served = tuple[ChatServer, Captioner]
Path = tuple[str | int, ...]


def captioner_of(server: ChatServer) -> Captioner:
    """One that takes no server for gone, however many answers in a row are errors."""
    engine = {"kind": "server", "url": server.url, "tries": 1, "concurrency": 4096}
    return ShortCaption(model="m", engine=engine).load()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with chat_server() as server:
        yield server, captioner_of(server)


def row_of(served: Served, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """The row of one answer, after it went through Arrow and Parquet."""
    server, captioner = served
    server.raw = status, headers or {}, body
    file = io.BytesIO()
    pq.write_table(captioner([captioner.prepare(jpeg(8, 8), 0)]), file)
    table = pq.read_table(pa.BufferReader(file.getvalue()))
    table.validate(full=True)
    row: dict[str, Any] = table.to_pylist()[0]
    assert (row["short_caption"] is None) == bool(row["error"])
    return row


def replaced(path: Path, value: Any) -> bytes:
    """A sound answer with another value at `path`, as JSON."""
    answer = copy.deepcopy(SOUND)
    holder: Any = answer
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return json.dumps(answer).encode()


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    if path:
        yield path
    steps = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for step in steps:
        yield from paths(value[step], (*path, step))


TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(["\ud83d", "stop\udc00", "a\0b", "\ufeff", "error"])
NUMBERS = st.integers() | st.floats() | st.sampled_from([1 << 31, 1 << 40, -1, 10**400])
NAMES = st.sampled_from(["text", "type", "error", "message", "content", "value", "object"]) | TEXTS
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(list(paths(SOUND))), JSON)
def test_answer_with_any_value_in_any_field_becomes_a_row(served: Served, path: Path, value: Any) -> None:
    row_of(served, replaced(path, value))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(200, 999), JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
def test_answer_with_any_status_and_body_becomes_a_row(served: Served, status: int, body: bytes) -> None:
    row = row_of(served, b"" if status in (204, 304) else body, status)
    assert row["error"].startswith("server: ")


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=30))
def test_answer_with_any_header_becomes_a_row(served: Served, value: str) -> None:
    for name in ("Retry-After", "Set-Cookie", "Location"):
        assert row_of(served, b"", 503, {name: value})["error"] == "server: 503 Service Unavailable"


ERROR = "server: malformed answer ({})".format
MESSAGE: Path = ("choices", 0, "message")
USAGE: Path = ("usage",)


@pytest.mark.parametrize(
    ("path", "value", "caption", "error"),
    [
        ((*MESSAGE, "content"), f"{WORDS} \ud83d", WORDS, None),
        ((*MESSAGE, "content"), "A red\0 square.", "A red square.", None),
        ((*MESSAGE, "content"), ["A red", " square."], "A red square.", None),
        ((*MESSAGE, "content"), 7, None, ERROR("content is no text")),
        ((*MESSAGE, "content"), [None], None, ERROR("a part of content is no object")),
        (MESSAGE, None, None, ERROR("message is no object")),
        (("choices",), {"0": {}}, None, ERROR("choices[0] is no object")),
        (("choices",), [], None, ERROR("choices[0] is no object")),
        (("choices",), [{"text": "A red square.", "finish_reason": "stop"}], "A red square.", None),
        (("error",), {"message": "out of \ud83d memory"}, None, "server: out of memory"),
        (USAGE, [300, 14], WORDS, None),
        (USAGE, {"prompt_tokens": "300", "completion_tokens": 1 << 40}, WORDS, None),
        (USAGE, {"prompt_tokens": -1, "completion_tokens": float("nan")}, WORDS, None),
        (USAGE, {"prompt_tokens": 14.0, "completion_tokens": True}, WORDS, None),
    ],
)
def test_malformed_answers_become_known_rows(served: Served, path: Path, value: Any, caption: str, error: str) -> None:
    row = row_of(served, replaced(path, value))
    assert (row["short_caption"], row["error"], row["retry"]) == (caption, error, error is not None)
    assert (row["short_cut"], row["short_tokens"]) == (None if error else 0, None if error or path == USAGE else 14)


def test_finish_reason_of_half_a_character_is_stored_as_null(served: Served) -> None:
    answer = {"choices": [{"finish_reason": "\ud83d", "message": {"content": ""}}]}
    row = row_of(served, json.dumps(answer).encode())
    assert (row["error"], row["retry"]) == ("server: the answer broke off (finish_reason null)", True)


BYTES = json.dumps(SOUND).encode()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"\xef\xbb\xbf" + BYTES, None),
        (BYTES.decode().encode("utf-16"), None),
        (BYTES.replace(b'"usage"', b'"usage": 1, "choices": 2, "usage"'), "malformed answer (choices[0] is no object)"),
        (b"", "malformed answer (JSONDecodeError: Expecting value: line 1 column 1 (char 0))"),
        (b"null", "malformed answer (the answer is no object)"),
        (BYTES.replace(b"red", b"r\xffd"), "malformed answer (UnicodeDecodeError: "),
        (BYTES.replace(b"14", b"9" * 5000), "malformed answer (ValueError: Exceeds the limit (4300 digits)"),
        (b'{"choices": ' + b"[" * 100_000, "malformed answer (RecursionError: "),
        (b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}", ""),
        (b'data: {"choices": []}\n\ndata: [DONE]\n\n', "malformed answer (JSONDecodeError: "),
    ],
)
def test_malformed_bytes_become_known_rows(served: Served, body: bytes, error: str | None) -> None:
    row = row_of(served, body)
    if error is None:
        assert (row["short_caption"], row["error"]) == (WORDS, None)
    else:
        assert row["error"].startswith(f"server: {error}")
        assert row["retry"]


@pytest.mark.parametrize(("status", "phrase"), [(520, ""), (999, ""), (418, " I'm a teapot"), (204, " No Content")])
def test_status_without_a_name_or_body_is_an_error(served: Served, status: int, phrase: str) -> None:
    assert row_of(served, b"", status)["error"].lower() == f"server: {status}{phrase}".lower()


def test_cookie_of_one_answer_does_not_reach_the_next(served: Served) -> None:
    row_of(served, BYTES, headers={"Set-Cookie": "a\xff=\xfe"})
    assert row_of(served, BYTES)["short_caption"] == WORDS


def test_key_at_the_end_of_a_long_error_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "abcdefgh-123-ijklmnop")
    with chat_server() as server:
        captioner = captioner_of(server)
        for filler in range(175, 300, 5):
            said = f"{'x ' * (filler // 2)}{'y' * (filler % 2)} abcdefgh-123-ijklmnop"
            for status, body in ((400, said.encode()), (400, json.dumps({"error": said}).encode())):
                assert "abcd" not in str(row_of((server, captioner), body, status)["error"])
