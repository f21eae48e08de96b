"""OpenAI's chat completions over HTTP: `POST /v1/chat/completions`, `GET /v1/models`, `GET /health`.

One answer is written at a time, the others wait in a queue. A client that hangs up ends its answer, and the end of the
server ends all.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from core.errors import is_bug
from core.text import printable
from pipeline.serving.answerer import Answer, Answerer
from pipeline.serving.chat_request import ChatRequest, read_request
from pipeline.serving.completion import DONE, Completion, error, event, models
from pipeline.serving.hosts import Hosts
from pipeline.serving.media_urls import MediaUrls
from pipeline.serving.pieces import close, one_line, taken
from pipeline.serving.queue import Limits, Queue, RequestError

if TYPE_CHECKING:
    from pipeline.serving.page.mount import PageConfig

Read = TypeVar("Read")


def create_app(answerer: Answerer, limits: Limits, ends: Callable[[], bool], page: PageConfig | None = None) -> FastAPI:
    """Return the application.

    Args:
        answerer: The model.
        limits: What requests may take.
        ends: Returns whether the server is to end.
        page: The chat page; None: the API alone.
    """
    queue = Queue(limits, ends)
    app = FastAPI(title="vl3syn", docs_url=None, redoc_url=None, openapi_url=None)  # its pages load scripts from afar

    @app.exception_handler(RequestError)
    async def refuse(_: Request, refused: RequestError) -> Response:
        return JSONResponse(error(str(refused), refused.status), refused.status)

    @app.exception_handler(ClientDisconnect)
    async def forget(_: Request, __: ClientDisconnect) -> Response:
        return Response()  # nobody reads it

    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.get("/v1/models")
    async def list_models(request: Request) -> dict[str, Any]:
        _check_key(request, limits)
        return models(answerer.names)

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        _check_key(request, limits)
        async with AsyncExitStack() as stack:
            body = await _body(request, stack.enter_context(queue.place()))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vl3syn-"))
            asked, name = await _reading(folder, partial(_read, body, MediaUrls(folder, limits.media), answerer))
            del body
            await stack.enter_async_context(queue.turn())
            if await request.is_disconnected():
                return Response()
            answer = await _reading(folder, partial(answerer.answer, asked))
            pieces = queue.while_serving(answer.pieces())
            stack.push_async_callback(close, pieces)
            if asked.stream:
                return _Streamed(_events(asked, answer, pieces, name), stack.pop_all())
            text = await _text(request, pieces)
        return JSONResponse(Completion(name).whole(text, answer.finish_reason, answer.stats))

    if page is not None:
        from pipeline.serving.page.mount import add_page

        add_page(app, answerer, queue, page)
    if not limits.key:
        app.add_middleware(Hosts, names=limits.hosts)
    return app


def _check_key(request: Request, limits: Limits) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if limits.key and not secrets.compare_digest(given.encode(), limits.key.encode()):
        raise RequestError(401, "give the server's key as Authorization: Bearer KEY")


async def _body(request: Request, hold: Callable[[int], None]) -> bytes:
    """Return the body. A page of another site can only send JSON after it has asked, which nobody answers here."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "send the request as application/json")
    body = bytearray()
    async for chunk in request.stream():
        hold(len(chunk))
        body += chunk
    return bytes(body)


def _read(body: bytes, media: MediaUrls, answerer: Answerer) -> tuple[ChatRequest, str]:
    """Return the request, and the name of the model in it."""
    asked = read_request(body, media)
    if asked.model and asked.model not in answerer.names:
        raise RequestError(404, f"no model {printable(asked.model[:200])}: this server has {answerer.names[0]}")
    return asked, asked.model or answerer.names[0]


async def _reading(folder: str, call: Callable[[], Read]) -> Read:
    """Call what reads a request, with its films in `folder`, in a thread.

    Raises:
        RequestError: The request is at fault.
    """
    try:
        return await run_sync(call)
    except RequestError:
        raise
    except Exception as failure:
        if is_bug(failure):
            raise
        raise RequestError(400, one_line(failure).replace(f"{folder}/", "")) from failure


class _Streamed(StreamingResponse):
    """A streamed answer. When it ends, or its client hangs up, what it holds is given back."""

    def __init__(self, events: AsyncIterator[bytes], held: AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


async def _text(request: Request, pieces: Generator[str]) -> str:
    text = ""
    async for piece in taken(pieces):
        text += piece
        if await request.is_disconnected():
            break
    return text


async def _events(asked: ChatRequest, answer: Answer, pieces: Generator[str], name: str) -> AsyncIterator[bytes]:
    completion = Completion(name)
    try:
        yield completion.piece({"role": "assistant", "content": ""})
        async for piece in taken(pieces):
            yield completion.piece({"content": piece})
        yield completion.piece({}, answer.finish_reason)
        if asked.include_usage:
            yield completion.usage(answer.stats)
        yield DONE
    except RequestError as refused:
        yield event(error(str(refused), refused.status))  # another status is sent already
    except Exception as failure:
        yield event(error(one_line(failure), 500))
        raise
