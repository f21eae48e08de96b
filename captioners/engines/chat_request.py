"""A request of OpenAI's chat completions API: one image and one prompt."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from captioners.engines.base import Question, Sampling


def shared_fields(model: str, sampling: Sampling) -> dict[str, Any]:
    """Return the fields that all requests of a run share."""
    body: dict[str, Any] = {"model": model, "max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature}
    return body | ({"top_p": sampling.top_p, "seed": sampling.seed} if sampling.temperature else {})


def encode_request(body: Mapping[str, Any], question: Question) -> bytes:
    """Return the body of one request. The image, by far the largest part, is inserted without JSON encoding."""
    assert isinstance(question.image, bytes)
    text = {"type": "text", "text": question.prompt}
    image = {"type": "image_url", "image_url": {"url": ""}}
    start, _, end = json.dumps({**body, "messages": [{"role": "user", "content": [image, text]}]}).partition('"url": "')
    url = b"data:image/%b;base64,%b" % (_image_type(question.image), base64.b64encode(question.image))
    return b'%b"url": "%b%b' % (start.encode(), url, end.encode())


def _image_type(image: bytes) -> bytes:
    return b"jpeg" if image[:2] == b"\xff\xd8" else b"png" if image[:4] == b"\x89PNG" else b"webp"
