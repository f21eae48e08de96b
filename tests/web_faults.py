"""How the tests' web server answers: with an image, or with a fault of the web. See `tests.web_server`."""

from __future__ import annotations

import gzip
import io
import socket
import struct
import time
from email.utils import formatdate
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from PIL import Image

if TYPE_CHECKING:
    from tests.web_server import WebServer

TRANSIENT = (
    "429",
    "429-date",
    "429-long",
    "500",
    "503",
    "hang",
    "drip",
    "drip-headers",
    "reset",
    "short",
    "short-chunk",
)
"""Faults that are gone when the server is mended: then images are served in their place."""


@cache
def image_of(name: str) -> bytes:
    """The image that is served under a name: a JPEG whose EXIF says that it is turned."""
    number = sum(name.encode())
    data, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    color = (number % 256, number // 256 % 256, 90)
    Image.new("RGB", (40 + len(name), 30), color).save(data, "JPEG", exif=exif, comment=name)
    return data.getvalue()


def _send(connection: socket.socket, status: str, body: bytes = b"", **headers: str) -> None:
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def _image(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    body = image_of(name)
    kind = "text/plain" if fault == "wrong-type" else "image/jpeg"
    _send(connection, "200", body, Content_Type=kind, Content_Length=str(len(body)))


def _slow(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    with seen.answering():
        time.sleep(0.02)
    _image(connection, fault, name, seen)


def send_status(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    _send(connection, fault, b"no", Content_Length="2")


def _busy(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    dates = {"429": "1", "429-long": "120", "429-date": formatdate(time.time() + 90, usegmt=True)}
    _send(connection, "429", Retry_After=dates[fault], Content_Length="0")


def _hang(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    seen.ended.wait()


def _drip(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    connection.sendall(b"HTTP/1.1 200 X\r\n")
    if fault == "drip":
        connection.sendall(b"\r\n")
    while not seen.ended.wait(0.05):
        connection.sendall(b"a")


def _continue(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    while not seen.ended.is_set():
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def _reset(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _short(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    body = image_of(name)
    if fault == "short":
        _send(connection, "200", body[:-100], Content_Type="image/jpeg", Content_Length=str(len(body)))
    else:
        _send(connection, "200", b"1000\r\n" + body, Transfer_Encoding="chunked")


def _endless(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    _send(connection, "200", image_of(name))
    while not seen.ended.is_set():
        connection.sendall(b"\0" * 65536)


def _huge(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    _send(connection, "200", Content_Length="999999999999")
    seen.ended.wait()


@cache
def _packed(data: bytes) -> bytes:
    return gzip.compress(data)


def _bomb(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    body = _packed(image_of(name) + b"\0" * 5_000_000)
    _send(connection, "200", body, Content_Encoding="gzip", Content_Length=str(len(body)))


def _gzip(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    body = _packed(image_of(name))
    _send(connection, "200", body, Content_Encoding="gzip", Content_Length=str(len(body)))


def _loop(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    _send(connection, "302", Location=f"/loop/{name.rpartition('-')[0] or name + '-again'}")


def _redirect(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    _send(connection, "302", Location=unquote(name, "latin-1"))


def _many(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    _send(connection, "302", Location=f"/many/{int(name) + 1}")


def _text(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    body = b"<!doctype html><title>Sorry</title>"
    kind = {"html": "text/html; charset=utf-8", "liar": "image/jpeg", "empty": "image/png"}[fault]
    _send(connection, "200", b"" if fault == "empty" else body, Content_Type=kind)


def _broken(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    _send(connection, "200", b"\xff\xd8\xff\xe0 no JPEG", Content_Type="image/jpeg")


def _tagged(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    body = image_of(name)
    _send(connection, "200", body, X_Robots_Tag=fault, Content_Length=str(len(body)))


def _garbage(connection: socket.socket, fault: str, name: str, seen: WebServer) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH\r\n")


FAULTS = {
    "image": _image,
    "wrong-type": _image,
    "slow": _slow,
    "429": _busy,
    "429-date": _busy,
    "429-long": _busy,
    "hang": _hang,
    "drip": _drip,
    "drip-headers": _drip,
    "continue": _continue,
    "reset": _reset,
    "short": _short,
    "short-chunk": _short,
    "endless": _endless,
    "huge": _huge,
    "gzip": _gzip,
    "bomb": _bomb,
    "loop": _loop,
    "to": _redirect,
    "many": _many,
    "html": _text,
    "liar": _text,
    "empty": _text,
    "broken": _broken,
    "noai": _tagged,
    "noimageai": _tagged,
    "garbage": _garbage,
}
