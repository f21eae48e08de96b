"""HTTP requests with limits: a deadline for the whole exchange, and a maximum size of the decoded answer.

Timeouts of single reads do not end a server that sends a byte now and then. And 3 MB of gzip may decode to 3 GB.
Redirects are not followed: they would send images and the API key elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from core.errors import UserError
from manifests.version import __version__

MAX_BODY_BYTES = 4 << 20
"""Maximum size of a decoded answer. The longest caption that a recipe allows, 8,192 tokens, is below 1 MB of JSON."""

FAILURES = (aiohttp.ClientError, HttpProcessingError, TimeoutError)
"""The exceptions of `HttpClient.exchange` and `get` if there is no complete answer."""

_CONNECT_SECONDS = 30.0
_USER_AGENT = f"vl3syn/{__version__}"

_LONGEST_RETRY_AFTER = 600.0  # seconds; the limit of a Retry-After


class Reply(NamedTuple):
    """The reply of a server.

    Attributes:
        status: The HTTP status.
        headers: The headers; case does not matter.
        body: The decoded body, at most `MAX_BODY_BYTES`.
        complete: False if the body was cut off at `MAX_BODY_BYTES`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool


class HttpClient:
    """Requests to one server, through the proxy of `proxy_of`. Its connections open when they are needed."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Choose the proxy.

        Args:
            url: A URL of the server.
            headers: Headers of each request.

        Raises:
            UserError: The proxy cannot be used.
        """
        self._proxy = proxy_of(url)
        self._headers, self._proxy_headers = dict(headers), dict[str, str]()
        if login := _login(self._proxy):
            # A proxy reads the request itself, but of TLS only what opens the tunnel.
            read = self._headers if urlsplit(url).scheme == "http" else self._proxy_headers
            read["Proxy-Authorization"] = aiohttp.encode_basic_auth(*login)
        self._session: aiohttp.ClientSession | None = None

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
        self._session = self._session or self._new_session()
        body = bytearray()
        async with (
            asyncio.timeout(seconds),
            self._session.request(
                method,
                url,
                data=content,
                headers=self._headers,  # not the session's: those go to the proxy as well
                proxy_headers=self._proxy_headers,
                allow_redirects=False,
            ) as response,
        ):
            async for chunk in response.content.iter_any():  # decoded, at most some 100 kB
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return Reply(response.status, response.headers, bytes(body[:MAX_BODY_BYTES]), False)
            return Reply(response.status, response.headers, bytes(body), True)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    def _new_session(self) -> aiohttp.ClientSession:
        """Return a session of the running event loop. It takes nothing from the environment but certificates."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the caller limits its requests
            headers={"Accept-Encoding": "identity", "User-Agent": _USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            proxy=self._proxy.with_user(None) if self._proxy else None,
        )


def get(url: str, seconds: float, headers: Mapping[str, str] | None = None) -> Reply:
    """Send a GET request with a connection of its own, and wait for the answer.

    Raises:
        FAILURES: There is no complete answer.
        UserError: The proxy cannot be used.
    """

    async def once() -> Reply:
        async with aclosing(HttpClient(url, headers or {})) as client:
            return await client.exchange("GET", url, seconds)

    with ThreadPoolExecutor(1, "get") as thread:  # the calling thread may run an event loop, as in a notebook
        return thread.submit(asyncio.run, once()).result()


def proxy_of(url: str) -> URL | None:
    """Return the environment's proxy for a URL: `http_proxy`, `https_proxy` or `all_proxy`, unless in `no_proxy`.

    A server on this machine gets no proxy: a proxy elsewhere could not reach it.

    Raises:
        UserError: The environment's value is not the address of an HTTP proxy.
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
    if not is_address(proxy, "http", "https") or _has_path(proxy) or ":" in (URL(proxy).user or ""):
        raise UserError(f"what the environment names as the proxy for {url} is no http address")
    return URL(proxy)


def _has_path(url: str) -> bool:
    """Return whether a valid URL has a path other than `/`, a query or a fragment."""
    return any(urlsplit(url.removesuffix("/"))[2:])


def _login(proxy: URL | None) -> tuple[str, str] | None:
    """Return the user and password in a proxy's URL; None without any."""
    return (proxy.user or "", proxy.password or "") if proxy and (proxy.user or proxy.password) else None


def proxy_note(url: str) -> str:
    """Return ` through the environment's proxy …` for errors, without credentials; empty without a proxy."""
    proxy = proxy_of(url)
    return f" through the environment's proxy {str(proxy.with_user(None)).rstrip('/')}" if proxy else ""


def proxy_secrets(url: str) -> tuple[str, ...]:
    """Return the credentials of a URL's proxy in all spellings that its answers may contain; empty without any."""
    auth = _login(proxy_of(url))
    if not auth:
        return ()
    login, password = ":".join(auth), auth[1]
    return base64.b64encode(login.encode()).decode(), login, quote(login, safe=":"), password, quote(password, safe="")


def is_address(url: str, *schemes: str) -> bool:
    """Return whether a URL has one of the schemes, and a valid host and port."""
    try:
        parts, _ = urlsplit(url), URL(url)
        host = parts.hostname or ""
        host.encode("idna")  # as name resolution does
        if host.replace(".", "").isdigit():
            ipaddress.IPv4Address(host)  # aiohttp refuses short forms, such as 127.1
        return parts.scheme in schemes and bool(host) and parts.port != 0
    except ValueError:
        return False


def _is_local(host: str) -> bool:
    """Return whether a host is this machine: `localhost`, 127.0.0.0/8, ::1, or 0.0.0.0, which servers often print."""
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
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
