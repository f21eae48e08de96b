"""A request of OpenAI's chat completions API: an image or frames, and one prompt."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from captioners.engines.base import Question, Sampling

_URL = '"url": ""'
"""The place of an image in the JSON. No text holds it: JSON writes a quotation mark of a text with a backslash."""


def shared_fields(model: str, sampling: Sampling) -> dict[str, Any]:
    """Return the fields that all requests of a run share."""
    body: dict[str, Any] = {"model": model, "max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature}
    return body | ({"top_p": sampling.top_p, "seed": sampling.seed} if sampling.temperature else {})


def encode_request(body: Mapping[str, Any], question: Question) -> bytes:
    """Return the body of one request. Images, by far the largest part, are inserted without JSON encoding.

    Each frame follows a text with its time, `<3.0 seconds>`, and the prompt comes last. Without any image, the content
    is the prompt itself: models of text often take nothing else.
    """
    images = [question.image] if question.image is not None else [frame.image for frame in question.frames]
    request = json.dumps({**body, "messages": [{"role": "user", "content": _content(question)}]})
    start, *rest = request.split(_URL)
    pieces = [start.encode()]
    for image, text in zip(images, rest, strict=True):
        assert isinstance(image, bytes)
        url = b"data:image/%b;base64,%b" % (_image_type(image), base64.b64encode(image))
        pieces += [b'"url": "', url, b'"', text.encode()]
    return b"".join(pieces)


def _content(question: Question) -> str | list[dict[str, Any]]:
    """Return the content of the message, with empty URLs of its images."""
    image = {"type": "image_url", "image_url": {"url": ""}}
    prompt = {"type": "text", "text": question.prompt}
    if question.image is not None:
        return [image, prompt]
    if not question.frames:
        return question.prompt
    times = [{"type": "text", "text": f"<{frame.time:.1f} seconds>"} for frame in question.frames]
    return [*(part for time in times for part in (time, image)), prompt]


def _image_type(image: bytes) -> bytes:
    return b"jpeg" if image[:2] == b"\xff\xd8" else b"png" if image[:4] == b"\x89PNG" else b"webp"
