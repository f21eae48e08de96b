"""One URL becomes the bytes of an image, or a reason why not. It replaces img2dataset's function `download_image`."""

from __future__ import annotations

import http.client
import socket
import ssl
import string
import time
import zlib
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from ipaddress import ip_network
from typing import NamedTuple
from urllib.parse import quote, urljoin

from .addresses import ForbiddenAddressError
from .deadline import Deadline, DeadlineError
from .exchange import Exchange, ProxyError
from .hosts import HostPausedError, Hosts
from .opt_out import refusal
from .signatures import is_image
from .target import BadURLError, Target, parse

MAX_REDIRECTS = 10
"""Redirects that are followed for one URL."""

_PIECE = 1 << 18  # bytes that are read at once, if the length is unknown
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({429, 503})  # the host is left alone for a while
_TEMPORARY = frozenset({408, 425, 429, *range(500, 600)})
_TEMPORARY_LOOK_UPS = frozenset({socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_MEMORY, socket.EAI_SYSTEM})


class Fetched(NamedTuple):
    """What came of a URL.

    Attributes:
        body: The bytes of the image as they were served; None: there is none.
        status: HTTP status of the last answer; None: there was no answer.
        error: Why there is no image, as `kind: details` in one printable line; None: there is one.
        retry: Whether another run may succeed.
    """

    body: bytes | None
    status: int | None = None
    error: str | None = None
    retry: bool = False


class _FailedError(Exception):
    def __init__(self, reason: str, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


class Fetcher:
    """Fetches URLs; threads may share it.

    Args:
        timeout: Seconds for a URL, from its look-up to the last byte, redirects included. Time in which it waits for
            its turn at a host does not count.
        max_bytes: Longest body, in bytes, after decoding too.
        allow: Networks, such as 10.0.0.0/8, that may be connected to although they are not public.
        user_agent: The header User-Agent. A directive of X-Robots-Tag for the name with which it begins, or for
            img2dataset, is one for us.
        opt_out: Directives of X-Robots-Tag that are respected.
        proxies: Whether the proxies of the environment are used.
        per_host, min_pause, max_pause: See `Hosts`.

    Raises:
        ProxyError: A proxy of the environment cannot be used.
    """

    def __init__(
        self,
        *,
        timeout: float,
        max_bytes: int,
        allow: Sequence[str],
        user_agent: str,
        opt_out: Sequence[str],
        proxies: bool,
        per_host: int,
        min_pause: float,
        max_pause: float,
    ) -> None:
        self.hosts = Hosts(per_host, min_pause, max_pause)
        self._timeout, self._max_bytes, self._opt_out = timeout, max_bytes, opt_out
        self._agents = {user_agent.split("/")[0].split(" ")[0].lower(), "img2dataset"}
        self._exchange = Exchange([ip_network(network) for network in allow], user_agent, proxies)

    def fetch(self, url: str) -> Fetched:
        """Fetch a URL. Nothing is raised."""
        statuses: list[int] = []
        try:
            body = self._follow(url, statuses)
        except Exception as error:  # parsers of hostile bytes may raise anything; each exception is this URL's error
            reason, retry = _classified(error)
            return Fetched(None, statuses[-1] if statuses else None, reason, retry)
        return Fetched(body, statuses[-1])

    def _follow(self, url: str, statuses: list[int]) -> bytes:
        """Fetch a URL and what it redirects to; the status of each answer is added to `statuses`."""
        deadline = Deadline(self._timeout)
        seen: set[Target] = set()
        while len(seen) <= MAX_REDIRECTS:
            target = parse(url)
            if target in seen:
                raise _FailedError("redirect loop")
            seen.add(target)
            with self.hosts.turn(target.host) as waited:
                deadline.extend(waited)
                with self._exchange.get(target, deadline) as response:
                    statuses.append(response.status)
                    location = response.headers.get("Location")
                    if response.status not in _REDIRECTS or not location:
                        return self._read(response, target)
            url = urljoin(target.url, quote(location, string.punctuation, encoding="iso-8859-1"))
        raise _FailedError(f"too many redirects: {MAX_REDIRECTS}")

    def _read(self, response: http.client.HTTPResponse, target: Target) -> bytes:
        """Return the image that an answer holds."""
        if response.status in _BUSY:
            self.hosts.pause(target.host, _seconds(response.headers.get("Retry-After", "")))
        if not 200 <= response.status < 300:
            phrase = http.client.responses.get(response.status, "")
            raise _FailedError(f"HTTP {response.status}: {phrase}".rstrip(": "), response.status in _TEMPORARY)
        if directive := refusal(response.headers.get_all("X-Robots-Tag", []), self._agents, self._opt_out):
            raise _FailedError(f"opt-out: X-Robots-Tag {directive}")
        body = self._body(response)
        if encoding := response.headers.get("Content-Encoding", "").strip().lower():
            body = self._decoded(body, encoding)
        if not body:
            raise _FailedError("not an image: empty")
        if not is_image(body):
            raise _FailedError(f"not an image: {_printable(response.headers.get_content_type())}")
        return body

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        length, size = response.length, 0
        if length is not None and length > self._max_bytes:
            raise self._too_large()
        at_once = max(length or 0, _PIECE)  # in one piece nothing is copied
        pieces = []
        while piece := response.read(min(at_once, self._max_bytes + 1 - size)):
            pieces.append(piece)
            size += len(piece)
            if size > self._max_bytes:
                raise self._too_large()
        if length is not None and size < length:
            raise _FailedError(f"short body: {size:,} of {length:,} bytes", retry=True)
        return b"".join(pieces)

    def _decoded(self, body: bytes, encoding: str) -> bytes:
        """Undo a Content-Encoding, which was not asked for."""
        if encoding == "identity":
            return body
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise _FailedError(f"unsupported Content-Encoding: {_printable(encoding)}")
        decoder = zlib.decompressobj(47)  # either form, by its header
        decoded = decoder.decompress(body, self._max_bytes + 1)
        if len(decoded) > self._max_bytes:
            raise self._too_large()
        if not decoder.eof:
            raise _FailedError(f"short body: cut off within {encoding}", retry=True)
        return decoded

    def _too_large(self) -> _FailedError:
        return _FailedError(f"too large: more than {self._max_bytes:,} bytes")


def _classified(error: Exception) -> tuple[str, bool]:
    """Return an exception as the error of its row, and whether another run may succeed."""
    text = _printable(str(error))
    if isinstance(error, _FailedError):
        return text, error.retry
    if isinstance(error, (BadURLError, ForbiddenAddressError)):
        return text, False
    if isinstance(error, (DeadlineError, HostPausedError, ProxyError)):
        return text, True
    if isinstance(error, socket.timeout):
        return "timed out", True
    if isinstance(error, socket.gaierror):
        temporary = error.errno in _TEMPORARY_LOOK_UPS
        return ("look-up failed" if temporary else "unknown host"), temporary
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"bad certificate: {_printable(error.verify_message)}", False
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_printable(error.reason or '')}", isinstance(error, ssl.SSLEOFError)
    if isinstance(error, ConnectionRefusedError):
        return "connection refused", True
    if isinstance(error, ConnectionError):
        return "connection reset", True
    if isinstance(error, http.client.IncompleteRead):
        return "short body: cut off", True
    if isinstance(error, MemoryError):
        return "out of memory", True
    if isinstance(error, OSError):
        return f"connection failed: {_printable(error.strerror or type(error).__name__)}", True
    return f"bad answer: {type(error).__name__}", False  # http.client's errors about a status line, a header, a chunk


def _printable(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:200]


def _seconds(retry_after: str) -> float | None:
    """Read a header Retry-After, a number of seconds or a date; None: it is neither."""
    try:
        if retry_after.strip().isdigit():
            return float(retry_after)
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
