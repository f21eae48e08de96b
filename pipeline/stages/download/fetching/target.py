"""A URL taken apart into what a request needs. Only http and https."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, urlsplit

_PORTS = {"http": 80, "https": 443}
_UNCHANGED = "%/:=&?~#+!$,;'@()*[]|"  # characters of a path and query that are sent as they are
_NOT_IN_HOST = re.compile(r"[\x00-\x20\x7f\"<>\\^`{|}/?#@]")


class BadURLError(Exception):
    """A URL that no request can be made for. The text says why."""


class Target(NamedTuple):
    """Where a request goes.

    Attributes:
        scheme: http or https.
        host: Name or address, in lower case and ASCII, without brackets.
        port: TCP port.
        path: Path and query, quoted.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def netloc(self) -> str:
        """Host and port as in a URL; the port only if it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL, without a fragment and without a login."""
        return f"{self.scheme}://{self.netloc}{self.path}"


def parse(url: str) -> Target:
    """Take a URL apart. A login and a fragment are left out.

    Raises:
        BadURLError: Its scheme is another, or it is not a valid URL.
    """
    try:
        parts = urlsplit(url.strip())
        scheme = parts.scheme.lower()
        if scheme not in _PORTS:
            raise BadURLError(f"forbidden scheme: {scheme}" if scheme else "bad URL: no http:// or https://")
        host = (parts.hostname or "").encode("idna").decode("ascii").rstrip(".")
        path = quote(parts.path or "/", _UNCHANGED) + (f"?{quote(parts.query, _UNCHANGED)}" if parts.query else "")
        port = _PORTS[scheme] if parts.port is None else parts.port
    except ValueError as error:  # UnicodeError is one
        raise BadURLError(f"bad URL: {' '.join(str(error).split())[:100]}") from error
    if not host or _NOT_IN_HOST.search(host):
        raise BadURLError("bad URL: no host" if not host else "bad URL: invalid host")
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")
