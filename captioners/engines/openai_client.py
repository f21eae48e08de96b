"""Engine: a server with OpenAI's chat completions API (lmdeploy, vLLM, SGLang, transformers serve, and others)."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
import weakref
from collections.abc import Mapping, Sequence
from http.client import responses
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from captioners.engines.base import Answer, Engine, EngineConfig, Question, Sampling
from captioners.engines.chat_answer import error_words, read_answer
from captioners.engines.chat_request import encode_request, shared_fields
from captioners.engines.http_exchange import (
    FAILURES,
    MAX_BODY_BYTES,
    HttpClient,
    Reply,
    get,
    is_address,
    proxy_note,
    proxy_secrets,
    retry_after,
)
from captioners.engines.server_process import ServerProcess, start_server
from captioners.markup import one_line
from core.errors import UserError
from core.secrets import check_variable_name, redact, refuse_credentials
from core.stages import PORTABLE

_CHECK_SECONDS = 10.0  # deadline of the request that checks whether a server answers
_LONGEST_ERROR = 300  # characters
_LONGEST_PAUSE = 60.0  # seconds between two tries
_MAX_CONSECUTIVE_FAILURES = 100  # after so many questions without an answer, no more are sent
_TEMPORARY_STATUSES = frozenset({408, 409, 425, 429, 499, 500, 502, 503, 504, *range(520, 530), 598, 599})
"""The server, or a proxy in front of it (nginx: 499, Cloudflare: 520 to 529), is overloaded or not connected: retry."""
_CONFIGURATION_STATUSES = frozenset({401, 402, 403, 404, 405, 407, 410})
"""The key, account, model, path or proxy login is refused. The next run retries, after the user has corrected it."""

_ANSWER_STATUSES = frozenset({200, 201, 202, 203, 206})
"""Statuses of answers. Some gateways return others than 200."""

_PROXY_STATUSES = frozenset({403, 407, 502, 503, 504})
"""Statuses that a proxy itself may return: it cannot, or must not, reach the server."""


class OpenAIClientConfig(EngineConfig):
    """A running server, or a server that each actor starts on its own GPUs and stops at its end.

    Attributes:
        url: Address of a running server, including `/v1`.
        start: Instead of `url`, the command that starts a server, with `{model}`, `{port}` and, if the stage has a
            `revision`, `{revision}`, such as
            `lmdeploy serve api_server {model} --server-name 127.0.0.1 --server-port {port} --tp 2 --model-name {model}`
        serves: The server's name for the model, if it differs from the recipe's.
        concurrency: Simultaneous requests per actor; choose it so that the engine's queue stays full.
        timeout: Seconds for one request, from connecting to the last byte of the answer.
        tries: Maximum number of requests per image in one run.
        pause: Longest pause before the second try, in seconds; each later pause is twice as long, up to a minute.
        start_timeout: Seconds that a started server may take to load its model.
        key: Name of the environment variable with the API key; if it is empty, no key is sent. A started server
            inherits the environment.
    """

    several_images: ClassVar = True

    kind: Literal["server"] = "server"
    url: str | None = None
    start: str | None = None
    serves: str | None = None
    concurrency: int = Field(default=64, ge=1, le=4096)
    timeout: float = Field(default=300, gt=0)
    tries: int = Field(default=6, ge=1)
    pause: float = Field(default=1, gt=0)
    start_timeout: float = Field(default=1800, gt=0)
    key: str = "OPENAI_API_KEY"

    @property
    def loads_model(self) -> bool:
        return self.start is not None

    @property
    def gpus(self) -> int:
        return 1 if self.start else 0

    @property
    def actors(self) -> int | None:
        """One client is enough for one server."""
        return None if self.start else 1

    @property
    def batch_size(self) -> int:
        """1: the server makes the batches, and each answer is stored at once."""
        return 1

    @property
    def image_input(self) -> str:
        return PORTABLE

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        refuse_credentials(url, "url")
        if not is_address(url, "http", "https"):  # not printed: it may be a key
            raise UserError("it is no http address, such as http://127.0.0.1:23333/v1")
        return url.rstrip("/")

    @field_validator("start")
    @classmethod
    def _check_start(cls, start: str | None) -> str | None:
        refuse_credentials(start or "", "start", "command")
        return start

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str) -> str:
        check_variable_name(key)
        return key

    @model_validator(mode="after")
    def _check_url_or_start(self) -> OpenAIClientConfig:
        if (self.url is None) == (self.start is None):
            raise UserError("give url (a server that runs) or start (the command that starts one)")
        if self.start and "{port}" not in self.start:
            raise UserError("start must have {port} in it, where the server is to listen")
        return self

    def check_available(self, model: str, what: str, revision: str | None) -> None:
        """Check that a running server answers, or that `start` has the values that it names.

        Raises:
            UserError: The server does not answer, or refuses the key; or `start` names a revision that is not given.
        """
        if "{revision}" in (self.start or "") and not revision:
            raise UserError(f"{what}: start has {{revision}}: give the stage a `revision`, the model's commit")
        if self.url:
            _check_server(self.url, self._headers(), what)

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> OpenAIClient:
        """Connect to the server, or start one and wait until it answers.

        Raises:
            UserError: No server answers, or it refuses the key.
        """
        process = start_server(self.start, model, self.start_timeout, what, revision) if self.start else None
        url = process.url if process else self.url
        assert url is not None
        _check_server(url, self._headers(), what)
        return OpenAIClient(self, url, self.serves or model, sampling, self._headers(), process)

    @property
    def secret(self) -> str:
        """The API key; empty if there is none.

        Raises:
            UserError: The variable has a character that is white space or not printable ASCII.
        """
        key = os.environ.get(self.key, "").strip()
        if not re.fullmatch("[!-~]*", key):
            raise UserError(
                f"the environment's {self.key} is no API key: it has a character that is not printable ASCII, or white "
                "space; set it again"
            )
        return key

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"} if self.secret else {}


class OpenAIClient(Engine):
    """`Engine` of `OpenAIClientConfig`: up to `concurrency` simultaneous requests, on its own event loop.

    A temporary failure (no connection, no answer or a broken one, `_TEMPORARY_STATUSES`) is retried after a pause that
    doubles each time and is at least the server's Retry-After. Pauses are random, so that retries do not arrive
    together. The last failure becomes the row's error, in the server's words.
    """

    def __init__(
        self,
        settings: OpenAIClientConfig,
        url: str,
        model: str,
        sampling: Sampling,
        headers: Mapping[str, str],
        process: ServerProcess | None = None,
    ) -> None:
        self.calls = settings.concurrency
        runs_code = re.search("--trust[-_]remote[-_]code", settings.start or "")
        trusted = {"trust_remote_code": True} if runs_code else {}
        self.provenance = {"engine": "server", "server": settings.start or url, **trusted}
        self._settings, self._endpoint, self._process = settings, f"{url}/chat/completions", process
        self._shared_fields, self._secrets = shared_fields(model, sampling), (settings.secret, *proxy_secrets(url))
        self._consecutive_failures, self._stopped_because = 0, ""
        self._loop = asyncio.new_event_loop()
        self._proxy_note = proxy_note(url)
        self._http = HttpClient(url, {"Content-Type": "application/json", **headers})
        self._slots = asyncio.Semaphore(settings.concurrency)
        thread = threading.Thread(target=self._loop.run_forever, name="chat", daemon=True)
        thread.start()
        weakref.finalize(self, _stop, self._http, self._loop, thread)

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        """Send all questions at the same time.

        Raises:
            ConnectionError: Too many consecutive images got no answer: 100, or twice `calls` if that is more.
        """
        asked = [asyncio.run_coroutine_threadsafe(self._answer(question), self._loop) for question in questions]
        answers = [answer.result() for answer in asked]
        for answer in answers:
            self._consecutive_failures = self._consecutive_failures + 1 if answer.retry else 0
            too_many = self._consecutive_failures >= max(_MAX_CONSECUTIVE_FAILURES, 2 * self.calls)
            if too_many and not self._stopped_because:
                self._stopped_because = (
                    f"{self._consecutive_failures} images in a row without an answer, the last one: {answer.error}; "
                    "run again when the server is well"
                )
        # Each calling thread raises once it has no answers left to return.
        if self._stopped_because and all(answer.error for answer in answers):
            raise ConnectionError(self._stopped_because)
        return answers

    async def _answer(self, question: Question) -> Answer:
        body = encode_request(self._shared_fields, question)
        answer = Answer(error="server: given up", retry=True)
        for attempt in range(self._settings.tries):
            async with self._slots:
                if self._stopped_because:
                    break
                answer, wait = await self._send_once(body)
            if not answer.retry or wait is None or attempt + 1 == self._settings.tries:
                break
            pause = min(_LONGEST_PAUSE, self._settings.pause * 2**attempt)
            await asyncio.sleep(max(wait, random.uniform(pause / 2, pause)))
        return answer

    async def _send_once(self, body: bytes) -> tuple[Answer, float | None]:
        """Send one request.

        Returns:
            The answer, and the minimum seconds to wait before a retry; None: do not retry in this run.
        """
        try:
            reply = await self._http.exchange("POST", self._endpoint, self._settings.timeout, body)
        except TimeoutError:
            error = f"server: no whole answer within {self._settings.timeout:g} s{self._proxy_note}"
            return Answer(error=error, retry=True), 0
        except FAILURES as failure:
            words = getattr(failure, "message", failure)  # else aiohttp adds a status, which no server has sent
            error = self._storable(f"server: {type(failure).__name__} {words}{self._proxy_note}")
            return Answer(error=error, retry=True), 0
        if reply.status not in _ANSWER_STATUSES:
            note = self._proxy_note if reply.status in _PROXY_STATUSES else ""
            message = _error_message(reply) or responses.get(reply.status, "")
            error = self._storable(f"server: {reply.status}{note} {message}")
            temporary = reply.status in _TEMPORARY_STATUSES
            misconfigured = reply.status in _CONFIGURATION_STATUSES or 300 <= reply.status < 400
            return Answer(error=error, retry=temporary or misconfigured), retry_after(reply) if temporary else None
        if not reply.complete:
            return Answer(error=f"server: an answer of more than {MAX_BODY_BYTES >> 20} MiB", retry=True), 0
        answer = read_answer(reply.body)
        if answer.error:
            answer = answer._replace(error=self._storable(answer.error))
        return answer, retry_after(reply) if answer.retry else 0

    def _storable(self, error: str) -> str:
        """Return an error as it is stored: one line, shortened, without secrets."""
        return redact(one_line(error), *self._secrets)[:_LONGEST_ERROR]


def _stop(http: HttpClient, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Close the connections, and end the thread."""

    async def close() -> None:
        await http.aclose()
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)
    if thread is not threading.current_thread():
        thread.join(1)


def _check_server(url: str, headers: Mapping[str, str], what: str) -> None:
    """Check that the server answers and accepts the key."""
    note = proxy_note(url)
    hint = ", or name its host in no_proxy" if note else ""
    try:
        status = get(f"{url}/models", _CHECK_SECONDS, headers).status
    except FAILURES as error:
        message = f"{what}: no server answers at {url}{note} ({type(error).__name__}); start one{hint}"
        raise UserError(message) from error
    if note and status in _PROXY_STATUSES:
        raise UserError(f"{what}: {url} answers {status}{note}; see that it runs{hint}")
    if status in (401, 403):
        raise UserError(f"{what}: {url} refuses the API key ({status}); set it in the environment")


def _error_message(reply: Reply) -> str:
    """Return the message in a server's reply, in one line; empty if there is none."""
    try:
        return error_words(json.loads(reply.body))
    except (ValueError, RecursionError):
        return error_words(reply.body[:4096].decode(errors="replace"))
