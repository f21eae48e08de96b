"""The environment's proxy: not used for this machine, named where an exchange fails, and told no more than it needs."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from PIL import Image

from captioners.engines.base import Question, Sampling
from captioners.engines.openai_client import OpenAIClient, OpenAIClientConfig
from core.errors import UserError
from tests.chat_server import chat_server

SAMPLING = Sampling(64, 0.0, 1.0, 0)
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
ELSEWHERE = "http://server.invalid:8000/v1"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def question() -> Question:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    return Question(data.getvalue(), "What is it?")


def ask(url: str) -> str:
    answer = OpenAIClientConfig(url=url, tries=1).load("m", "test", None, SAMPLING)([question()])[0]
    return answer.error or answer.text


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.9.9.9", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_proxy_is_not_used_for_this_machine(
    variable: str, host: str, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"http://{nobody}")
    with chat_server(listen="0.0.0.0") as server:
        assert ask(f"http://{host}:{server.port}/v1").startswith("A picture of number")


def test_doctor_reaches_a_local_server_when_a_proxy_is_set(
    nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vl3syn: Callable[..., CompletedProcess[str]]
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{nobody}")
    (tmp_path / "pool").mkdir()
    with chat_server() as server:
        stage = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": server.url}}
        recipe = {"pool": {"images": str(tmp_path / "pool")}, "stages": [stage]}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        done = vl3syn("doctor", tmp_path / "recipe.yaml")
    assert "no server answers" not in done.stdout + done.stderr
    assert f"recipe {tmp_path}/recipe.yaml" in done.stdout


@pytest.mark.parametrize("form", ["http://{}", "{}", "http://{}/", "http://us%65r:pass-word-1@{}"])
def test_proxy_is_used_for_another_machine(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server() as proxy:  # a client of a proxy sends it the whole URL, of which the server looks at nothing
        monkeypatch.setenv("http_proxy", form.format(f"127.0.0.1:{proxy.port}"))
        assert ask(ELSEWHERE).startswith("A picture of number")


def test_login_reaches_the_proxy_with_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server() as proxy:
        monkeypatch.setenv("http_proxy", f"http://us%20r:pw%2F7@127.0.0.1:{proxy.port}")
        client = OpenAIClientConfig(url=ELSEWHERE, concurrency=1).load("m", "test", None, SAMPLING)
        assert [answer.error for answer in client([question()] * 3)] == [None] * 3
        assert proxy.logins == ["Basic dXMgcjpwdy83"] * 4  # the greeting and three questions; base64 of us r:pw/7


def test_key_stays_inside_of_the_tunnel_to_a_tls_server(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []
    with socket.create_server(("127.0.0.1", 0)) as proxy, ThreadPoolExecutor(1) as thread:

        def refuse() -> None:
            connection, _ = proxy.accept()
            with connection:
                heads.append(connection.recv(1 << 16).decode())
                connection.sendall(b"HTTP/1.1 403 no way\r\nContent-Length: 0\r\n\r\n")

        thread.submit(refuse)
        monkeypatch.setenv("https_proxy", f"http://us%20r:pw%2F7@127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("OPENAI_API_KEY", "abcdefgh-123")
        with pytest.raises(UserError, match="through the environment's proxy http://127") as refusal:
            OpenAIClientConfig(url="https://server.invalid/v1").check_available("m", "short_caption", None)
    assert heads[0].startswith("CONNECT server.invalid:443 ")
    assert "\r\nProxy-Authorization: Basic dXMgcjpwdy83\r\n" in heads[0]
    assert "abcdefgh" not in heads[0]
    assert "pw" not in str(refusal.value)


def test_dead_proxy_is_named_without_its_password(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:pass-word-1@{nobody}")
    with pytest.raises(UserError) as refusal:
        OpenAIClientConfig(url=ELSEWHERE).check_available("m", "short_caption", None)
    assert str(refusal.value) == (
        f"short_caption: no server answers at {ELSEWHERE} through the environment's proxy http://{nobody} "
        "(ClientProxyConnectionError); start one, or name its host in no_proxy"
    )


@pytest.mark.parametrize("no_proxy", ["server.invalid", ".invalid", "*", "server.invalid:8000", "x, server.invalid"])
def test_proxy_is_not_used_for_hosts_in_no_proxy(no_proxy: str, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{nobody}")
    monkeypatch.setenv("no_proxy", no_proxy)
    with pytest.raises(UserError, match=r"server\.invalid:8000/v1 \(ClientConnectorDNSError\); start one$"):
        OpenAIClientConfig(url=ELSEWHERE).check_available("m", "short_caption", None)


@pytest.mark.parametrize("status", ["403", "407", "502", "504"])
def test_refusal_of_a_proxy_names_it(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server(greeting=status) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(UserError, match=f"answers {status} through the environment's proxy http://127"):
            OpenAIClientConfig(url=ELSEWHERE).check_available("m", "short_caption", None)


def test_error_of_a_row_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server(faults=("502",), share=1.0, refusal="no route") as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        way = f"through the environment's proxy http://127.0.0.1:{proxy.port}"
        assert ask(ELSEWHERE) == f"server: 502 {way} no route"
        proxy.faults = ("reset",)
        assert ask(ELSEWHERE).endswith(way)


def test_answer_that_is_no_http_is_named_without_a_status() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(1) as thread:
        url = f"http://127.0.0.1:{other.getsockname()[1]}/v1"
        client = OpenAIClient(OpenAIClientConfig(url=url, tries=1), url, "m", SAMPLING, {})

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread.submit(answer)
        error = client([question()])[0].error
    assert error is not None
    assert error.startswith("server: ClientResponseError Bad status line: Expected HTTP/")


@pytest.mark.parametrize("echo", ["us r:pw/7", "us%20r:pw%2F7", "pw/7", "dXMgcjpwdy83"])  # base64 of us r:pw/7
def test_proxy_that_echoes_its_login_is_redacted(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server(faults=("407",), share=1.0, refusal=f"refused: {echo}, sorry") as proxy:
        address = f"127.0.0.1:{proxy.port}"
        monkeypatch.setenv("http_proxy", f"http://us%20r:pw%2F7@{address}")
        assert ask(ELSEWHERE) == f"server: 407 through the environment's proxy http://{address} refused: …, sorry"


@pytest.mark.parametrize(
    "proxy",
    [
        "ftp://127.0.0.1:9",
        "http://[::1",
        "http://127.0.0.1:99999999",
        "socks5://127.0.0.1:9",
        "http://us%3Aer:pass-word-1@127.0.0.1:9",
        "x://user:pass-word-1@y",
        "http:/user:pass-word-1@127.0.0.1:9",
        "http:///user:pass-word-1@127.0.0.1:9",
        "/user:pass-word-1@127.0.0.1:9",
        "http://user:12/pass-word-1@127.0.0.1:9",
        "http://user:12?pass-word-1@127.0.0.1:9",
        "http://user:12#pass-word-1@127.0.0.1:9",
    ],
)
def test_invalid_proxy_is_reported_in_one_line(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(UserError, match=f"proxy for {ELSEWHERE} is no http address") as refusal:
        OpenAIClientConfig(url=ELSEWHERE).check_available("m", "short_caption", None)
    assert "pass-word-1" not in str(refusal.value)
    with pytest.raises(UserError, match="is no http address"):
        OpenAIClientConfig(url=ELSEWHERE).check_available("m", "short_caption", None)
    with chat_server() as server:
        assert ask(server.url).startswith("A picture of number")


@pytest.mark.parametrize(
    "url", ["http://x:0/v1", "http://x:99999999/v1", "http://[::1/v1", "http://a..b/v1", "http://127.1/v1"]
)
def test_invalid_server_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no http address"):
        OpenAIClientConfig(url=url)
