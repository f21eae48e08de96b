"""A request of OpenAI's chat completions, read into a conversation and the settings of its answer.

Clients send more fields than a model needs. Those that cannot change the answer here are ignored. Those that ask for
something else than one text, such as tools, are refused: a client that does not get them would take the text for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from core.errors import BadSampleError
from model.prompt import Message
from pipeline.serving.media_urls import MediaUrls

_COLDEST = 1e-6  # lower temperatures give the most probable token, as 0 does: the quotients of the logits stay finite
_MOST_STOPS = 16
_REFUSED: Mapping[str, Sequence[object]] = {
    "n": (None, 1),
    "tools": (None, []),
    "functions": (None, []),
    "logprobs": (None, False),
    "audio": (None,),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "response_format": (None, {"type": "text"}),
    **dict.fromkeys(("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"), (None,)),
}
"""Fields whose values other than these would change the answer, or its form."""


class _Url(BaseModel):
    url: str


class _Part(BaseModel):
    """A part of a message's content."""

    type: Literal["text", "image_url", "video_url"]
    text: str | None = None
    image_url: _Url | None = None
    video_url: _Url | None = None


def _as_parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[_Part], BeforeValidator(_as_parts)]


class _Video(BaseModel):
    """How a film's frames are chosen: vLLM's `media_io_kwargs: {video: …}`."""

    fps: float | None = Field(default=None, gt=0)
    num_frames: int | None = Field(default=None, ge=-1)


class _MediaOptions(BaseModel):
    video: _Video = _Video()


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Body(BaseModel):
    """The fields that are read. Others are kept, to be looked at by name."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    messages: list[_Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    media_io_kwargs: _MediaOptions | None = None


@dataclass(frozen=True)
class ChatRequest:
    """What is asked.

    Attributes:
        model: The name of the model; empty: any.
        conversation: The messages before the question, as `Processor` reads them.
        question: The last message, a user's.
        max_new_tokens: Maximum tokens of the answer; None: the server's.
        temperature: 0 takes the most probable token. OpenAI's default is 1; here it is 0, as in `vl3syn chat`.
        top_p: Total probability of the tokens that are sampled.
        seed: Seed of the sampling; None: another one each time.
        stop: Texts that end the answer; they are not part of it.
        stream: Whether the answer is sent in pieces.
        include_usage: Whether the last piece tells the numbers of tokens.
    """

    model: str
    conversation: Sequence[Message]
    question: Message
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    stream: bool = False
    include_usage: bool = False


def read_request(body: bytes, media: MediaUrls) -> ChatRequest:
    """Read the JSON of a request.

    Args:
        body: The JSON.
        media: Reads images and films. It must exist until the question is answered.

    Raises:
        BadSampleError: It is no such request, asks for what is not there, or names a medium that cannot be read.
    """
    try:
        read = _Body.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadSampleError(f"{where}: {first['msg']}" if where else str(first["msg"])) from error
    _refuse_other_answers(read.model_extra or {})
    options = _clip(read.media_io_kwargs.video) if read.media_io_kwargs else {}
    messages = [_message(message, media, options) for message in read.messages]
    if messages[-1]["role"] != "user":
        raise BadSampleError("the last message must be a user's")
    temperature = read.temperature or 0.0
    return ChatRequest(
        model=read.model,
        conversation=messages[:-1],
        question=messages[-1],
        max_new_tokens=read.max_completion_tokens or read.max_tokens,
        temperature=temperature if temperature >= _COLDEST else 0.0,
        top_p=1.0 if read.top_p is None else read.top_p,
        seed=read.seed,
        stop=_stops(read.stop),
        stream=bool(read.stream),
        include_usage=bool(read.stream_options and read.stream_options.include_usage),
    )


def _refuse_other_answers(given: Mapping[str, object]) -> None:
    for name, values in _REFUSED.items():
        if given.get(name) not in values:
            raise BadSampleError(f"{name}: this server gives one text as an answer: leave it out")


def _clip(video: _Video) -> dict[str, Any]:
    """Return the options of a film's part: those that were given."""
    most = video.num_frames if video.num_frames and video.num_frames > 0 else None
    return {name: value for name, value in (("fps", video.fps), ("max_frames", most)) if value is not None}


def _message(message: _Message, media: MediaUrls, options: Mapping[str, Any]) -> Message:
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": [_part(part, media, options) for part in message.content]}


def _part(part: _Part, media: MediaUrls, options: Mapping[str, Any]) -> Mapping[str, Any]:
    if part.type == "text" and part.text is not None:
        return {"type": "text", "text": part.text}
    if part.type == "image_url" and part.image_url is not None:
        return {"type": "image", "image": media.image(part.image_url.url)}
    if part.type == "video_url" and part.video_url is not None:
        return {"type": "video", "video": media.film(part.video_url.url), **options}
    raise BadSampleError(f"a part of type {part.type} has no {part.type}")


def _stops(stop: str | list[str] | None) -> Sequence[str]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if len(stops) > _MOST_STOPS:
        raise BadSampleError(f"stop: {len(stops)} texts: give at most {_MOST_STOPS}")
    return tuple(text for text in stops if text)
