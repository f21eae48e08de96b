"""Parts: from URLs to a tar and an outcome for each URL, with img2dataset in a child process."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.stages.download.engine import Downloaded, Engine
from pipeline.stages.download.outcomes import Outcome
from tests.pipeline.stages.download.conftest import MakeSettings
from tests.web_server import TRANSIENT, WebServer, image_of

FAULTS = {
    "404": ("HTTP 404: Not Found", False),
    "403": ("HTTP 403: Forbidden", False),
    "429": ("HTTP 429: Too Many Requests", True),
    "500": ("HTTP 500: Internal Server Error", True),
    "hang": ("timed out", True),
    "reset": ("connection reset", True),
    "short": ("short body: ", True),
    "endless": ("too large: more than 1,000,000 bytes", False),
    "loop": ("redirect loop", False),
    "html": ("not an image: text/html", False),
    "liar": ("not an image: image/jpeg", False),
    "noai": ("opt-out: X-Robots-Tag noai", False),
}
"""Kinds of faults: how the error begins, and whether a later run may succeed."""

EACH = 40
"""URLs with each fault, 4 % of a thousand."""


@pytest.fixture(scope="module")
def shared(make_settings: MakeSettings) -> Iterator[Engine]:
    """An engine of many tests: a child takes a second or two to start."""
    with Engine(make_settings(per_host=40, max_pause=2)) as engine:
        yield engine


@pytest.fixture(scope="module")
def resizing(make_settings: MakeSettings) -> Iterator[Engine]:
    with Engine(make_settings(longest=41)) as engine:
        yield engine


def _stored(downloaded: Downloaded, outcome: Outcome) -> bytes:
    assert outcome.offset is not None
    assert outcome.length is not None
    with downloaded.tar.open("rb") as file:
        file.seek(outcome.offset)
        return file.read(outcome.length)


def _hidden(port: int) -> dict[str, str]:
    """URLs that lead to 127.0.0.9, which is not allowed, or nowhere at all; with the beginning of their errors."""
    hosts = ["127.0.0.9", "2130706441", "0177.0.0.9", "0x7f.0.0.9", "127.9", "[::ffff:127.0.0.9]", "[::ffff:7f00:9]"]
    others = {
        "file:///etc/passwd": "forbidden scheme: file",
        f"ftp://127.0.0.9:{port}/image/a": "forbidden scheme: ftp",
        "data:image/png;base64,iVBORw0KGgo=": "forbidden scheme: data",
        f"http://127.0.0.2:{port}/to/http:%2F%2F127.0.0.9:{port}%2Fimage%2Fa": "forbidden address: 127.0.0.9",
        f"http://127.0.0.2:{port}/to/file:%2F%2F%2Fetc%2Fpasswd": "forbidden scheme: file",
        "": "bad URL: empty",
    }
    return {f"http://{host}:{port}/image/a": "forbidden address: " for host in hosts} | others


def test_each_of_1000_urls_ends_as_an_image_or_with_its_reason(web: WebServer, shared: Engine, tmp_path: Path) -> None:
    expected = {}
    for kind, (error, retry) in FAULTS.items():
        # A host of its own for those that ask for a pause; and a host that hangs holds up its other URLs.
        host = "127.0.0.3" if kind == "429" else "127.0.0.2"
        expected |= {web.url(f"{kind}/{number}", host): (error, retry) for number in range(EACH)}
    hidden = _hidden(web.port)
    expected |= {url: (error, False) for url, error in hidden.items()}
    images = {web.url(f"image/{number}"): image_of(str(number)) for number in range(1000 - len(expected))}
    urls = [*expected, *images]
    urls = sorted(urls, key=lambda url: hashlib.sha256(url.encode()).digest())
    assert len(urls) == 1000

    first = shared.download(0, urls, tmp_path)
    outcomes = dict(zip(urls, first.outcomes, strict=True))
    for url, image in images.items():
        assert _stored(first, outcomes[url]) == image
        assert outcomes[url].sha256 == hashlib.sha256(image).hexdigest()
    for url, (error, retry) in expected.items():
        ours = (outcomes[url].error or "").replace("host asked to wait: ", "HTTP 429: Too Many Requests")
        assert (ours.startswith(error), outcomes[url].retry) == (True, retry), (url, outcomes[url])
    assert web.connections.keys() == {"127.0.0.2", "127.0.0.3"}
    # Each URL was asked for once; of those whose host asked to wait, perhaps not all.
    assert set(web.asked.values()) == {1}
    assert web.connections["127.0.0.2"] == 1000 - len(hidden) - EACH + 2 + EACH  # a loop asks twice

    web.mended = True
    web.asked.clear()
    time.sleep(1)  # as long as the host asked for
    again = [url for url in urls if outcomes[url].retry]
    second = shared.download(1, again, tmp_path)
    assert {outcome.error for outcome in second.outcomes} == {None}
    transient = [kind for kind in FAULTS if kind in TRANSIENT]
    assert Counter(path.split("/")[0] for path in web.asked) == dict.fromkeys(transient, EACH)


def test_url_of_several_rows_is_fetched_once(web: WebServer, shared: Engine, tmp_path: Path) -> None:
    urls = [web.url("image/a"), web.url("404/b"), web.url("image/a"), web.url("404/b"), None, None]
    outcomes = shared.download(0, urls, tmp_path).outcomes
    assert web.asked == {"image/a": 1, "404/b": 1}
    assert [outcome.error for outcome in outcomes[:4]] == [None, "HTTP 404: Not Found"] * 2
    assert outcomes[0] == outcomes[2]
    assert [outcome.error for outcome in outcomes[4:]] == ["bad URL: empty"] * 2


def test_size_is_as_displayed_and_bytes_are_as_served(web: WebServer, shared: Engine, tmp_path: Path) -> None:
    downloaded = shared.download(7, [web.url("image/abc")], tmp_path)
    (outcome,) = downloaded.outcomes
    assert downloaded.tar == tmp_path / "00007.tar"
    assert _stored(downloaded, outcome) == image_of("abc")  # with its EXIF
    assert (outcome.width, outcome.height, outcome.format) == (30, 43, "JPEG")  # stored as 43×30, turned by EXIF


def test_broken_header_and_lone_surrogate_are_error_rows(web: WebServer, shared: Engine, tmp_path: Path) -> None:
    outcomes = shared.download(0, [web.url("broken/a"), web.url("image/\ud83d")], tmp_path).outcomes
    assert (outcomes[0].error or "").startswith("broken header: JPEG, ")
    assert (outcomes[1].error or "").startswith("bad URL: not valid Unicode: U+D83D at character ")
    assert [outcome.retry for outcome in outcomes] == [False, False]


def test_two_threads_may_use_one_engine(web: WebServer, shared: Engine, tmp_path: Path) -> None:
    def download(part: int) -> list[bytes]:
        folder = tmp_path / str(part)
        folder.mkdir()
        downloaded = shared.download(part, [web.url(f"image/{part}-{number}") for number in range(20)], folder)
        return [_stored(downloaded, outcome) for outcome in downloaded.outcomes]

    with ThreadPoolExecutor(2) as pool:
        for part, images in enumerate(pool.map(download, range(4))):
            assert images == [image_of(f"{part}-{number}") for number in range(20)]


@pytest.mark.parametrize("urls", [[], [None], ["file:///etc/passwd"]])
def test_part_without_an_image_is_a_part(shared: Engine, tmp_path: Path, urls: list[str | None]) -> None:
    downloaded = shared.download(0, urls, tmp_path)
    assert len(downloaded.outcomes) == len(urls)
    assert downloaded.tar.exists()


def test_host_has_no_more_connections_than_allowed(web: WebServer, make_settings: MakeSettings, tmp_path: Path) -> None:
    with Engine(make_settings(per_host=3)) as engine:
        outcomes = engine.download(0, [web.url(f"slow/{number}") for number in range(100)], tmp_path).outcomes
    assert {outcome.error for outcome in outcomes} == {None}
    assert web.most_at_once == 3


def test_resized_image_stays_upright(web: WebServer, resizing: Engine, tmp_path: Path) -> None:
    """img2dataset's resizer leaves out the EXIF that says how an image is turned."""
    downloaded = resizing.download(0, [web.url(f"image/{'a' * 42}")], tmp_path)
    (outcome,) = downloaded.outcomes
    assert (outcome.width, outcome.height, outcome.error) == (15, 41, None)  # of 82×30, turned
    assert outcome.sha256 == hashlib.sha256(_stored(downloaded, outcome)).hexdigest()


def test_image_that_is_small_enough_is_not_encoded_again(web: WebServer, resizing: Engine, tmp_path: Path) -> None:
    downloaded = resizing.download(0, [web.url("image/a")], tmp_path)
    assert _stored(downloaded, downloaded.outcomes[0]) == image_of("a")


def test_image_that_cannot_be_resized_is_an_error_row(web: WebServer, resizing: Engine, tmp_path: Path) -> None:
    (outcome,) = resizing.download(0, [web.url("broken/a")], tmp_path).outcomes
    assert (outcome.error, outcome.retry, outcome.status) == ("cannot be resized: Image decoding error", False, 200)
