"""The names under which a server without a key answers.

A page of another site can have its own name point to this server (DNS rebinding). To the browser both are then one
site, and what the page asks comes from the visitor's machine. Its name gives it away: it is a public one.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.text import printable
from pipeline.serving.completion import error

_OWN = (".localhost", ".local", ".internal")
"""Endings that nobody can register."""


@dataclass
class Hosts:
    """Refuses requests under a name that may be anybody's. A server with a key needs it not: no page has the key.

    Attributes:
        app: The server.
        names: Further names of this server.
    """

    app: ASGIApp
    names: Collection[str] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "http":
            name = name_of(Headers(scope=scope).get("host", ""))
            if not is_own(name) and name not in {known.lower() for known in (*self.names, socket.gethostname())}:
                line = f"this server has no key and does not go by the name {printable(name[:100])}: ask it by address"
                await JSONResponse(error(line, 421), 421)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def name_of(host: str) -> str:
    """Return the name, or the address, in a Host header."""
    return re.sub(r":[0-9]*$", "", host).strip("[]").lower()


def is_own(name: str) -> bool:
    """Whether no stranger's site can have this name: an address, a name without a dot, one of a local network."""
    if "." not in name or name.endswith(_OWN):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_this_machine(name: str) -> bool:
    """Whether a name, or an address, is the loopback's."""
    try:
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
