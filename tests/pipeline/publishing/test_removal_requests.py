"""Lists of what is to be removed: every line is understood, or told."""

from __future__ import annotations

import polars as pl
import pytest

from core.errors import UserError
from pipeline.publishing.removal_requests import Names, Request, parse_requests, refuse_ambiguous

SHA = "a" * 64
ROWS = pl.LazyFrame(
    {
        "id": [11, 12, 13, 14],
        "sha256": [SHA, "b" * 64, None, SHA],
        "url": ["http://x.org/%7Ea.jpg", None, "https://bücher.example/", "http://x.org/other"],
        "source_shard": ["0.tar", "0.tar", "1.tar", "1.tar"],
        "source_key": ["a.jpg", "12", "a.jpg", "11"],
    }
)


def named(*lines: str) -> list[int]:
    requests = parse_requests(lines, "list")
    found = Names(requests).found_in(ROWS)
    refuse_ambiguous(found, requests, "list")
    return sorted(found["id"].unique())


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        ("13", [13]),
        ("id:11", [11]),
        ("key:11", [14]),
        ("12", [12]),  # the key and the id of one image
        (SHA.upper(), [11, 14]),
        ("HTTP://X.org:80/~a.jpg#part", [11]),
        ("url:https://xn--bcher-kva.example", [13]),
        ("1.tar/a.jpg", [13]),
        ("http://x.org/", []),
    ],
)
def test_line_names_images_by_id_hash_url_or_key(line: str, ids: list[int]) -> None:
    assert named(line) == ids


def test_spellings_of_one_url_are_requests_of_their_own() -> None:
    requests = parse_requests(["http://x.org/~a.jpg", "http://x.org/%7Ea.jpg"], "list")
    assert sorted(Names(requests).found_in(ROWS)["request"].to_list()) == [0, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "11",
            r"^list: '11' is the id of one image and the key of another: write id:11 or key:11; nothing is removed$",
        ),
        ("a.jpg", r"^list: 'a.jpg' is a key in 2 files: write 0.tar/a.jpg, 1.tar/a.jpg, or ids; nothing is removed$"),
    ],
)
def test_ambiguous_line_is_refused_with_its_readings(line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        named("12", line)


def test_byte_order_mark_is_no_part_of_a_name() -> None:
    """Standard input keeps it, which a file of Windows begins with."""
    assert parse_requests(["\ufeff11\r\n", "# more\r\n"], "list") == [Request("11")]


def test_reasons_comments_and_empty_lines_are_no_names() -> None:
    lines = [
        "# asked for by mail",
        "",
        "11\tby the owner",
        "key:a#1.jpg  # a face",
        " 13 ",
    ]
    assert parse_requests(lines, "list") == [
        Request("11", reason="by the owner"),
        Request("a#1.jpg", "key", "a face"),
        Request("13"),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "list: names no image: write an id"),
        (["# only this"], "list: names no image: write an id"),
        (["11", "sha256:11"], "^list:2: '11' is no sha256$"),
        (["url:x.org/a"], "^list:1: 'x.org/a' is no url$"),
        (["id:9999999999999999999"], "^list:1: '9999999999999999999' is no id$"),
        (["x" * 70_000], "^list:1: the line is longer than"),
    ],
)
def test_list_that_says_nothing_or_wrong_is_refused(lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_requests(lines, "list")
