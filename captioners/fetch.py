"""One HTTP exchange within bounds: a deadline over the whole of it, and a cap on the answer as it is decoded.

A client's own timeouts are about single reads: a server that sends a byte now and then never runs into one. And what
is sent in 3 MB of gzip may be 3 GB. Redirects are not followed: they would send images and the key elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import NamedTuple

import httpx2

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
    """

    async def once() -> Reply:
        async with httpx2.AsyncClient(headers={"Accept-Encoding": "identity", **(headers or {})}) as client:
            return await exchange(client, "GET", url, seconds)

    with ThreadPoolExecutor(1, "get") as thread:  # a thread may run a loop already, as in a notebook
        return thread.submit(asyncio.run, once()).result()
