"""A small server with OpenAI's chat completions on plain asyncio, which can be told to misbehave.

Its caption of an image, or of several, is made of the hash of their bytes and the prompt's. What it is asked and
answers goes, line by line, into a log: `asked` or `answered`, the hash of the images, the prompt's. Run it by itself
with `python -m tests.chat_server --port 8000`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gzip
import hashlib
import json
import string
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

FAULTS = ("500", "429", "429-date", "hang", "reset", "malformed", "empty", "cut")
HOSTILE = (
    "gzip-bomb",
    "deflate-bomb",
    "gzip-twice-bomb",
    "large",
    "drip",
    "drip-headers",
    "continue",
    "deep",
    "not-gzip",
)
"""Answers that are much larger, slower or deeper than they look."""

LARGE = b'{"choices": "' + b" " * (6 << 20) + b'"}'

Raw = tuple[int, dict[str, str], bytes]
"""Status, headers and body of an answer."""


@dataclass
class ChatServer:
    """What the server does, and what it has seen.

    Attributes:
        faults: Kinds of faults that occur, of `FAULTS`, `HOSTILE`, `400`, `401`, `404`, `500-bomb`, `redirect`.
        greeting: A fault of the list of models.
        encoding: How answers are encoded, `gzip` or `deflate`, whatever the client accepts; empty: not at all.
        share: Of the requests that fail, chosen by a hash of image, prompt and number of the try.
        delay: Seconds that an answer takes.
        fast_faults: Whether a fault takes none.
        retry_after: Seconds that `429` asks for.
        choice: What replaces parts of the first choice of an answer, such as `message` or `finish_reason`.
        more: What else stands in an answer, beside `choices`.
        refusal: What it says of an error; `{n}` in it is another number each time, `{letters}` another id.
        raw: A whole answer in place of its own: status, headers, body; or what makes one of the hashes of image and
            prompt, None where its own is meant.
        listen: The address that it listens at.
        words: What it answers, made of the hash of the images and the prompt; None: a caption.
        log: Where every request is written down; None: nowhere.
    """

    faults: tuple[str, ...] = ()
    greeting: str = ""
    encoding: str = ""
    share: float = 0.0
    delay: float = 0.0
    fast_faults: bool = False
    retry_after: float = 0.2
    refusal: str = "the image is too strange"
    choice: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    raw: Raw | Callable[[tuple[str, str]], Raw | None] | None = None
    words: Callable[[str, str], str] | None = None
    log: Path | None = None
    listen: str = "127.0.0.1"
    port: int = 0
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    times: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    keys: set[str | None] = field(default_factory=set)
    logins: list[str | None] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    contents: list[list[dict[str, Any]]] = field(default_factory=list)
    now: int = 0
    most: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def caption(self, key: tuple[str, str]) -> str:
        return f"A picture of number {key[0][:8]} as told by {key[1]}."

    async def serve(self, started: threading.Event | None = None) -> None:
        server = await asyncio.start_server(self._connection, self.listen, self.port, backlog=1024, limit=1 << 26)
        self.port = server.sockets[0].getsockname()[1]
        if started:
            started.set()
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
                self.logins.append(headers.get("proxy-authorization"))
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if lines[0].startswith("GET") and self.greeting:
                    if not await self._fail(self.greeting, writer):
                        break
                    continue
                if lines[0].startswith("GET"):
                    await self._send(writer, 200, {"object": "list", "data": []})
                    continue
                self.keys.add(headers.get("authorization"))
                self.now += 1
                self.most = max(self.most, self.now)
                try:
                    if not await self._chat(body, writer):
                        break
                finally:
                    self.now -= 1
        writer.close()

    async def _chat(self, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False ends the connection."""
        request = json.loads(body)
        content = request["messages"][0]["content"]
        *media, last = [{"type": "text", "text": content}] if isinstance(content, str) else content
        prompt, urls = last["text"], [part[part["type"]]["url"] for part in media if part["type"] != "text"]
        data = b"".join(base64.b64decode(image) for url in urls for image in url.split(",")[1:])
        key = (hashlib.sha256(data).hexdigest(), hashlib.sha256(prompt.encode()).hexdigest()[:8])
        self.images.setdefault(key[0], data)
        self.prompts.setdefault(key[1], prompt)
        self.bodies.append({**request, "messages": None})
        self.contents.append([*media, last])
        attempt = self.requests[key]
        self.requests[key] += 1
        self.times.setdefault(key, []).append(time.monotonic())
        self._write("asked", key)
        fault = self._fault(key, attempt)
        await asyncio.sleep(0 if fault and self.fast_faults else self.delay)
        if fault is not None:
            return await self._fail(fault, writer)
        if raw := self.raw(key) if callable(self.raw) else self.raw:
            status, headers, data = raw
            await self._send(writer, status, data, headers)
            return True
        words = self.words(key[0], prompt) if self.words else self.caption(key)
        self.answered[key] += 1
        self._write("answered", key)
        choice = {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}
        choice |= self.choice
        usage = {"prompt_tokens": 100 + len(data) % 50, "completion_tokens": len(words.split())}
        body = json.dumps({"choices": [choice], "usage": usage, **self.more}).encode()
        coded = {"gzip": gzip.compress, "deflate": zlib.compress}.get(self.encoding, bytes)(body)
        await self._send(writer, 200, coded, {"Content-Encoding": self.encoding} if self.encoding else None)
        return True

    def _fault(self, key: tuple[str, str], attempt: int) -> str | None:
        chance = hashlib.blake2b(f"{key} {attempt}".encode(), digest_size=8).digest()
        hit = int.from_bytes(chance[:4]) / 2**32 < self.share
        return self.faults[int.from_bytes(chance[4:]) % len(self.faults)] if hit and self.faults else None

    async def _fail(self, fault: str, writer: asyncio.StreamWriter) -> bool:
        refusal = self.refusal.replace("{n}", str(7 ** (2 + self.requests.total() % 9)))
        digest = hashlib.sha256(str(self.requests.total()).encode()).digest()[:16]
        refusal = refusal.replace("{letters}", "".join(string.ascii_letters[byte % 52] for byte in digest))
        error = {"error": {"message": refusal, "type": "invalid_request_error"}}
        if fault == "hang":
            await asyncio.sleep(3600)
        elif fault == "reset":
            writer.transport.abort()
            return False
        elif fault == "cut":
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"choi')
            return False
        elif fault == "malformed":
            await self._send(writer, 200, b'{"choices": [')
        elif fault == "empty":
            await self._send(writer, 200, {"choices": []})
        elif fault == "500-bomb":
            await self._send(writer, 500, bomb("gzip"), {"Content-Encoding": "gzip"})
        elif fault.endswith("-bomb"):
            encoding = {"gzip-twice-bomb": "gzip, gzip"}.get(fault, fault.removesuffix("-bomb"))
            await self._send(writer, 200, bomb(encoding), {"Content-Encoding": encoding})
        elif fault == "not-gzip":
            await self._send(writer, 200, b"{}", {"Content-Encoding": "gzip"})
        elif fault == "large":
            await self._send(writer, 200, LARGE)
        elif fault == "deep":
            await self._send(writer, 200, b"[" * 1_000_000)
        elif fault == "redirect":
            await self._send(writer, 307, error, {"Location": f"http://127.0.0.1:{self.port}/v1/elsewhere"})
        elif fault in ("drip", "drip-headers", "continue"):
            start = {
                "drip": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n",
                "drip-headers": b"HTTP/1.1 200 OK\r\nX: ",
            }
            writer.write(start.get(fault, b""))
            for _ in range(600):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" if fault == "continue" else b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
            return False
        elif fault.startswith("429"):
            date = formatdate(time.time() + 2, usegmt=True)
            await self._send(writer, 429, error, {"Retry-After": date if "date" in fault else f"{self.retry_after:g}"})
        else:
            await self._send(writer, int(fault), error)
        return True

    async def _send(
        self, writer: asyncio.StreamWriter, status: int, body: Any, headers: dict[str, str] | None = None
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{more}\r\n"
        writer.write(head.encode("latin1"))
        for start in range(0, len(data), 1 << 16):  # in pieces: a reader's memory is measured in this process
            writer.write(memoryview(data)[start : start + (1 << 16)])
            await writer.drain()

    def _write(self, what: str, key: tuple[str, str]) -> None:
        if self.log:
            with self.log.open("a") as file:
                file.write(f"{what} {key[0]} {key[1]}\n")


@cache
def bomb(encoding: str, size: int = 100 << 20) -> bytes:
    """So many decoded bytes in a thousandth of them (a millionth, encoded twice)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | (16 if encoding.startswith("gzip") else 0))
    data = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)) + compressor.flush()
    return gzip.compress(data) if encoding == "gzip, gzip" else data


@contextmanager
def chat_server(**settings: Any) -> Iterator[ChatServer]:
    """A server in a thread of this process."""
    server = ChatServer(**settings)
    loop = asyncio.new_event_loop()
    started = threading.Event()

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(server.serve(started))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    yield server
    for task in asyncio.all_tasks(loop):
        loop.call_soon_threadsafe(task.cancel)
    thread.join(10)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--words", type=lambda name: getattr(import_module("tests.clip_answers"), name))
    asyncio.run(ChatServer(**vars(parser.parse_args())).serve())
