"""Visitors and sites that mean harm: each is refused in one line, nothing is written elsewhere, the server lives."""

from __future__ import annotations

import base64
import json
import signal
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.page.conftest import KEY, SECONDS, Site, serving
from tests.page.test_page import shorten

pytestmark = [pytest.mark.page, pytest.mark.timeout(900)]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """A PNG of 400 million black pixels in 1.2 MB."""
    side = 20_000
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 3 * side) * 100) for _ in range(side // 100)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def huge_film(clip: Path) -> bytes:
    """A film whose header claims an mdat of 10 GB, at its begin."""
    claim = struct.pack(">I4sQ", 1, b"mdat", 10_000_000_000)
    whole = clip.read_bytes()
    head = struct.unpack(">I", whole[:4])[0]
    return whole[:head] + claim + bytes(4000)


def upload(url: str, name: str, data: bytes, **headers: str) -> Any:
    """Upload as the page does; return the paths."""
    edge = uuid.uuid4().hex
    body = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body += data + f"\r\n--{edge}--\r\n".encode()
    sent = {"Content-Type": f"multipart/form-data; boundary={edge}", **headers}
    with urlopen(Request(f"{url}/gradio_api/upload", body, sent), timeout=SECONDS) as answer:
        return json.load(answer)


def refused(url: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(f"{url}{path}", body, headers), timeout=SECONDS)
    return caught.value.code, caught.value.read().decode()


def alive(site: Site) -> bool:
    with urlopen(f"{site.url}/health", timeout=SECONDS) as answer:
        return bool(answer.status == 200 and site.process.poll() is None)


@pytest.fixture
def hostile(tmp_path: Path, clip: Path) -> dict[str, Path]:
    """Files by what is wrong with them."""
    contents = {
        "bomb.png": bomb(),
        "huge.mp4": huge_film(clip),
        "html.mp4": b"<html><script>alert(1)</script></html>",
        "list.mp4": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "bomb.mp4": bomb(),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in contents}


def test_hostile_files_are_refused_in_one_line(site: Site, hostile: dict[str, Path], photograph: Path) -> None:
    tab = site.open()
    shorten(tab)
    for name, file in hostile.items():
        tab.ask("What?", file)
        tab.page.wait_for_function("name => document.querySelector('.vl3-error')?.innerText.includes(name)", arg=name)
        line = tab.error()
        assert "\n" not in line
        assert "visitor-" not in line, "no path of the server"
        tab.page.click("#vl3-anew")
        tab.page.locator(".vl3-error").first.wait_for(state="detached")
        tab.page.reload()
        tab.page.wait_for_selector("#vl3-question textarea")
        shorten(tab)
    assert tab.answer("And this?", photograph)
    assert alive(site)


@pytest.mark.parametrize("name", ["../../escaped.png", "/tmp/escaped.png", "..\\escaped.png", "a/../../escaped.png"])
def test_name_that_goes_up_stays_in_the_folder(site: Site, name: str, photograph: Path) -> None:
    (path,) = upload(site.url, name, photograph.read_bytes())
    (folder,) = site.temporary.glob("vl3syn-*")
    assert folder.resolve() in Path(path).resolve().parents
    outside = [file for file in site.temporary.parent.rglob("*escaped*") if folder not in file.parents]
    assert outside == []


def test_file_above_the_limit_is_refused_in_one_line(site: Site) -> None:
    with pytest.raises(HTTPError) as caught:
        upload(site.url, "a.mp4", bytes(3_200_000))
    assert caught.value.code == 413
    assert "\n" not in caught.value.read().decode()
    assert alive(site)


def test_event_with_a_file_of_the_server_is_refused(site: Site) -> None:
    for path in ("/etc/passwd", "https://example.com/a.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        event = {"data": [{"text": "", "files": [file]}], "fn_index": 0, "session_hash": "abc"}
        status, line = refused(
            site.url, "/gradio_api/queue/join", json.dumps(event).encode(), **{"Content-Type": "application/json"}
        )
        assert (status, line) == (400, "a file that was not uploaded: add it again")
    assert refused(site.url, "/gradio_api/file=/etc/passwd")[0] == 404


def test_page_of_another_site_cannot_use_the_server(site: Site) -> None:
    context = site.browser.new_context()
    page = context.new_page()
    page.goto("about:blank")
    send = """url => fetch(url, {method: 'POST', mode: 'no-cors', body: '{}'}).then(() => 'sent', () => 'stopped')"""
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status))
    page.evaluate(send, f"{site.url}/gradio_api/queue/join")
    page.evaluate(send, f"{site.url}/gradio_api/upload")
    assert statuses == [] or set(statuses) == {403}
    for path in ("/", "/v1/models", "/gradio_api/info"):
        assert refused(site.url, path, Host="evil.example")[0] == 421
    context.close()


@pytest.fixture(scope="module")
def locked(folder: Path, browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("locked")
    with serving(folder, place, browser, key=KEY, end=signal.SIGTERM) as site:  # as `docker stop` ends it
        yield site


def test_page_with_a_key_opens_to_who_has_it(locked: Site, photograph: Path) -> None:
    assert refused(locked.url, "/")[0] == 401
    with pytest.raises(HTTPError, match="401"):
        upload(locked.url, "a.png", photograph.read_bytes())
    wrong = base64.b64encode(b"me:wrong").decode()
    assert refused(locked.url, "/config", Authorization=f"Basic {wrong}")[0] == 401
    tab = locked.open(http_credentials={"username": "me", "password": KEY})
    shorten(tab)
    assert tab.answer("What?", photograph)


def test_example_is_asked_about_with_a_click(folder: Path, browser: Any, photograph: Path, tmp_path: Path) -> None:
    with serving(folder, tmp_path, browser, "--examples", str(photograph.parent)) as site:
        tab = site.open()
        shorten(tab)
        for _ in range(2):  # it is there for the next visitor, too
            tab.page.locator("#vl3-examples button, #vl3-examples tbody tr").first.click()
            tab.page.locator("#vl3-question .thumbnail-item").first.wait_for()
            assert tab.answer("What is it?")
            tab.page.click("#vl3-anew")
            tab.page.wait_for_function("document.body.innerText.includes('a new conversation')")
