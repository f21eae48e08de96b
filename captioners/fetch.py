"""One HTTP exchange within bounds: a deadline over the whole of it, and a cap on the answer as it is decoded.

A client's own timeouts are about single reads: a server that sends a byte now and then never runs into one. And what
is sent in 3 MB of gzip may be 3 GB. Redirects are not followed: they would send images and the key elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from core.errors import UserError

MOST_BYTES = 4 << 20
"""Of a decoded answer. The longest caption that a recipe may ask for, 8,192 tokens, is below 1 MB of JSON."""

FAILURES = (httpx2.HTTPError, TimeoutError)
"""What an exchange raises where there is no answer, or a broken one."""


class Reply(NamedTuple):
    """What came back.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        body: The decoded body, as far as it was read.
        whole: False where the body is longer than was allowed.
    """

    status: int
    headers: httpx2.Headers
    body: bytes
    whole: bool


async def exchange(
    client: httpx2.AsyncClient, method: str, url: str, seconds: float, content: bytes | None = None
) -> Reply:
    """Send a request and read the answer; a connection with something left in it is closed, not used again.

    Args:
        client: Whose connections are used.
        method: GET or POST.
        url: Where to.
        seconds: For all of it: to connect, to send, and to read headers and body.
        content: The body of the request.

    Raises:
        FAILURES: There is no whole answer.
    """
    body = bytearray()
    async with asyncio.timeout(seconds), client.stream(method, url, content=content) as response:
        async with aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:  # of 1 MiB at most, whatever it is decoded from
                body += chunk
                if len(body) > MOST_BYTES:
                    return Reply(response.status_code, response.headers, bytes(body[:MOST_BYTES]), False)
        return Reply(response.status_code, response.headers, bytes(body), True)


def get(url: str, seconds: float, headers: Mapping[str, str] | None = None) -> Reply:
    """`exchange` for a program that waits for it.

    Raises:
        FAILURES: There is no whole answer.
        UserError: From `client_of`.
    """

    async def once() -> Reply:
        async with client_of(url, headers or {}) as client:
            return await exchange(client, "GET", url, seconds)

    with ThreadPoolExecutor(1, "get") as thread:  # a thread may run a loop already, as in a notebook
        return thread.submit(asyncio.run, once()).result()


def client_of(url: str, headers: Mapping[str, str], **settings: Any) -> httpx2.AsyncClient:
    """A client for one server, through the proxy that `proxy_of` names. It keeps no cookies.

    Args:
        url: The server.
        headers: Of each request.
        settings: Others of `httpx2.AsyncClient`.

    Raises:
        UserError: The proxy cannot be used.
    """
    try:
        return httpx2.AsyncClient(
            headers={"Accept-Encoding": "identity", **headers},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # a broken one would break all later requests
            proxy=proxy_of(url),
            trust_env=False,  # of the environment httpx2 takes the certificates, and its own choice of proxy
            verify=httpx2.create_ssl_context(),
            **settings,
        )
    except ImportError as error:  # of a SOCKS proxy
        raise UserError(f"{url} cannot be reached{through(url)}: {error}") from error


def proxy_of(url: str) -> httpx2.Proxy | None:
    """The proxy that the environment names for a URL: `http_proxy`, `https_proxy`, `all_proxy`, less `no_proxy`.

    What is on this machine needs none, and a proxy elsewhere would not find it.

    Raises:
        UserError: What it names is no proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_local(host) or proxy_bypass(host) or proxy_bypass(parts.netloc):
        return None
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not is_address(proxy, "http", "https", "socks5", "socks5h"):  # it may have a password: not printed
        raise UserError(f"what the environment names as the proxy for {url} is no http or socks5 address")
    return httpx2.Proxy(proxy)


def through(url: str) -> str:
    """What the error of an exchange says of the proxy, without its credentials; empty where there is none."""
    proxy = proxy_of(url)
    return f" through the environment's proxy {proxy.url}" if proxy else ""


def is_address(url: str, *schemes: str) -> bool:
    """Whether a URL has one of the schemes, and a host and a port that a connection can be tried to."""
    try:
        parts, _ = urlsplit(url), httpx2.URL(url)
        (parts.hostname or "").encode("idna")  # as the look-up of its address does
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx2.InvalidURL):
        return False


def _is_local(host: str) -> bool:
    """Whether a host is this machine: `localhost`, 127.0.0.0/8, ::1, or 0.0.0.0, which servers print as their own."""
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
