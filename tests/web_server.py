"""A web server of images that can be told to misbehave: the first part of a path says how, as in `/404/17`.

Its images are small JPEGs that depend on the rest of the path.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from tests.web_faults import FAULTS, TRANSIENT, image_of, send_status

__all__ = ["TRANSIENT", "WebServer", "image_of", "serving"]


class WebServer:
    """What the server has seen.

    Attributes:
        port: Its port.
        mended: Whether the faults of `TRANSIENT` are gone.
        asked: How often each path was asked for.
        headers: The headers of the last request, names in lower case.
        connections: The local addresses of accepted connections, with their counts.
        most_at_once: The largest number of requests of the kind `slow` that were answered at once.
    """

    def __init__(self) -> None:
        self.port = 0
        self.mended = False
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self.connections: Counter[str] = Counter()
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.ended = threading.Event()

    def url(self, path: str, host: str = "127.0.0.2") -> str:
        return f"http://{host}:{self.port}/{path}"

    @contextmanager
    def answering(self) -> Iterator[None]:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    def saw(self, path: str, headers: Mapping[str, str]) -> None:
        with self._lock:
            self.asked[path] += 1
            self.headers = dict(headers)

    def connected(self, address: str) -> None:
        with self._lock:
            self.connections[address] += 1


@contextmanager
def serving(address: str = "0.0.0.0", port: int = 0, wrap: Callable[[Any], Any] | None = None) -> Iterator[WebServer]:
    """Serve on an address; `wrap` makes a TLS socket of a connection."""
    seen = WebServer()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            seen.connected(self.request.getsockname()[0].removeprefix("::ffff:"))
            with suppress(OSError, ValueError, IndexError):
                _answer(wrap(self.request) if wrap else self.request, seen)

    class Server(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        daemon_threads, block_on_close, allow_reuse_address, request_queue_size = True, False, True, 512

    with Server((address, port), Handler) as server:
        seen.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            seen.ended.set()
            server.shutdown()
            thread.join()


def _answer(connection: socket.socket, seen: WebServer) -> None:
    with connection.makefile("rb") as file:
        path = file.readline().split()[1].decode()
        headers = {}
        while (line := file.readline().decode().strip()) and ":" in line:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
    seen.saw(path.lstrip("/"), headers)
    fault, _, name = path.lstrip("/").partition("/")
    if seen.mended and fault in TRANSIENT:
        fault = "image"
    FAULTS.get(fault, send_status)(connection, fault, name, seen)
