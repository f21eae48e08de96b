"""HTTP requests with limits: a deadline for the whole exchange, and a maximum size of the decoded answer.

httpx2's timeouts apply to single reads, so a server that sends a byte now and then never exceeds them. And 3 MB of gzip
may decode to 3 GB. Redirects are not followed: they would send images and the API key elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from core.errors import UserError
from manifests.version import __version__

MAX_BODY_BYTES = 4 << 20
"""Maximum size of a decoded answer. The longest caption that a recipe allows, 8,192 tokens, is below 1 MB of JSON."""

FAILURES = (httpx2.HTTPError, TimeoutError)
"""The exceptions of `Connection.exchange` and `get` if there is no complete answer."""

_DEFAULT_TIMEOUT = httpx2.Timeout(5.0)  # httpx2's default
_USER_AGENT = f"vl3syn/{__version__}"

_LONGEST_RETRY_AFTER = 600.0  # seconds; the limit of a Retry-After


class Reply(NamedTuple):
    """The reply of a server.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        body: The decoded body, at most `MAX_BODY_BYTES`.
        complete: False if the body was cut off at `MAX_BODY_BYTES`.
    """

    status: int
    headers: httpx2.Headers
    body: bytes
    complete: bool


class Connection:
    """A connection to a server, through the proxy of `proxy_of`, for one request at a time. It opens when it is used.

    It is a transport of httpx2 without a client: what a client adds (cookies, redirects, logins) is not wanted here,
    and takes a quarter of the time of a request.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout: httpx2.Timeout = _DEFAULT_TIMEOUT,
        certificates: ssl.SSLContext | None = None,
    ) -> None:
        """Choose the proxy.

        Args:
            url: A URL of the server.
            headers: Headers of each request.
            timeout: Timeouts of connecting and of single reads and writes.
            certificates: What `httpx2.create_ssl_context` returned; None: it is called now, which takes milliseconds.

        Raises:
            UserError: The proxy cannot be used.
        """
        self._headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": _USER_AGENT, **headers}
        self._timeouts = {"timeout": timeout.as_dict()}
        try:
            self._transport = httpx2.AsyncHTTPTransport(
                verify=certificates or httpx2.create_ssl_context(),
                trust_env=False,  # the environment names the proxy by the rules of `proxy_of`, and no certificates
                proxy=proxy_of(url),
            )
        except ImportError as error:  # the package for SOCKS proxies is missing
            raise UserError(f"{url} cannot be reached{proxy_note(url)}: {error}") from error

    async def exchange(self, method: str, url: str, seconds: float, content: bytes | None = None) -> Reply:
        """Send a request and read the answer, up to `MAX_BODY_BYTES` of it.

        Args:
            method: GET or POST.
            url: The URL.
            seconds: Deadline for connecting, sending, and reading headers and body, in all.
            content: The body of the request.

        Raises:
            FAILURES: There is no complete answer.
        """
        request = httpx2.Request(method, url, headers=self._headers, content=content, extensions=self._timeouts)
        body = bytearray()
        async with asyncio.timeout(seconds):
            response = await self._transport.handle_async_request(request)
            async with aclosing(response), aclosing(response.aiter_bytes()) as chunks:
                async for chunk in chunks:  # a decoded chunk has at most 1 MiB
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        return Reply(response.status_code, response.headers, bytes(body[:MAX_BODY_BYTES]), False)
            return Reply(response.status_code, response.headers, bytes(body), True)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._transport.aclose()


def get(url: str, seconds: float, headers: Mapping[str, str] | None = None) -> Reply:
    """Send a GET request with a connection of its own, and wait for the answer.

    Raises:
        FAILURES: There is no complete answer.
        UserError: The proxy cannot be used.
    """

    async def once() -> Reply:
        async with aclosing(Connection(url, headers or {})) as connection:
            return await connection.exchange("GET", url, seconds)

    with ThreadPoolExecutor(1, "get") as thread:  # the calling thread may run an event loop, as in a notebook
        return thread.submit(asyncio.run, once()).result()


def proxy_of(url: str) -> httpx2.Proxy | None:
    """Return the environment's proxy for a URL: `http_proxy`, `https_proxy` or `all_proxy`, unless in `no_proxy`.

    A server on this machine gets no proxy: a proxy elsewhere could not reach it.

    Raises:
        UserError: The environment's value is not a valid proxy address.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_local(host) or proxy_bypass(host) or proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    # A path is refused: after a typo (`http:/user:password@host`) it holds the password, and errors would show it.
    if not is_address(proxy, "http", "https", "socks5", "socks5h") or _has_path(proxy):
        raise UserError(f"what the environment names as the proxy for {url} is no http or socks5 address")
    return httpx2.Proxy(proxy)


def _has_path(url: str) -> bool:
    """Return whether a valid URL has a path other than `/`, a query or a fragment."""
    return any(urlsplit(url.removesuffix("/"))[2:])


def proxy_note(url: str) -> str:
    """Return ` through the environment's proxy …` for errors, without credentials; empty without a proxy."""
    proxy = proxy_of(url)
    return f" through the environment's proxy {proxy.url}" if proxy else ""


def proxy_secrets(url: str) -> tuple[str, ...]:
    """Return the credentials of a URL's proxy in all spellings that its answers may contain; empty without any."""
    proxy = proxy_of(url)
    if not proxy or not proxy.auth:
        return ()
    user, password = proxy.auth
    login = f"{user}:{password}"
    return base64.b64encode(login.encode()).decode(), login, quote(login, safe=":"), password, quote(password, safe="")


def is_address(url: str, *schemes: str) -> bool:
    """Return whether a URL has one of the schemes, and a valid host and port."""
    try:
        parts, _ = urlsplit(url), httpx2.URL(url)
        (parts.hostname or "").encode("idna")  # as name resolution does
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx2.InvalidURL):
        return False


def _is_local(host: str) -> bool:
    """Return whether a host is this machine: `localhost`, 127.0.0.0/8, ::1, or 0.0.0.0, which servers often print."""
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        return True
    try:
        # inet_aton also reads short forms, such as 127.1.
        address = ipaddress.ip_address(host if ":" in host else socket.inet_aton(host))
    except (ValueError, OSError):
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def retry_after(reply: Reply) -> float:
    """Return the seconds that the server asks to wait, at most 600; 0 if it does not say."""
    value = reply.headers.get("Retry-After", "")  # a number of seconds, or a date
    try:
        seconds = float(value) if value.replace(".", "", 1).isdigit() else _seconds_until(value)
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def _seconds_until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()
