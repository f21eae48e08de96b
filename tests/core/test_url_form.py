"""Spellings of one URL are equal; URLs that may give another image are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.url_form import comparable_url, host_forms


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://x.org/a.jpg", "HTTPS://X.ORG:443/a.jpg#top"),
        ("http://x.org", "http://x.org:80/"),
        ("http://x.org/%7Eme/%c3%a9.jpg", "http://x.org/~me/é.jpg"),
        ("http://x.org/a/../b/./c.jpg", "http://x.org/b/c.jpg"),
        ("http://x.org/a b.jpg", "http://x.org/a%20b.jpg"),
        ("http://bücher.example/a", "http://xn--bcher-kva.example/a"),
        ("http://x.org./a?q=%2f", "http://x.org/a?q=%2F"),
    ],
)
def test_spellings_of_one_url_are_equal(one: str, other: str) -> None:
    assert comparable_url(one) == comparable_url(other) is not None
    assert host_forms(one) & host_forms(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://x.org/a", "https://x.org/a"),
        ("http://x.org/a", "http://x.org/a/"),
        ("http://x.org/a", "http://x.org/A"),
        ("http://x.org/a%2Fb", "http://x.org/a/b"),
        ("http://x.org/a?p=1&q=2", "http://x.org/a?q=2&p=1"),
        ("http://x.org:8080/a", "http://x.org/a"),
        ("http://x.org/a", "http://www.x.org/a"),
    ],
)
def test_urls_that_may_differ_stay_different(one: str, other: str) -> None:
    assert comparable_url(one) != comparable_url(other)


@pytest.mark.parametrize("text", ["", "a.jpg", "12", "http://", "http://x:no/a", "http://[x", "/a/b", "x.org/a"])
def test_what_is_no_url_has_no_form(text: str) -> None:
    assert comparable_url(text) is None


@given(st.text(max_size=30))
def test_form_of_a_form_is_itself(path: str) -> None:
    form = comparable_url(f"http://x.org/{path}")
    assert form is None or comparable_url(form) == form
