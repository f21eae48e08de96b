"""Parts: from URLs to a tar and an outcome for each URL, with img2dataset in a child process."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import UserError
from pipeline.stages.download.engine import Downloaded, Engine
from pipeline.stages.download.outcomes import Outcome
from tests.kills import alive, processes
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


def test_child_that_is_killed_is_started_again(
    web: WebServer, make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VL3SYN_TEST", str(tmp_path))

    def kill() -> None:
        first = _kill_when_asked(web, "hang/b", tmp_path)
        web.mended = True
        killed.append(first)

    killed: list[int] = []
    killer = threading.Thread(target=kill)
    killer.start()
    with Engine(make_settings(timeout=60)) as engine:
        outcomes = engine.download(0, [web.url("hang/b"), web.url("image/c")], tmp_path).outcomes
        killer.join()
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert not set(_children(tmp_path)) & set(killed)
    assert _children(tmp_path) == []


def test_child_that_is_killed_twice_is_an_error_of_the_run(
    web: WebServer, make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VL3SYN_TEST", str(tmp_path))

    def kill_twice() -> None:
        for count in (1, 2):
            _kill_when_asked(web, "hang/b", tmp_path, count)

    killer = threading.Thread(target=kill_twice)
    killer.start()
    with Engine(make_settings(timeout=60)) as engine, pytest.raises(UserError, match=r"twice, by signal 9 \(Killed\)"):
        engine.download(0, [web.url("hang/b")], tmp_path)
    killer.join()


_CRASHING = """#!{python}
import os, sys
import cv2
decode = cv2.imdecode
def imdecode(data, flags):
    if b"deadly" in data.tobytes():
        os.kill(os.getpid(), 11)
    return decode(data, flags)
cv2.imdecode = imdecode
code, sys.argv = sys.argv[3], sys.argv[3:]
exec(code)
"""


def test_image_that_crashes_the_resizer_is_an_error_row(
    web: WebServer, make_settings: MakeSettings, download_python: str, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(_CRASHING.format(python=download_python))
    python.chmod(0o700)
    with Engine(make_settings(longest=41, python=str(python))) as engine:
        names = ["a", "deadly", "b", "deadly2", "c"]
        outcomes = engine.download(0, [web.url(f"image/{name}") for name in names], tmp_path).outcomes
    died = "cannot be resized: the process ended, by signal 11 (Segmentation fault)"
    assert [outcome.error for outcome in outcomes] == [None, died, None, died, None]
    assert not any(outcome.retry for outcome in outcomes)


def test_child_ends_with_its_parent(
    web: WebServer, make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VL3SYN_TEST", str(tmp_path))
    settings = make_settings(timeout=600)
    if (parent := os.fork()) == 0:
        Engine(settings).download(0, [web.url("hang/a")], tmp_path)
        os._exit(0)
    _wait_for(lambda: web.asked["hang/a"] == 1)
    children = [pid for pid in _children(tmp_path) if pid != parent]
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    _wait_for(lambda: not any(map(alive, children)))


def test_missing_img2dataset_is_said_in_one_line(make_settings: MakeSettings, tmp_path: Path) -> None:
    with Engine(make_settings(python=sys.executable)) as engine, pytest.raises(UserError) as error:
        engine.download(0, ["http://127.0.0.2/"], tmp_path)
    assert str(error.value) == (
        f"download: {sys.executable}: img2dataset cannot be imported (No package metadata was found for img2dataset); "
        "run `make setup-download`, or give the Python of another environment, engine: {python: …}"
    )


def test_missing_python_is_said_in_one_line(make_settings: MakeSettings, tmp_path: Path) -> None:
    with Engine(make_settings(python="/no/python")) as engine, pytest.raises(UserError) as error:
        engine.download(0, ["http://127.0.0.2/"], tmp_path)
    assert str(error.value).startswith("download: /no/python: No such file or directory; run `make setup-download`")


def test_program_that_is_no_python_is_said_in_one_line(make_settings: MakeSettings, tmp_path: Path) -> None:
    with Engine(make_settings(python="/bin/false")) as engine, pytest.raises(UserError) as error:
        engine.download(0, ["http://127.0.0.2/"], tmp_path)
    assert str(error.value).startswith("download: /bin/false: exit code 1; run `make setup-download`")


def test_full_disk_is_an_error_of_the_run_not_of_the_rows(
    web: WebServer, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """img2dataset prints what its writer raises, and continues."""
    (tmp_path / "00000.tar").symlink_to("/dev/full")
    with Engine(make_settings()) as engine, pytest.raises(OSError, match="No space left on device"):
        engine.download(0, [web.url(f"image/{number}") for number in range(20)], tmp_path)


def test_disk_that_was_full_for_a_while_is_one_as_well(
    web: WebServer, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """The rest of the part is written, and its end, but rows are missing and the tar is broken."""
    tar = tmp_path / "00000.tar"
    os.mkfifo(tar)

    def read_with_a_gap() -> None:
        with tar.open("rb", buffering=0) as reader:
            reader.read(1)
        _wait_for(lambda: sum(web.asked.values()) > 200)
        descriptor = os.open(tar, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(descriptor, True)
        with open(descriptor, "rb") as reader:
            reader.read()

    reading = threading.Thread(target=read_with_a_gap)
    reading.start()
    urls = [web.url("hang/a"), *(web.url(f"image/{number}") for number in range(300))]  # the hanging one ends the part
    with Engine(make_settings(timeout=5)) as engine, pytest.raises(BrokenPipeError):
        engine.download(0, urls, tmp_path)
    reading.join()


def _children(mark: Path) -> list[int]:
    return [pid for pid, line in processes(str(mark)) if "fetching.child" in line and alive(pid)]


def _kill_when_asked(web: WebServer, path: str, mark: Path, count: int = 1) -> int:
    """Kill the child that asks for a path, as soon as it was asked for so often; return the child."""
    _wait_for(lambda: web.asked[path] == count)
    (child,) = _children(mark)
    os.kill(child, signal.SIGKILL)
    return child


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
