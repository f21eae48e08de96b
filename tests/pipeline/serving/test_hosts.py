from __future__ import annotations

import socket

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pipeline.serving.hosts import Hosts


def ask(host: str, *names: str) -> tuple[int, str]:
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("passed on"))])
    with TestClient(Hosts(app, names), base_url="http://127.0.0.1:8000") as client:
        answer = client.get("/", headers={"host": host})
        return answer.status_code, answer.text


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "192.168.1.7",
        "[::1]:8000",
        "[fe80::1]",
        "localhost:8000",
        "vl3syn:8000",
        "gpu.local",
        "a.b.INTERNAL",
    ],
)
def test_address_or_local_name_is_answered(host: str) -> None:
    assert ask(host) == (200, "passed on")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "local.evil.example", "1.2.3"]
)
def test_name_of_another_site_is_refused_in_one_line(host: str) -> None:
    status, line = ask(host)
    assert status == 421
    assert "ask it by address" in line
    assert "\n" not in line


def test_names_of_this_server_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "GPU1.example.org")
    assert ask("gpu1.example.org:8000")[0] == 200
    assert ask("chat.example.org", "Chat.example.org")[0] == 200
    assert ask("other.example.org", "chat.example.org")[0] == 421
