"""The client of a server: what it asks again, what it gives up, and how many requests it keeps under way."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image

from captioners.engines.base import Answer, Question, Sampling
from captioners.engines.openai_client import OpenAIClient, OpenAIClientConfig
from core.errors import UserError
from tests.chat_server import FAULTS, HOSTILE, chat_server

NO_TEXT = "UnicodeDecodeError: 'utf-8' codec can't decode byte 0x8b in position 1: invalid start byte"
SAMPLING = Sampling(64, 0.0, 1.0, 0)


def _questions(number: int, prompt: str = "What is it?") -> list[Question]:
    questions = []
    for shade in range(number):
        data = io.BytesIO()
        Image.new("RGB", (8, 8), (shade % 256, shade // 256, 7)).save(data, "PNG")
        questions.append(Question(data.getvalue(), prompt))
    return questions


def _client(url: str, **settings: Any) -> Any:
    return OpenAIClientConfig(url=url, **{"pause": 0.01, **settings}).load("some/model", "test", None, SAMPLING)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "429-date"])
def test_passing_failure_is_retried_and_answered_once(fault: str) -> None:
    with chat_server(faults=(fault,), share=0.4) as server:
        answers = _client(server.url, timeout=0.3 if fault == "hang" else 30, tries=12)(_questions(20))
    assert all(answer.error is None and answer.text.startswith("A picture of number") for answer in answers)
    assert sum(server.requests.values()) > 20
    assert set(server.answered.values()) == {1}


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_answer_is_retried_on_a_sound_connection(fault: str) -> None:
    """In bounded time and memory: of a bomb of 100 MB no more than what is allowed is decoded."""
    with chat_server(faults=(fault,), share=0.4) as server:
        # A bomb ends by its size: a limit of time must not cut a good answer that waits while the server packs one.
        client = _client(server.url, timeout=60 if "bomb" in fault else 1, tries=12, concurrency=6)
        tracemalloc.start()
        answers = client(_questions(12))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert all(answer.error is None and answer.text.startswith("A picture of number") for answer in answers)
        assert len({answer.text for answer in answers}) == 12
        assert sum(server.requests.values()) > 12
        assert set(server.answered.values()) == {1}
    assert most < 60 << 20


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("gzip-bomb", "server: an answer of more than 4 MiB"),
        ("deflate-bomb", "server: an answer of more than 4 MiB"),
        ("gzip-twice-bomb", f"server: malformed answer ({NO_TEXT})"),  # not decoded: nobody asked for it
        ("large", "server: an answer of more than 4 MiB"),
        ("drip", "server: no whole answer within 0.5 s"),
        ("drip-headers", "server: no whole answer within 0.5 s"),
        ("continue", "server: no whole answer within 0.5 s"),
        ("hang", "server: no whole answer within 0.5 s"),
        ("redirect", "server: 307 the image is too strange"),
    ],
)
def test_hostile_answer_has_its_error_message(fault: str, error: str) -> None:
    with chat_server(faults=(fault,), share=1.0) as server:
        client = _client(server.url, timeout=0.5, tries=1)
        begin = time.monotonic()
        answer = client(_questions(1))[0]
        assert time.monotonic() - begin < 5
        assert (answer.error, answer.retry) == (error, True)
        assert sum(server.requests.values()) == 1  # a redirect is not followed


def test_body_of_an_error_answer_is_bounded() -> None:
    with chat_server(faults=("500-bomb",), share=1.0) as server:
        client = _client(server.url, tries=1)
        tracemalloc.start()
        answer = client(_questions(1))[0]
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (answer.error, answer.retry) == ("server: 500 Internal Server Error", True)
    assert most < 60 << 20


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_answer_is_read(encoding: str) -> None:
    with chat_server(encoding=encoding) as server:
        assert _client(server.url)(_questions(1))[0].text.startswith("A picture of number")


@pytest.mark.parametrize("greeting", ["gzip-bomb", "large", "drip", "drip-headers"])
def test_hostile_greeting_of_a_server_ends_in_time(greeting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioners.engines.openai_client._CHECK_SECONDS", 0.5)
    with chat_server(greeting=greeting) as server:
        begin = time.monotonic()
        if greeting.startswith("drip"):
            with pytest.raises(ValueError, match="test: no server answers at http://127"):
                _client(server.url)
        else:
            _client(server.url)
        assert time.monotonic() - begin < 10


def test_key_appears_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_A_SERVER", "abcdefgh-123 \n")
    with chat_server(faults=("401",), share=1.0) as server:
        server.refusal = "Incorrect API key provided: abcdefgh-123."
        answer = _client(server.url, key="OF_A_SERVER", tries=1)(_questions(1))[0]
        assert server.keys == {"Bearer abcdefgh-123"}
    assert answer.error == "server: 401 Incorrect API key provided: …."


@pytest.mark.parametrize("key", ["kéy-abcdefgh", "abcd\nefgh", "abcd\tefgh", "abcd efgh", "“abcdefgh”", "abc\x7fdefg"])
def test_key_that_does_not_fit_a_header_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_A_SERVER", key)
    with chat_server() as server:
        settings = OpenAIClientConfig(url=server.url, key="OF_A_SERVER")
        for check in (
            lambda: settings.check_available("m", "test", None),
            lambda: _client(server.url, key="OF_A_SERVER"),
        ):
            with pytest.raises(UserError) as refusal:
                check()
            assert str(refusal.value) == (
                "the environment's OF_A_SERVER is no API key: it has a character that is not printable ASCII, or white "
                "space; set it again"
            )


@pytest.mark.parametrize("key", ["abc-12", "k7"])
def test_short_key_appears_in_no_message(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_A_SERVER", key)
    with chat_server(faults=("400",), share=1.0, refusal=f"key '{key}' is not {key}9") as server:
        answer = _client(server.url, key="OF_A_SERVER", tries=1)(_questions(1))[0]
    assert answer.error == f"server: 400 key '…' is not {key}9"


def test_answers_belong_to_their_questions() -> None:
    import hashlib

    questions = _questions(30)
    with chat_server() as server:
        answers = _client(server.url, concurrency=7)(questions)
    for question, answer in zip(questions, answers, strict=True):
        assert hashlib.sha256(question.image).hexdigest()[:8] in answer.text  # type: ignore[arg-type]


@pytest.mark.parametrize(("fault", "seconds"), [("429", 0.5), ("429-date", 0.9)])
def test_retry_after_is_obeyed(fault: str, seconds: float) -> None:
    with chat_server(faults=(fault,), share=0.4, retry_after=0.5) as server:
        _client(server.url, tries=20)(_questions(3))
        gaps = [later - sooner for times in server.times.values() for sooner, later in pairwise(times)]
    assert gaps
    assert min(gaps) >= seconds


def test_refused_image_has_the_servers_error_and_is_not_retried() -> None:
    with chat_server(faults=("400",), share=1.0) as server:
        answer = _client(server.url)(_questions(1))[0]
        assert answer.error == "server: 400 the image is too strange"
        assert not answer.retry
        assert set(server.requests.values()) == {1}


@pytest.mark.parametrize("fault", ["401", "402", "404", "407", "410"])
def test_refused_key_or_model_is_not_an_error_of_the_image(fault: str) -> None:
    with chat_server(faults=(fault,), share=1.0) as server:
        answer = _client(server.url)(_questions(1))[0]
        assert answer.error == f"server: {fault} the image is too strange"
        assert answer.retry  # by the next run, when it is mended
        assert set(server.requests.values()) == {1}


def test_failing_request_is_given_up_after_its_tries() -> None:
    with chat_server(faults=("500",), share=1.0) as server:
        answer = _client(server.url, tries=3)(_questions(1))[0]
        assert answer.retry
        assert answer.error is not None
        assert answer.error.startswith("server: 500")
        assert set(server.requests.values()) == {3}


def test_server_that_stopped_ends_the_job() -> None:
    with chat_server(faults=("500",), share=1.0) as server:
        client = _client(server.url, tries=1, concurrency=8)
        with pytest.raises(ConnectionError, match=r"100 images in a row without an answer, the last one: server: 500"):
            [client([question]) for question in _questions(200)]


def test_credit_that_runs_out_ends_the_job() -> None:
    with chat_server(faults=("402",), share=1.0, refusal="Insufficient Balance") as server:
        client = _client(server.url, concurrency=8)
        with pytest.raises(ConnectionError, match=r"100 images in a row .* server: 402 Insufficient Balance"):
            [client([question]) for question in _questions(200)]
        assert sum(server.requests.values()) == 100


@pytest.mark.parametrize("status", [201, 203, 206])
def test_answer_of_another_good_status_is_read(status: int) -> None:
    choice = {"message": {"content": "A red square."}, "finish_reason": "stop"}
    raw = (status, {}, json.dumps({"choices": [choice]}).encode())
    with chat_server(raw=raw) as server:
        assert _client(server.url)(_questions(1)) == [Answer("A red square.")]


def test_good_status_without_a_body_is_retried() -> None:
    with chat_server(raw=(202, {}, b"")) as server:
        answer = _client(server.url, tries=2)(_questions(1))[0]
        assert (str(answer.error).startswith("server: malformed answer"), answer.retry) == (True, True)
        assert sum(server.requests.values()) == 2


def test_server_that_answers_now_and_then_does_not_end_the_job() -> None:
    with chat_server(faults=("500",), share=0.9) as server:
        answers = [_client(server.url, tries=1, concurrency=64)(_questions(150))]
    assert any(answer.error is None for answer in answers[0])


def test_process_that_ends_closes_its_connections_silently() -> None:
    script = (
        "from tests.captioners.engines.test_openai_client import _client, _questions\n"
        "import sys; client = _client(sys.argv[1]); print(client(_questions(1))[0].text)"
    )
    with chat_server() as server:
        done = subprocess.run([sys.executable, "-c", script, server.url], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("A picture of number")
    assert done.stderr == ""


def test_thread_of_a_client_ends_with_it() -> None:
    with chat_server() as server:
        before = threading.active_count()
        client = _client(server.url)
        client(_questions(2))
        assert threading.active_count() == before + 1
        del client
        assert threading.active_count() == before


def test_requests_at_once_are_as_many_as_allowed() -> None:
    with chat_server(delay=0.05) as server:
        _client(server.url, concurrency=9)(_questions(60))
        assert server.most == 9


def test_token_counts_are_those_of_the_server() -> None:
    question = _questions(1)[0]
    with chat_server() as server:
        answer = _client(server.url)([question])[0]
    assert answer.prompt_tokens == 100 + len(question.image) % 50  # type: ignore[arg-type]
    assert answer.tokens == len(answer.text.split())


def test_settings_reach_the_server() -> None:
    with chat_server() as server:
        OpenAIClientConfig(url=server.url, serves="internvl").load("m", "test", None, Sampling(33, 0.7, 0.9, 5))(
            _questions(1)
        )
        body = server.bodies[0]
    assert body == {
        "model": "internvl",
        "max_tokens": 33,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 5,
        "messages": None,
    }


def test_unreachable_server_is_a_one_line_error_within_seconds() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        begin = time.monotonic()
        with pytest.raises(ValueError, match=r"short_caption: no server answers at http://127\.0"):
            OpenAIClientConfig(url=url).check_available("m", "short_caption", None)
    assert time.monotonic() - begin < 15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give url .* or start"),
        ({"url": "http://x/v1", "start": "x {port}"}, "give url .* or start"),
        ({"url": "x:80"}, "is no http address"),
        ({"url": "http://a:b@x/v1"}, "keep credentials in the environment"),
        ({"start": "lmdeploy serve"}, "must have {port}"),
        ({"url": "http://x/v1", "key": "sk-abc"}, "key is the NAME of the environment variable"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpenAIClientConfig(**settings)


def test_start_with_a_revision_that_is_not_given_is_refused() -> None:
    config = OpenAIClientConfig(start="serve {model} --revision {revision} --port {port}")
    with pytest.raises(ValueError, match=r"short_caption: start has \{revision\}: give the stage a `revision`"):
        config.check_available("m", "short_caption", None)
    config.check_available("m", "short_caption", "0a1b")


@pytest.mark.parametrize("flag", ["--trust-remote-code", "--trust_remote_code", ""])
def test_provenance_says_that_the_server_may_run_code(flag: str) -> None:
    config = OpenAIClientConfig(start=f"serve {{model}} --port {{port}} {flag}")
    client = OpenAIClient(config, "http://127.0.0.1:9/v1", "m", SAMPLING, {})
    assert client.provenance.get("trust_remote_code", False) is bool(flag)
