"""Hosts of URLs."""

from __future__ import annotations

import pyarrow as pa

from filters.host import Host


def test_host_of_known_urls_is_right_and_a_missing_one_an_error() -> None:
    urls = ["https://Images.Example.org:8080/a.jpg?x=1", "//cdn.example/b", "http://[::1", "nothing", None]
    result = Host()(pa.table({"url": pa.array(urls, pa.string())}))
    assert result["host"].to_pylist() == ["images.example.org", "cdn.example", None, None, None]
    assert [error is None for error in result["error"].to_pylist()] == [True, True, False, False, False]
