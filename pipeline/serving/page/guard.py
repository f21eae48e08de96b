"""What stands before the page: who may ask it, and what a browser may load of it.

A foreign page in the visitor's browser can reach a server on the visitor's machine. It must not use it: requests of
other sites are refused, and so is a host's name that is not this machine's (DNS rebinding). The API is not touched
here: it reads the key itself, `pipeline.serving.hosts` checks its name, and other sites cannot send it JSON.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving.hosts import is_this_machine, name_of
from pipeline.serving.queue import Limits

_API = ("/v1/chat/completions", "/v1/models", "/health")
_PAGE = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/(?:assets|static|svelte)/[\w./@-]+|/media/[\w-]+"
    r"|/gradio_api/(?:info|startup-events|upload|upload_progress|queue/(?:join|data)|run/predict|heartbeat/\w+|file=.+)"
)
"""What the page needs. All else that gradio offers, such as a proxy to other hosts, is closed."""

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob: data:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_SLACK = 64_000  # bytes of an upload beside its files
_LONGEST_EVENT = 4_000_000  # bytes of a question with all else that the page sends
_EVENTS = ("/gradio_api/queue/join", "/gradio_api/run/predict")  # the second one: a click on an example
_UPLOAD = "/gradio_api/upload"
_LONGEST_SESSION = 64  # characters of a session's name: gradio keeps thousands of them
_ENDLESS = ("/gradio_api/heartbeat/", "/gradio_api/queue/data")
_POLLED = 0.25  # seconds


@dataclass
class Guard:
    """Refuses requests before they reach gradio.

    Attributes:
        app: The server.
        limits: The key, and how large uploads may be.
        folder: Where uploads go.
        loopback: Whether only this machine reaches the server.
        ends: Returns whether the server is to end.
    """

    app: ASGIApp
    limits: Limits
    folder: Path
    loopback: bool
    ends: Callable[[], bool]
    _coming: int = field(default=0, init=False)  # bytes of uploads that are under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "websocket":  # the page has none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or scope["path"] in _API:
            await self.app(scope, receive, send)
            return
        send = _guarded(send)
        refused = self._refusal(scope)
        if refused is None and scope["path"] in _EVENTS:
            body = await _body(receive)
            refused, receive = self._event_refusal(body), _again(body, receive)
        if refused is not None:
            await refused(scope, receive, send)
        elif scope["path"] == _UPLOAD:
            await self._upload(int(Headers(scope=scope)["content-length"]), scope, receive, send)
        elif scope["path"].startswith(_ENDLESS):
            await self._until_the_end(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _upload(self, length: int, scope: Scope, receive: Receive, send: Send) -> None:
        self._coming += length
        try:
            await self.app(scope, receive, send)
        finally:
            self._coming -= length

    async def _until_the_end(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what goes on as long as its page is open: the end of the server ends it."""

        async def watch() -> None:
            while not self.ends():
                await anyio.sleep(_POLLED)
            group.cancel_scope.cancel()

        open_ = False  # whether the response has begun and not ended

        async def noting(message: Message) -> None:
            nonlocal open_
            open_ = message["type"] == "http.response.start" or bool(message.get("more_body"))
            await send(message)

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await self.app(scope, receive, noting)
            group.cancel_scope.cancel()
        if open_ and self.ends():
            with anyio.CancelScope(shield=True):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        if not _PAGE.fullmatch(path):
            return _line("there is no such page", 404)
        if self.loopback and not is_this_machine(name_of(headers.get("host", ""))):
            return _line("this server answers this machine only: ask it at 127.0.0.1", 421)
        if not _is_own(headers, method):
            return _line("a page of another site may not use this server", 403)
        if self.limits.key and not _has_key(headers.get("authorization", ""), self.limits.key):
            ask = {"WWW-Authenticate": 'Basic realm="the key of this server, as password", charset="UTF-8"'}
            return _line("give the server's key as password; the name does not matter", 401, ask)
        if path.startswith("/gradio_api/file=") and not self._is_upload(path.partition("=")[2]):
            return _line("there is no such file", 404)
        return self._upload_refusal(headers) if path == _UPLOAD else None

    def _upload_refusal(self, headers: Headers) -> Response | None:
        length = headers.get("content-length", "")
        if not length.isascii() or not length.isdigit():
            return _line("an upload must say its length", 411)
        if int(length) > self.limits.body_bytes + _SLACK:
            return _line(f"more than {self.limits.body_bytes:,} bytes: send fewer or smaller files", 413)
        held = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        if held + self._coming + int(length) > self.limits.waiting_bytes:
            return _line("the files of all visitors are too large together: try again later", 503)
        return None

    def _event_refusal(self, body: bytes | None) -> Response | None:
        """Refuse files that were not uploaded: gradio would copy any file, or fetch an address."""
        if body is None:
            return _line(f"more than {_LONGEST_EVENT:,} bytes: shorten the question", 413)
        try:
            event = json.loads(body)
            paths = list(_paths(event))
        except (ValueError, RecursionError):
            return _line("send JSON", 400)
        if not isinstance(event, dict) or len(str(event.get("session_hash"))) > _LONGEST_SESSION:
            return _line("send an event of a session", 400)
        if all(isinstance(path, str) and self._is_upload(path) for path in paths):
            return None
        return _line("a file that was not uploaded: add it again", 400)

    def _is_upload(self, path: str) -> bool:
        if "\0" in path:
            return False
        return all(self.folder.resolve() in Path(form).resolve().parents for form in (path, unquote(path)))


async def _body(receive: Receive) -> bytes | None:
    """Return the body of a request; None if it is too long."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _LONGEST_EVENT:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return bytes(body)


def _again(body: bytes | None, receive: Receive) -> Receive:
    """Return what gives a body that was read already, and then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body or b"", "more_body": False}

    return again


def _paths(value: Any) -> Iterator[Any]:
    """Yield the paths and addresses of files in what an event sends."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        for inner in value.values():
            yield from _paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner)


def _is_own(headers: Headers, method: str) -> bool:
    """Whether no page of another site sends this: it may only link to the page."""
    if (origin := headers.get("origin")) is not None:
        return origin.partition("://")[2] == headers.get("host")
    if headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
        return True
    return (
        method == "GET" and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )


def _has_key(authorization: str, key: str) -> bool:
    kind, _, value = authorization.partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        given = base64.b64decode(value, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return False
    return secrets.compare_digest(given, key.encode())


def _line(text: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(text, status, headers)


def _guarded(send: Send) -> Send:
    """Return `send` with headers that bind the browser: nothing is loaded from elsewhere, nothing is framed."""

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = _POLICY
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
        await send(message)

    return with_headers
