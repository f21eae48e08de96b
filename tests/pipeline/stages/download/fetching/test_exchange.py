"""TLS and proxies: whom a request talks to, and whom it believes."""

from __future__ import annotations

import base64
import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.stages.download.fetching.exchange import ProxyError
from pipeline.stages.download.fetching.fetch import Fetched, Fetcher
from pipeline.stages.download.settings import DownloadSettings
from tests.web_server import WebServer, image_of, serving


def _fetcher(**changes: object) -> Fetcher:
    few = {"allow": ["127.0.0.2"], "timeout": 20, **changes}
    return Fetcher(**DownloadSettings.model_validate(few).for_child()["fetch"])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.2, signed by itself, with its key."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    made = [*command.split(), "-addext", "subjectAltName=IP:127.0.0.2", "-keyout", "-", "-out", "-"]
    file.write_bytes(subprocess.run(made, check=True, capture_output=True).stdout)
    return file


@pytest.fixture
def tls(certificate: Path) -> Iterator[WebServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(wrap=lambda connection: context.wrap_socket(connection, server_side=True)) as server:
        yield server


def test_certificate_of_nobody_is_refused(tls: WebServer) -> None:
    fetched = _fetcher().fetch(f"https://127.0.0.2:{tls.port}/image/a")
    assert fetched == Fetched(None, None, "bad certificate: self-signed certificate", False)
    assert not tls.asked


def test_certificate_must_be_the_hosts(tls: WebServer, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert _fetcher().fetch(f"https://127.0.0.2:{tls.port}/image/a").body == image_of("a")
    other = _fetcher(allow=["127.0.0.3"]).fetch(f"https://127.0.0.3:{tls.port}/image/a")
    assert (other.body, other.retry) == (None, False)
    assert (other.error or "").startswith("bad certificate: IP address mismatch")


def test_deadline_holds_over_tls(tls: WebServer, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    fetched = _fetcher(timeout=1).fetch(f"https://127.0.0.2:{tls.port}/drip/a")
    assert fetched == Fetched(None, 200, "timed out", True)


def test_server_without_tls_is_an_error_row(web: WebServer) -> None:
    fetched = _fetcher().fetch(f"https://127.0.0.2:{web.port}/image/a")
    assert (fetched.error or "").startswith("TLS failed: ")


class _Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that sends everything to one server, and notes what it was asked."""

    asked: list[tuple[str, str, str | None]]
    port: int

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(("GET", self.path, self.headers.get("Proxy-Authorization")))
        body = image_of("proxy")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self) -> None:
        self.asked.append(("CONNECT", self.path, self.headers.get("Proxy-Authorization")))
        self.send_response(200)
        self.end_headers()
        with socket.create_connection(("127.0.0.2", self.port)) as server:
            back = threading.Thread(target=_copy, args=(server, self.connection))
            back.start()
            _copy(self.connection, server)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


@contextmanager
def _proxying(port: int) -> Iterator[tuple[str, list[tuple[str, str, str | None]]]]:
    kind = type("Proxy", (_Proxy,), {"asked": [], "port": port})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://user:p%40ss@127.0.0.1:{server.server_address[1]}", kind.asked  # type: ignore[attr-defined]
        server.shutdown()


_LOGIN = f"Basic {base64.b64encode(b'user:p@ss').decode()}"


def test_proxy_is_used_only_when_asked_for(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with _proxying(web.port) as (address, asked):
        monkeypatch.setenv("http_proxy", address)
        assert _fetcher().fetch(web.url("image/a")).body == image_of("a")
        assert asked == []
        assert _fetcher(proxies=True).fetch(web.url("image/a")).body == image_of("proxy")
        assert asked == [("GET", web.url("image/a"), _LOGIN)]
        monkeypatch.setenv("no_proxy", "127.0.0.2")
        assert _fetcher(proxies=True).fetch(web.url("image/a")).body == image_of("a")


def test_error_about_a_proxy_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:se/cret@proxy:80")
    with pytest.raises(ProxyError, match="is not an http:// address"):
        _fetcher(proxies=True)


def test_proxy_is_not_asked_for_a_forbidden_address(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with _proxying(web.port) as (address, asked):
        monkeypatch.setenv("http_proxy", address)
        fetched = _fetcher(proxies=True).fetch("http://2852039166/latest/meta-data/")
        assert fetched.error == "forbidden address: 169.254.169.254"
        assert asked == []


def test_tls_goes_through_a_tunnel(tls: WebServer, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with _proxying(tls.port) as (address, asked):
        monkeypatch.setenv("https_proxy", address)
        fetched = _fetcher(proxies=True).fetch(f"https://127.0.0.2:{tls.port}/image/a")
        assert fetched.body == image_of("a")
        assert asked == [("CONNECT", f"127.0.0.2:{tls.port}", _LOGIN)]
        assert "proxy-authorization" not in tls.headers
