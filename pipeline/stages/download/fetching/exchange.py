"""One request and the beginning of its answer, over a socket that `addresses.connect` opened."""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from ipaddress import ip_network
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from .addresses import Network, connect, refuse_literal
from .deadline import Deadline, TimedSocket, TimedTLSSocket
from .target import Target

_ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))


class ProxyError(Exception):
    """A proxy of the environment cannot be used, or refuses. The text says why."""


class _Proxy(NamedTuple):
    host: str
    port: int
    login: dict[str, str]  # headers


class Exchange:
    """Makes requests. Certificates are checked against the system's authorities and the name of the host.

    Args:
        allow: Networks that may be connected to although they are not public.
        user_agent: The header User-Agent.
        proxies: Whether the proxies of the environment are used. A proxy looks names up itself, so it has to decide
            what they may lead to; here only hosts that are written as forbidden addresses are refused.

    Raises:
        ProxyError: A proxy of the environment has a scheme other than http.
    """

    def __init__(self, allow: Sequence[Network], user_agent: str, proxies: bool) -> None:
        self._allow, self._user_agent = allow, user_agent
        found = getproxies() if proxies else {}
        self._proxies = {scheme: _proxy(found[scheme]) for scheme in ("http", "https") if found.get(scheme)}
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._tls.sslsocket_class = TimedTLSSocket

    @contextmanager
    def get(self, target: Target, deadline: Deadline) -> Iterator[http.client.HTTPResponse]:
        """Request a target; yield its answer, of which only the headers were read.

        Raises:
            ForbiddenAddressError, DeadlineError, ProxyError, OSError, http.client.HTTPException
        """
        proxy = self._proxy_for(target)
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.auto_open = 0  # it has no connections but this one
        with closing(connection):
            connection.sock = self._open(target, proxy, deadline)
            connection.sock.settimeout(deadline.remaining())
            plain = proxy if proxy and target.scheme == "http" else None
            headers = {
                "Host": target.netloc,
                "User-Agent": self._user_agent,
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
                "Connection": "close",
                **(plain.login if plain else {}),
            }
            connection.request("GET", target.url if plain else target.path, headers=headers)
            with closing(connection.getresponse()) as response:
                yield response

    def _open(self, target: Target, proxy: _Proxy | None, deadline: Deadline) -> TimedSocket | TimedTLSSocket:
        if proxy:
            refuse_literal(target.host, self._allow)
            opened = connect(proxy.host, proxy.port, deadline, _ANYWHERE)
        else:
            opened = connect(target.host, target.port, deadline, self._allow)
        if target.scheme == "http":
            return opened
        try:
            if proxy:
                _tunnel(opened, target, proxy)
            opened.settimeout(deadline.remaining())
            wrapped: TimedTLSSocket = self._tls.wrap_socket(opened, server_hostname=target.host)  # type: ignore[assignment]
        except BaseException:
            opened.close()
            raise
        wrapped.deadline = deadline
        return wrapped

    def _proxy_for(self, target: Target) -> _Proxy | None:
        proxy = self._proxies.get(target.scheme)
        return None if proxy is None or proxy_bypass(target.host) else proxy


def _proxy(url: str) -> _Proxy:
    refusal = ProxyError("a proxy of the environment is not an http:// address: correct http_proxy and https_proxy")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
    except ValueError:
        raise refusal from None  # the text of the error may hold a part of a password
    if parts.scheme != "http" or not parts.hostname:
        raise refusal
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    encoded = base64.b64encode(login.encode()).decode()
    return _Proxy(
        parts.hostname,
        port,
        {"Proxy-Authorization": f"Basic {encoded}"} if parts.username else {},
    )


def _tunnel(opened: TimedSocket, target: Target, proxy: _Proxy) -> None:
    """Ask a proxy for a connection to a target."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    place = f"{host}:{target.port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}", *(f"{key}: {value}" for key, value in proxy.login.items())]
    opened.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    with closing(http.client.HTTPResponse(opened, method="CONNECT")) as response:
        response.begin()
        if response.status != 200:
            raise ProxyError(f"proxy refuses: HTTP {response.status}")
