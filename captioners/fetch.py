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
from core.secrets import redact

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
    """A client for one server, through the environment's proxy where `proxy_of` names one. It keeps no cookies.

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
            proxy=proxy_of(url) or None,
            trust_env=False,  # of the environment httpx2 takes the certificates, and its own choice of proxy
            verify=httpx2.create_ssl_context(),
            **settings,
        )
    except (ValueError, ImportError, httpx2.InvalidURL) as error:
        raise UserError(f"{url} cannot be reached{through(url)}: {redact(str(error))}") from error


def proxy_of(url: str) -> str:
    """The proxy that the environment names for a URL (`http_proxy`, `all_proxy`, `no_proxy`); empty where none is.

    What is on this machine needs none, and a proxy elsewhere would not find it.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_local(host) or proxy_bypass(host) or proxy_bypass(parts.netloc):
        return ""
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all") or ""
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def through(url: str) -> str:
    """What the error of an exchange says of the proxy, without its credentials; empty where there is none."""
    proxy = urlsplit(proxy_of(url))
    address = proxy.netloc.rpartition("@")[2]
    return redact(f" through the environment's proxy {proxy.scheme}://{address}") if address else ""


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
