"""The request of a question: about an image, about frames with their times, or about a text."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from captioners.engines.base import Frame, Question
from captioners.engines.chat_request import encode_request

JPEG, PNG = b"\xff\xd8one", b"\x89PNGtwo"
JPEG_URL = f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"
PNG_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def content_of(question: Question) -> Any:
    (message,) = json.loads(encode_request({"model": "m"}, question))["messages"]
    assert message["role"] == "user"
    return message["content"]


@pytest.mark.parametrize("prompt", ["What is it?", 'It has "url": "" in it.'])
def test_image_comes_before_the_prompt(prompt: str) -> None:
    image = {"type": "image_url", "image_url": {"url": JPEG_URL}}
    assert content_of(Question(JPEG, prompt)) == [image, {"type": "text", "text": prompt}]


def test_each_frame_follows_its_time_in_seconds() -> None:
    content = content_of(Question(None, "What happens?", (Frame(0, JPEG), Frame(3.04, PNG))))
    assert content == [
        {"type": "text", "text": "<0.0 seconds>"},
        {"type": "image_url", "image_url": {"url": JPEG_URL}},
        {"type": "text", "text": "<3.0 seconds>"},
        {"type": "image_url", "image_url": {"url": PNG_URL}},
        {"type": "text", "text": "What happens?"},
    ]


def test_question_about_a_text_is_its_prompt() -> None:
    assert content_of(Question(None, "What is said?")) == "What is said?"
