"""Take the pieces of an answer in a thread, end it, and say in one line what went wrong."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator

import anyio
from anyio.to_thread import run_sync

from core.secrets import redact
from core.text import printable


async def taken(pieces: Generator[str], goes_on: Callable[[], bool] = lambda: True) -> AsyncGenerator[str]:
    """Yield the pieces, while it goes on."""
    while goes_on() and (piece := await run_sync(next, pieces, None)) is not None:
        yield piece


async def close(pieces: Generator[str]) -> None:
    """End the answer, also for a client that has hung up."""
    with anyio.CancelScope(shield=True):
        await run_sync(pieces.close)


def one_line(failure: Exception) -> str:
    """Return an error as a line, without credentials."""
    return printable(redact(" ".join(str(failure).split()))) or type(failure).__name__
