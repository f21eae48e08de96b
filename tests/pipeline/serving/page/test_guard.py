from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline.serving.page.guard import Guard
from pipeline.serving.queue import Limits

Ask = Callable[..., tuple[int, str, dict[str, str]]]
KEY = "k3y of the tests"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture
def ask(folder: Path) -> Ask:
    """Send a request through the guard. Behind it, all is answered with what came in."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def ask(
        path: str, method: str = "GET", body: bytes = b"", key: str = "", loopback: bool = True, **headers: str
    ) -> Any:
        limits = Limits(body_bytes=100_000, waiting_bytes=150_000, key=key or None)
        guard = Guard(app, limits, folder, loopback, ends=lambda: False)
        sent = {"host": "127.0.0.1:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {"type": "http", "path": path, "method": method, "query_string": b""}
        scope["headers"] = [(name.encode(), value.encode()) for name, value in sent.items()]
        messages: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        anyio.run(guard, scope, receive, send)
        given = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        return messages[0]["status"], b"".join(m.get("body", b"") for m in messages[1:]).decode(), given

    return ask


@pytest.mark.parametrize("path", ["/", "/config", "/assets/index-a.js", "/media/Ab-_1", "/gradio_api/heartbeat/ab1"])
def test_what_the_page_needs_is_passed_on(ask: Ask, path: str) -> None:
    status, _, headers = ask(path)
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://example.com/",
        "/gradio_api/file=https://example.com/a",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/component_server",
        "/gradio_api/run/ask",
        "/gradio_api/call/ask",
        "/gradio_api/vibe-edit/",
        "/monitoring",
        "/login",
        "/docs",
        "/assets/../../etc/passwd?",
        "/v1",
        "/v1/",
        "/v1/gradio_api/info",
    ],
)
def test_all_else_is_closed(ask: Ask, path: str) -> None:
    assert ask(path)[0] == 404


def test_uploads_alone_are_served_as_files(ask: Ask, folder: Path) -> None:
    (folder / "a.png").write_bytes(b"x")
    (folder / "link.png").symlink_to("/etc/passwd")
    assert ask(f"/gradio_api/file={folder}/a.png")[0] == 200
    for path in ("link.png", "../uploads.txt", "%2e%2e/secret", "a\0b"):
        assert ask(f"/gradio_api/file={folder}/{path}")[0] == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/queue/data"])
def test_pages_of_other_sites_are_refused(ask: Ask, path: str, headers: dict[str, str], status: int) -> None:
    assert ask(path, "POST", b"{}", content_length="2", **headers)[0] == status


def test_other_site_may_link_to_the_page_but_not_frame_it(ask: Ask) -> None:
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    status, _, headers = ask("/", sec_fetch_dest="document", **link)
    assert status == 200
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert ask("/", sec_fetch_dest="iframe", **link)[0] == 403
    assert ask("/", "POST", sec_fetch_dest="document", **link)[0] == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 200), ("[::1]:8000", 200), ("127.0.0.2", 200), ("evil.example:8000", 421), ("", 421)],
)
def test_name_of_another_host_is_refused_on_this_machine(ask: Ask, host: str, status: int) -> None:
    assert ask("/", host=host)[0] == status
    assert ask("/", host=host, loopback=False)[0] == 200


def test_page_asks_for_the_key(ask: Ask) -> None:
    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    for path in ("/", "/gradio_api/upload", "/media/a", "/config", "/gradio_api/queue/join"):
        status, _, headers = ask(path, key=KEY)
        assert (status, headers["www-authenticate"][:5]) == (401, "Basic")
        for wrong in (basic("me:wrong"), basic(KEY), f"Bearer {KEY}", "Basic @@@", ""):
            assert ask(path, key=KEY, authorization=wrong)[0] == 401
    assert ask("/", key=KEY, authorization=basic(f"me:{KEY}"))[0] == 200


def test_upload_has_a_largest_size_alone_and_with_others(ask: Ask, folder: Path) -> None:
    def upload(length: str) -> tuple[int, str]:
        return ask("/gradio_api/upload", "POST", content_length=length)[:2]

    assert upload("100000")[0] == 200
    assert upload("200000")[0] == 413
    assert upload("-1")[0] == upload("")[0] == upload("²")[0] == 411
    (folder / "a.mp4").write_bytes(bytes(60_000))
    status, line = upload("100000")
    assert (status, line.count("\n")) == (503, 0)


@pytest.mark.parametrize("event", ["/gradio_api/queue/join", "/gradio_api/run/predict"])
def test_event_names_uploads_only(ask: Ask, folder: Path, event: str) -> None:
    (folder / "a.png").write_bytes(b"x")

    def join(*paths: Any) -> tuple[int, str]:
        files = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]
        body = json.dumps({"data": [{"text": "What?", "files": files}], "fn_index": 0}).encode()
        status, text, _ = ask(event, "POST", body)
        assert status != 200 or text == body.decode(), "the body is passed on as it came"
        return status, text

    assert join(f"{folder}/a.png")[0] == join()[0] == 200
    for path in (
        "/etc/passwd",
        "https://example.com/a.png",
        f"{folder}/../secret",
        "a.png",
        None,
        {"path": "/etc/passwd"},
    ):
        status, line = join(f"{folder}/a.png", path)
        assert (status, line) == (400, "a file that was not uploaded: add it again")


def test_event_that_is_no_json_or_too_long_is_refused(ask: Ask) -> None:
    assert ask("/gradio_api/queue/join", "POST", b"{")[0] == 400
    assert ask("/gradio_api/queue/join", "POST", b"[]")[0] == 400
    assert ask("/gradio_api/queue/join", "POST", json.dumps({"session_hash": "a" * 65}).encode())[0] == 400
    assert ask("/gradio_api/queue/join", "POST", json.dumps({"session_hash": "a" * 64}).encode())[0] == 200
    assert ask("/gradio_api/queue/join", "POST", b"[" * 200_000)[0] == 400
    assert ask("/gradio_api/queue/join", "POST", b" " * 4_000_001)[0] == 413


def test_what_goes_on_ends_with_the_server(folder: Path) -> None:
    ending = False
    sent: list[Any] = []

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        nonlocal ending
        sent.append(message)
        ending = True

    async def check() -> None:
        guard = Guard(endless, Limits(), folder, False, ends=lambda: ending)
        scope = {"type": "http", "path": "/gradio_api/heartbeat/a", "method": "GET", "headers": []}
        with anyio.fail_after(60):
            await guard(scope, anyio.sleep_forever, send)

    anyio.run(check)
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_uploads_under_way_count_for_the_largest_size(folder: Path) -> None:
    statuses: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Takes an upload while another one is sent."""
        if len(statuses) == 0:
            await upload("100000")
        await send({"type": "http.response.start", "status": 200, "headers": []})

    guard = Guard(app, Limits(body_bytes=100_000, waiting_bytes=150_000), folder, False, ends=lambda: False)

    async def upload(length: str) -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {"type": "http", "path": "/gradio_api/upload", "method": "POST"}
        await guard({**scope, "headers": [(b"content-length", length.encode())]}, anyio.sleep_forever, send)

    anyio.run(upload, "100000")
    anyio.run(upload, "100000")
    assert statuses == [503, 200, 200]
