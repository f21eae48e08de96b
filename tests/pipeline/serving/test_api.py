"""`vl3syn serve` over HTTP: what it answers equals what the model answers in this process."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from model import Processor, VideoLLaMA3
from model.config import preset
from tests.model.clips import write
from tests.model.oracles import widen

TOKENS = 12
_SIZE = b"IHDR" + struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
HUGE = b"\x89PNG\r\n\x1a\n\0\0\0\r" + _SIZE + struct.pack(">I", zlib.crc32(_SIZE)) + bytes(4) + b"IDAT"
"""The header of an image of 169 million pixels."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that writes on and on: it knows no end token."""
    parent = tmp_path_factory.mktemp("served")
    model = VideoLLaMA3(preset("tiny"))
    widen(model)
    model.language.generation_config.eos_token_id = None
    model.save_pretrained(parent)
    Processor.tiny().save_pretrained(parent)
    return parent


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("films")
    write(parent / "grey.mp4", [k / 5 for k in range(20)])
    return parent


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps what it is sent."""
    return tmp_path_factory.mktemp("temporary")


@contextmanager
def serving(folder: Path, films: Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "pipeline", "serve", str(folder), "--port", "0", "--name", "mine", "--system", ""]
    command += ["--media", str(films), "--max-request-mb", "3", "--dtype", "float32", "--max-new-tokens", "900"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert "Traceback" not in said
    finally:
        process.kill()


@pytest.fixture(scope="module")
def server(folder: Path, films: Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    with serving(folder, films, temporary) as process:
        yield process


@pytest.fixture(scope="module")
def url(server: subprocess.Popen[str]) -> str:
    return url_of(server)


def url_of(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    line = next(line for line in server.stderr if "serving" in line)
    return line.split()[3].rstrip(";")


def post(url: str, body: Any, **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **headers}
    for _ in range(50):
        try:
            return urlopen(Request(f"{url}/chat/completions", data, sent), timeout=60)
        except HTTPError:
            raise
        except OSError:  # it does not listen yet
            time.sleep(0.1)
    raise TimeoutError(url)


def send(url: str, body: Any, lacking: int = 0) -> socket.socket:
    """Send a request without waiting for its answer; `lacking` bytes at its end are not sent."""
    data = json.dumps(body).encode()
    host, port = url.split("/")[2].split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(data), data[: len(data) - lacking])
    )
    return connection


def ask(url: str, content: Any, **settings: Any) -> dict[str, Any]:
    message = {"role": "user", "content": content}
    settings = {"max_tokens": TOKENS, "temperature": 0} | settings
    with post(url, {"model": "mine", "messages": [message], **settings}) as answer:
        answered: dict[str, Any] = json.load(answer)
    return answered


def refused(url: str, body: Any, **headers: str) -> tuple[int, str]:
    with pytest.raises(HTTPError) as caught:
        post(url, body, **headers)
    return caught.value.code, json.load(caught.value)["error"]["message"]


def asking(*content: Any, **settings: Any) -> dict[str, Any]:
    return {"model": "mine", "messages": [{"role": "user", "content": list(content)}], **settings}


def picture(number: int = 0) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(pixels).resize((90, 120)).save(data, "PNG")
    return data.getvalue()


def data_url(kind: str, *data: bytes) -> str:
    return f"data:{kind};base64,{','.join(base64.b64encode(part).decode() for part in data)}"


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def video(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


@cache
def loaded(folder: Path) -> tuple[VideoLLaMA3, Processor]:
    return VideoLLaMA3.from_pretrained(folder), Processor.from_pretrained(folder)


def expected(folder: Path, content: Any, tokens: int = TOKENS) -> tuple[str, int]:
    """Our own answer, and the tokens of the prompt."""
    model, processor = loaded(folder)
    row = processor([{"role": "user", "content": content}])
    return processor.decode(model.generate(**row, max_new_tokens=tokens)[0]), len(row.input_ids)


def test_image_is_answered_as_by_generate(url: str, folder: Path) -> None:
    answer = ask(url, [image(data_url("image/png", picture())), text("What?")])
    words, prompt = expected(folder, [{"type": "image", "image": picture()}, "What?"])
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": words}
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": prompt, "completion_tokens": TOKENS, "total_tokens": prompt + TOKENS}


def test_film_as_data_url_is_sampled_as_asked(url: str, folder: Path, films: Path) -> None:
    film = films / "grey.mp4"
    sent = [video(data_url("video/mp4", film.read_bytes())), text("What?")]
    answer = ask(url, sent, media_io_kwargs={"video": {"fps": 2, "num_frames": 6}})
    part = {"type": "video", "video": str(film), "fps": 2, "max_frames": 6}
    words, prompt = expected(folder, [part, "What?"])
    assert answer["choices"][0]["message"]["content"] == words
    assert answer["usage"]["prompt_tokens"] == prompt


def test_frames_of_a_film_keep_their_order(url: str, folder: Path) -> None:
    shades = [Image.new("RGB", (56, 56), (shade, 0, 0)) for shade in (0, 120, 250)]
    encoded = []
    for shade in shades:
        data = io.BytesIO()
        shade.save(data, "PNG")
        encoded.append(data.getvalue())
    answer = ask(url, [video(data_url("video/jpeg", *encoded)), text("What?")])
    words, prompt = expected(folder, [{"type": "video", "video": shades}, "What?"])
    assert (answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]) == (words, prompt)


def test_file_below_the_media_folder_is_read(url: str, folder: Path, films: Path) -> None:
    answer = ask(url, [video(f"file://{films}/grey.mp4"), text("What?")])
    words, _ = expected(folder, [{"type": "video", "video": str(films / "grey.mp4")}, "What?"])
    assert answer["choices"][0]["message"]["content"] == words


def test_streamed_pieces_join_to_the_answer(url: str, folder: Path) -> None:
    body = asking(text("What?"), max_tokens=TOKENS, stream=True, stream_options={"include_usage": True})
    with post(url, body) as answer:
        lines = [line[6:] for line in answer.read().decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    words, prompt = expected(folder, "What?")
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == words
    assert len(deltas) > 4
    assert [event["choices"][0]["finish_reason"] for event in events if event["choices"]][-1] == "length"
    assert events[-1]["usage"]["prompt_tokens"] == prompt
    assert len({event["id"] for event in events}) == 1


def test_stop_ends_the_answer_before_it(url: str, folder: Path) -> None:
    words, _ = expected(folder, "What?", 40)
    stop = words[6:9]
    answer = ask(url, "What?", max_tokens=40, stop=[stop])
    assert answer["choices"][0]["message"]["content"] == words[: words.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_earlier_messages_are_part_of_the_prompt(url: str, folder: Path) -> None:
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url("image/png", picture())}}]},
        {"role": "assistant", "content": "A picture."},
        {"role": "user", "content": "Of what?"},
    ]
    with post(url, {"messages": turns, "max_tokens": TOKENS}) as sent:
        answer = json.load(sent)
    model, processor = loaded(folder)
    ours = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image", "image": picture()}]},
        *turns[2:],
    ]
    row = processor(ours)
    assert answer["choices"][0]["message"]["content"] == processor.decode(
        model.generate(**row, max_new_tokens=TOKENS)[0]
    )


def test_seed_makes_sampling_repeatable(url: str) -> None:
    answers = [ask(url, "What?", temperature=5, seed=seed)["choices"][0]["message"]["content"] for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_client_that_hangs_up_frees_the_model(url: str) -> None:
    """The next question waits for less than half of the long answer that nobody reads."""
    with send(url, asking(text("What?"), max_tokens=900, stream=True)) as connection:
        assert b"200" in connection.recv(4096)
        connection.recv(4096)
    begin = time.perf_counter()
    ask(url, "What?", max_tokens=1)
    short = time.perf_counter() - begin
    begin = time.perf_counter()
    ask(url, "What?", max_tokens=900)
    assert short < (time.perf_counter() - begin) / 2


def test_answer_without_a_seed_is_not_repeatable(url: str) -> None:
    """Not even after one with a seed."""

    def drawn(**settings: int) -> str:
        answer: str = ask(url, "What?", temperature=5, **settings)["choices"][0]["message"]["content"]
        return answer

    answers = []
    for _ in range(2):
        drawn(seed=1)
        answers.append(drawn())
    assert answers[0] != answers[1]


@pytest.mark.slow
def test_ctrl_c_ends_answers_and_those_that_wait(folder: Path, films: Path, tmp_path: Path) -> None:
    with serving(folder, films, tmp_path) as server:
        url = url_of(server)
        answer = post(url, asking(text("What?"), max_tokens=900, stream=True))
        with answer, send(url, asking(text("And?"))) as waiting:
            answer.read(1000)
            urlopen(f"{url}/models", timeout=60).close()  # when this is answered, the server has read what came before
            server.send_signal(signal.SIGINT)
            *_, last = [line for line in answer.read().decode().split("\n\n") if line]
            ending = "the server is ending: ask it again when it is back"
            assert json.loads(last.removeprefix("data: "))["error"]["message"] == ending
            waiting.settimeout(60)
            received = waiting.makefile("rb").read()
            assert received.startswith(b"HTTP/1.1 503")
            assert ending.encode() in received
        server.wait(60)
    assert list(tmp_path.iterdir()) == []


def test_long_stop_does_not_hold_up_the_answer(url: str, folder: Path) -> None:
    words, _ = expected(folder, "What?")
    answer = ask(url, "What?", stop=["x" * 2_500_000])
    assert answer["choices"][0]["message"]["content"] == words


def test_client_that_hangs_up_while_it_sends_is_no_fault(url: str, server: subprocess.Popen[str]) -> None:
    """The fixture's end looks at what the server says."""
    send(url, asking(text("x")), lacking=9).close()
    assert ask(url, "And now?")["choices"]
    assert server.poll() is None


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "Invalid JSON"),
        (b"[" * 100_000, 400, "Invalid JSON"),
        ({"messages": []}, 400, "messages: "),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.role"),
        (asking(text("x"), max_tokens=0), 400, "max_tokens"),
        (asking(text("x"), n=2), 400, "n: this server gives one text"),
        (asking(text("x"), tools=[{}]), 400, "tools: this server"),
        (asking(text("x"), temperature=-1), 400, "temperature"),
        (asking({"type": "image_url"}), 400, "a part of type image_url has no image_url"),
        (asking(image("https://example.com/a.jpg")), 400, "nothing is fetched"),
        (asking(image("data:image/png;base64,@@@")), 400, "not Base64"),
        (asking(image(data_url("image/png", b"<html>"))), 400, "image"),
        (asking(video(data_url("video/mp4", b"<html>" * 99))), 400, "film-1: cannot be read as a video"),
        (asking(video(data_url("video/mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"))), 400, "film-1: "),
        (asking(video("file:///etc/passwd")), 400, "lies outside of"),
        (asking(video("file://elsewhere/film.mp4")), 400, "names another machine"),
        (asking(video("file://[elsewhere/film.mp4")), 400, "no URL: Invalid IPv6 URL"),
        (asking(video(data_url("video/jpeg", *[HUGE] * 3))), 400, "frames of more than 400,000,000 pixels in all"),
        (asking(text("x"), repetition_penalty=1.3), 400, "repetition_penalty: this server gives one text"),
        (asking(text("x"), guided_json={"type": "object"}), 400, "guided_json: this server gives one text"),
        (asking(text("x" * 3_000_001)), 413, "more than 3,000,000 bytes"),
        ({**asking(text("x")), "model": "gpt-4o"}, 404, "no model gpt-4o: this server has mine"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "the last message must be a user's"),
    ],
)
def test_bad_request_is_refused_in_one_line(url: str, body: Any, status: int, message: str) -> None:
    code, said = refused(url, body)
    assert code == status
    assert message in said
    assert "\n" not in said
    assert "/vl3syn-" not in said
    assert ask(url, "And now?")["choices"]


def test_path_that_goes_up_is_not_read(url: str, films: Path) -> None:
    code, said = refused(url, asking(video(f"file://{films}/%2e%2e/secret.mp4")))
    assert (code, "lies outside of" in said) == (400, True)


def test_form_of_another_site_is_refused(url: str) -> None:
    assert refused(url, asking(text("x")), **{"Content-Type": "text/plain"})[0] == 415


def test_nothing_stays_in_the_temporary_folder(url: str, temporary: Path, films: Path) -> None:
    ask(url, [video(data_url("video/mp4", (films / "grey.mp4").read_bytes())), text("What?")])
    refused(url, asking(video(data_url("video/mp4", b"no film"))))
    assert list(temporary.iterdir()) == []


def test_two_clients_get_their_own_answers(url: str, folder: Path) -> None:
    answers: dict[int, str] = {}

    def call(number: int) -> None:
        answers[number] = ask(url, f"Question {number}?")["choices"][0]["message"]["content"]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {number: expected(folder, f"Question {number}?")[0] for number in range(4)}
