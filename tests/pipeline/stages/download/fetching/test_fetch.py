"""One URL: its bytes, or the reason why there are none, and whether another try may help."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from pipeline.stages.download import fetching
from pipeline.stages.download.fetching.fetch import Fetched, Fetcher
from pipeline.stages.download.settings import DownloadSettings
from tests.web_server import WebServer, image_of

MakeFetcher = Callable[..., Fetcher]


@pytest.fixture
def make_fetcher() -> MakeFetcher:
    def make(**changes: object) -> Fetcher:
        few = {"allow": ["127.0.0.2"], "timeout": 20, "max_bytes": 1_000_000, "min_pause": 0}
        return Fetcher(**DownloadSettings.model_validate(few | changes).for_child()["fetch"])

    return make


@pytest.mark.parametrize(
    ("path", "status", "error", "retry"),
    [
        ("404/a", 404, "HTTP 404: Not Found", False),
        ("403/a", 403, "HTTP 403: Forbidden", False),
        ("410/a", 410, "HTTP 410: Gone", False),
        ("451/a", 451, "HTTP 451: Unavailable For Legal Reasons", False),
        ("304/a", 304, "HTTP 304: Not Modified", False),
        ("408/a", 408, "HTTP 408: Request Timeout", True),
        ("429/a", 429, "HTTP 429: Too Many Requests", True),
        ("500/a", 500, "HTTP 500: Internal Server Error", True),
        ("503/a", 503, "HTTP 503: Service Unavailable", True),
        ("522/a", 522, "HTTP 522", True),
        ("hang/a", None, "timed out", True),
        ("drip/a", 200, "timed out", True),
        ("drip-headers/a", None, "timed out", True),
        ("continue/a", None, "timed out", True),
        ("reset/a", None, "connection reset", True),
        ("short/a", 200, f"short body: {len(image_of('a')) - 100:,} of {len(image_of('a')):,} bytes", True),
        ("short-chunk/a", 200, "short body: cut off", True),
        ("endless/a", 200, "too large: more than 1,000,000 bytes", False),
        ("huge/a", 200, "too large: more than 1,000,000 bytes", False),
        ("bomb/a", 200, "too large: more than 1,000,000 bytes", False),
        ("loop/a", 302, "redirect loop", False),
        ("many/0", 302, "too many redirects: 10", False),
        ("html/a", 200, "not an image: text/html", False),
        ("liar/a", 200, "not an image: image/jpeg", False),
        ("empty/a", 200, "not an image: empty", False),
        ("noai/a", 200, "opt-out: X-Robots-Tag noai", False),
        ("noimageai/a", 200, "opt-out: X-Robots-Tag noimageai", False),
        ("garbage/a", None, "bad answer: BadStatusLine", False),
    ],
)
def test_fault_of_a_server_is_named(
    web: WebServer, make_fetcher: MakeFetcher, path: str, status: int | None, error: str, retry: bool
) -> None:
    fetcher = make_fetcher(timeout=0.5 if error == "timed out" else 20)
    assert fetcher.fetch(web.url(path)) == Fetched(None, status, error, retry)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("file:///etc/passwd", "forbidden scheme: file"),
        ("FILE:/etc/passwd", "forbidden scheme: file"),
        ("ftp://127.0.0.2/a.jpg", "forbidden scheme: ftp"),
        ("data:image/png;base64,iVBORw0KGgo=", "forbidden scheme: data"),
        ("gopher://127.0.0.2/", "forbidden scheme: gopher"),
        ("a.jpg", "bad URL: no http:// or https://"),
        ("", "bad URL: no http:// or https://"),
        ("http://", "bad URL: no host"),
        ("http:///a.jpg", "bad URL: no host"),
        ("http://127.0.0.2:99999/", "bad URL: Port out of range 0-65535"),
        ("http://127.0.0.2\0.example/", "bad URL: invalid host"),
        ("http://[::1/", "bad URL: Invalid IPv6 URL"),
        (
            f"http://{'a' * 70}.example/",
            "bad URL: encoding with 'idna' codec failed (UnicodeError: label empty or too long)",
        ),
    ],
)
def test_url_that_is_none_is_refused(make_fetcher: MakeFetcher, url: str, error: str) -> None:
    assert make_fetcher().fetch(url) == Fetched(None, None, error, False)


def test_bytes_are_those_that_were_served(web: WebServer, make_fetcher: MakeFetcher) -> None:
    assert make_fetcher().fetch(web.url("image/a")) == Fetched(image_of("a"), 200)


def test_type_does_not_matter_if_it_is_an_image(web: WebServer, make_fetcher: MakeFetcher) -> None:
    assert make_fetcher().fetch(web.url("wrong-type/a")).body == image_of("a")


def test_gzip_that_was_not_asked_for_is_decoded(web: WebServer, make_fetcher: MakeFetcher) -> None:
    assert make_fetcher().fetch(web.url("gzip/a")).body == image_of("a")
    assert web.headers["accept-encoding"] == "identity"


def test_redirect_is_followed_in_any_spelling(web: WebServer, make_fetcher: MakeFetcher) -> None:
    assert make_fetcher().fetch(web.url(f"to/{quote('../image/ü b', safe='')}")).status == 200
    assert web.asked["image/%C3%BC%20b"] == 1


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("file:///etc/passwd", "forbidden scheme: file"),
        ("http://127.0.0.9:{port}/image/a", "forbidden address: 127.0.0.9"),
        ("//127.0.0.9:{port}/image/a", "forbidden address: 127.0.0.9"),
        ("http://[::ffff:127.0.0.9]:{port}/", "forbidden address: ::ffff:127.0.0.9"),
    ],
)
def test_redirect_is_checked_as_the_first_url_is(
    web: WebServer, make_fetcher: MakeFetcher, location: str, error: str
) -> None:
    url = web.url(f"to/{quote(location.format(port=web.port), safe='')}")
    assert make_fetcher().fetch(url) == Fetched(None, 302, error, False)
    assert web.connections == {"127.0.0.2": 1}


def test_opt_out_is_a_setting(web: WebServer, make_fetcher: MakeFetcher) -> None:
    assert make_fetcher(opt_out=[]).fetch(web.url("noai/a")).body == image_of("a")


def test_user_agent_is_sent(web: WebServer, make_fetcher: MakeFetcher) -> None:
    fetcher = make_fetcher(user_agent="our-robot/2 (mail@example.org)")
    fetcher.fetch(web.url("image/a"))
    assert web.headers["user-agent"] == "our-robot/2 (mail@example.org)"


def test_default_user_agent_names_the_project(web: WebServer, make_fetcher: MakeFetcher) -> None:
    make_fetcher().fetch(web.url("image/a"))
    assert web.headers["user-agent"].startswith("vl3syn/")


def test_login_in_a_url_is_not_sent(web: WebServer, make_fetcher: MakeFetcher) -> None:
    fetched = make_fetcher().fetch(f"http://user:secret@127.0.0.2:{web.port}/image/a")
    assert fetched.status == 200
    assert "authorization" not in web.headers
    assert web.headers["host"] == f"127.0.0.2:{web.port}"


@pytest.mark.parametrize("path", ["429-long/a", "429-date/a"])
def test_host_that_asks_for_a_long_pause_is_left_alone(web: WebServer, make_fetcher: MakeFetcher, path: str) -> None:
    fetcher = make_fetcher()
    assert fetcher.fetch(web.url(path)).status == 429
    later = fetcher.fetch(web.url("image/a"))
    assert (later.status, later.retry) == (None, True)
    assert (later.error or "").startswith("host asked to wait: ")
    assert sum(web.asked.values()) == 1


def test_syntax_is_that_of_python_3_9() -> None:
    for file in Path(fetching.__file__).parent.glob("*.py"):
        ast.parse(file.read_text(), feature_version=(3, 9))


def test_waiting_for_a_pause_does_not_count_as_time_of_a_url(web: WebServer, make_fetcher: MakeFetcher) -> None:
    fetcher = make_fetcher(timeout=0.9)  # the pause lasts 1 s
    assert fetcher.fetch(web.url("429/a")).status == 429
    assert fetcher.fetch(web.url("image/a")).status == 200
