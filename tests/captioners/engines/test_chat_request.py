"""The body of a request: one image as ever, frames in two forms, a text alone, and how large it may be."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from captioners.engines.base import Frame, Question, Sampling
from captioners.engines.chat_request import VideoForm, encode_request, shared_fields, too_large
from captioners.engines.openai_client import OpenAIClientConfig
from tests.chat_server import chat_server
from tests.conftest import jpeg

SAMPLING = Sampling(64, 0.0, 1.0, 0)
FIELDS = {"model": "m", "max_tokens": 64, "temperature": 0.0}
TRICKY = 'Is "url": "" here? {"url": ""} \\"url\\": \\"\\"'
FRAMES = tuple(Frame(time, jpeg(16, 8, number)) for number, time in enumerate((0.0, 1.5, 2.9996)))


def request(question: Question, video: VideoForm = "frames") -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode_request(shared_fields("m", SAMPLING), question, video))
    return body


def data(image: Any) -> str:
    return base64.b64encode(image).decode()


def user(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(encoded: Any, kind: str = "jpeg") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data(encoded)}"}}


@pytest.mark.parametrize(
    ("start", "kind"), [(b"\xff\xd8", "jpeg"), (b"\x89PNG", "png"), (b"RIFF", "webp")], ids=["jpeg", "png", "webp"]
)
def test_one_image_is_sent_before_its_prompt(start: bytes, kind: str) -> None:
    encoded = start + bytes(range(200))
    expected = user(image(encoded, kind), text(TRICKY))
    assert request(Question(encoded, TRICKY)) == {**FIELDS, "messages": expected}


def test_text_alone_is_sent_without_an_image() -> None:
    assert request(Question(None, TRICKY)) == {**FIELDS, "messages": [{"role": "user", "content": TRICKY}]}


def test_frames_are_images_that_follow_their_times() -> None:
    assert request(Question(None, TRICKY, FRAMES)) == {
        **FIELDS,
        "messages": user(
            *(text("<0.0 seconds>"), image(FRAMES[0].image)),
            *(text("<1.5 seconds>"), image(FRAMES[1].image)),
            *(text("<3.0 seconds>"), image(FRAMES[2].image)),
            text(TRICKY),
        ),
    }


def test_jpeg_list_is_one_video_with_its_number_and_times() -> None:
    """The fields that vLLM checks: whole numbers, one for each frame, below the total number of frames."""
    sent = request(Question(None, TRICKY, FRAMES), "jpeg_list")
    url = "data:video/jpeg;base64," + ",".join(data(frame.image) for frame in FRAMES)
    times = text("The video's frames are at <0.0 seconds> <1.5 seconds> <3.0 seconds>")
    assert sent.pop("messages") == user({"type": "video_url", "video_url": {"url": url}}, times, text(TRICKY))
    video = sent.pop("media_io_kwargs")["video"]
    assert sent == FIELDS
    assert video == {
        "num_frames": 3,
        "frames_indices": [0, 1500, 3000],
        "fps": 1000.0,
        "total_num_frames": 3001,
        "do_sample_frames": False,
    }


@pytest.mark.parametrize("form", ["frames", "jpeg_list"])
def test_form_of_frames_is_a_setting_of_the_server(form: VideoForm) -> None:
    with chat_server() as server:
        client = OpenAIClientConfig(url=server.url, video=form).load("m", "test", None, SAMPLING)
        (answer,) = client([Question(None, "What is it?", FRAMES)])
        assert answer.error is None
        kinds = [part["type"] for part in server.contents[0]]
        assert set(server.images.values()) == {b"".join(frame.image for frame in FRAMES)}  # type: ignore[misc]
    assert kinds == {"frames": ["text", "image_url"] * 3 + ["text"], "jpeg_list": ["video_url", "text", "text"]}[form]


def test_too_large_request_is_an_error_and_not_sent() -> None:
    frames = tuple(Frame(time, bytes(40_000)) for time in (0.0, 1.0))
    with chat_server() as server:
        config = OpenAIClientConfig(url=server.url, max_request_bytes=100_000)
        client = config.load("m", "test", None, SAMPLING)
        large, small, single = client(
            [Question(None, "?", frames), Question(None, "?", frames[:1]), Question(bytes(200_000), "?")]
        )
        assert sum(server.requests.values()) == 2
    assert (small.error, single.error, large.retry) == (None, None, False), "an image alone is sent as ever"
    assert large.error == (
        "server: a request with 2 frames has 0.1 MB, and max_request_bytes is 0.1 MB; give the stage a smaller longest "
        "or max_frames"
    )


def test_request_of_the_largest_size_is_sent() -> None:
    question = Question(None, "?", FRAMES)
    body = encode_request(FIELDS, question)
    assert too_large(body, question, len(body)) is None
    assert too_large(body, question, len(body) - 1) is not None
