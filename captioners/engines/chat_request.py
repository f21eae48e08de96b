"""A request of OpenAI's chat completions API: a prompt, with one image, several frames, or neither.

Two forms of frames:

| form | content | servers |
| --- | --- | --- |
| `frames` | for each frame a text part with its time, `<3.0 seconds>`, and an `image_url` part | all |
| `jpeg_list` | one `video_url` part, `data:video/jpeg;base64,FRAME,FRAME,…`, and `media_io_kwargs` | vLLM |

By default vLLM reads only 32 frames of a list, and takes them for one per second. `media_io_kwargs` names their number
and times (vllm/multimodal/media/video.py). Versions that ignore it still get the times as a text part.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, Literal

from captioners.engines.base import Frame, Question, Sampling

VideoForm = Literal["frames", "jpeg_list"]

_TICKS = 1000  # per second: vLLM takes whole numbers of frames, at a rate, for times


def shared_fields(model: str, sampling: Sampling) -> dict[str, Any]:
    """Return the fields that all requests of a run share."""
    body: dict[str, Any] = {"model": model, "max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature}
    return body | ({"top_p": sampling.top_p, "seed": sampling.seed} if sampling.temperature else {})


def encode_request(body: Mapping[str, Any], question: Question, video: VideoForm = "frames") -> bytes:
    """Return the body of one request. Images, by far the largest part, are inserted without JSON encoding.

    Args:
        body: Fields of the request, without its messages.
        question: The question; its images are encoded bytes.
        video: The form of its frames.
    """
    parts, urls, more = _media(question, video)
    content = [*parts, _text(question.prompt)] if parts else question.prompt  # models of text often take nothing else
    request = {**body, **more, "messages": [{"role": "user", "content": content}]}
    pieces = json.dumps(request).split(_EMPTY_URL)  # quotes inside of texts are escaped
    filled = ((piece.encode(), b'"url": "%b"' % url if url else b"") for piece, url in zip_longest(pieces, urls))
    return b"".join(chain.from_iterable(filled))


_EMPTY_URL = '"url": ""'

_Media = tuple[list[dict[str, Any]], list[bytes], dict[str, Any]]
"""The parts of the content, with empty URLs; the URLs in order; and fields of the request."""


def _media(question: Question, video: VideoForm) -> _Media:
    if not question.frames:
        images = [] if question.image is None else [question.image]
        return [_part("image_url")] * len(images), [_image_url(image) for image in images], {}
    if video == "jpeg_list":
        return _jpeg_list(question.frames)
    parts = chain.from_iterable((_text(frame.time_text), _part("image_url")) for frame in question.frames)
    return list(parts), [_image_url(frame.image) for frame in question.frames], {}


def too_large(body: bytes, question: Question, most: int) -> str | None:
    """Return why a request is not sent: it has frames and more than `most` bytes. None: it may be sent."""
    if not question.frames or len(body) <= most:
        return None
    size = f"a request with {len(question.frames)} frames has {len(body) / 1e6:.1f} MB"
    return f"{size}, and max_request_bytes is {most / 1e6:g} MB; give the stage a smaller longest or max_frames"


def _jpeg_list(frames: Sequence[Frame]) -> _Media:
    ticks = [round(frame.time * _TICKS) for frame in frames]
    times = {"frames_indices": ticks, "fps": float(_TICKS), "total_num_frames": max(ticks[-1] + 1, len(ticks))}
    settings = {"num_frames": len(frames), **times, "do_sample_frames": False}
    said = _text("The video's frames are at " + " ".join(frame.time_text for frame in frames))
    url = b"data:video/jpeg;base64," + b",".join(_base64(frame.image) for frame in frames)
    return [_part("video_url"), said], [url], {"media_io_kwargs": {"video": settings}}


def _part(kind: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": ""}}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image_url(image: Any) -> bytes:
    encoded = _base64(image)
    return b"data:image/%b;base64,%b" % (_image_type(image), encoded)


def _base64(image: Any) -> bytes:
    assert isinstance(image, bytes)
    return base64.b64encode(image)


def _image_type(image: bytes) -> bytes:
    return b"jpeg" if image[:2] == b"\xff\xd8" else b"png" if image[:4] == b"\x89PNG" else b"webp"
