"""Engine: a server with OpenAI's chat completions API (lmdeploy, vLLM, SGLang, transformers serve, and others)."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Literal

import httpx2
from pydantic import Field, field_validator, model_validator

from captioners.engines.base import Answer, Engine, EngineConfig, Question, Sampling
from captioners.engines.chat_answer import error_words, read_answer
from captioners.engines.chat_request import encode_request, settings_of
from captioners.engines.http_exchange import (
    FAILURES,
    MOST_BYTES,
    Reply,
    client_of,
    exchange,
    get,
    is_address,
    proxy_secrets,
    retry_after,
    through,
)
from captioners.engines.server_process import ServerProcess, start_server
from captioners.markup import one_line
from core.errors import UserError
from core.secrets import check_variable_name, redact, refuse_credentials
from core.stages import PORTABLE

_GREETING = 10.0  # seconds to wait for a server's first answer
_LONGEST_ERROR = 300  # characters
_LONGEST_PAUSE = 60.0  # seconds between two tries
_IN_A_ROW = 100  # consecutive questions without an answer after which the server counts as gone
_WORTH_ANOTHER_TRY = frozenset({408, 409, 425, 429, 499, 500, 502, 503, 504, *range(520, 530), 598, 599})
"""The server, or a proxy in front of it (nginx: 499, Cloudflare: 520 to 529), was overloaded or not connected."""
_ABOUT_US = frozenset({401, 402, 403, 404, 405, 407, 410})
"""The server refuses the key, the account, the model, the path or the proxy's login. Fix it before the next run."""

_ANSWERS = frozenset({200, 201, 202, 203, 206})
"""Statuses of answers with a body: some gateways do not answer 200."""

_OF_A_PROXY = frozenset({403, 407, 502, 503, 504})
"""Statuses that a proxy itself returns if it cannot, or must not, reach the server."""


class OpenAIClientConfig(EngineConfig):
    """A running server, or a server that each actor starts on its own GPUs and stops at its end.

    Attributes:
        url: Address of a running server, including `/v1`.
        start: The alternative to `url`: the command that starts a server, with `{model}` and `{port}`, such as
            `lmdeploy serve api_server {model} --server-name 127.0.0.1 --server-port {port} --tp 2 --model-name {model}`
        serves: The server's name for the model, if it differs from the recipe's.
        concurrency: Simultaneous requests per actor; choose it so that the engine's queue stays full.
        timeout: Seconds for one request, from connecting to the last byte of the answer.
        tries: Most requests per image in one run.
        pause: Longest pause before the second try, in seconds; each later pause is twice as long, up to a minute.
        start_timeout: Seconds that a started server may take to load its model.
        key: Name of the environment variable with the API key; if it is empty, no key is sent. A started server
            inherits the environment.
    """

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
    def gpus(self) -> int:
        return 1 if self.start else 0

    @property
    def actors(self) -> int | None:
        """One client is enough for one server."""
        return None if self.start else 1

    @property
    def batch_size(self) -> int:
        """1: a server makes its own batches, and each answer is stored at once."""
        return 1

    @property
    def image_input(self) -> str:
        return PORTABLE

    @field_validator("url")
    @classmethod
    def _public(cls, url: str | None) -> str | None:
        if url is None:
            return None
        refuse_credentials(url, "url")
        if not is_address(url, "http", "https"):  # not printed: it may be a key
            raise UserError("it is no http address, such as http://127.0.0.1:23333/v1")
        return url.rstrip("/")

    @field_validator("start")
    @classmethod
    def _without_key(cls, start: str | None) -> str | None:
        refuse_credentials(start or "", "start", "command")
        return start

    @field_validator("key")
    @classmethod
    def _name(cls, key: str) -> str:
        check_variable_name(key)
        return key

    @model_validator(mode="after")
    def _one(self) -> OpenAIClientConfig:
        if (self.url is None) == (self.start is None):
            raise UserError("give url (a server that runs) or start (the command that starts one)")
        if self.start and "{port}" not in self.start:
            raise UserError("start must have {port} in it, where the server is to listen")
        return self

    def check_available(self, model: str, what: str, revision: str | None) -> None:
        """Check that a running server answers; with `start` nothing is checked.

        Raises:
            UserError: The server does not answer, or refuses the key.
        """
        if self.url:
            _greet(self.url, self._headers(), what)

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> OpenAIClient:
        """Connect to the server, or start one and wait until it answers.

        Raises:
            UserError: No server answers, or it refuses the key.
        """
        process = start_server(self.start, model, self.start_timeout, what) if self.start else None
        url = process.url if process else self.url
        assert url is not None
        _greet(url, self._headers(), what)
        return OpenAIClient(self, url, self.serves or model, sampling, self._headers(), process)

    @property
    def secret(self) -> str:
        """The API key; empty if there is none.

        Raises:
            UserError: The variable has a character that no HTTP header of a key has.
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

    A temporary failure (no connection, no answer or a broken one, the statuses `_WORTH_ANOTHER_TRY`) is retried after a
    pause that doubles each time and is at least the server's Retry-After. Pauses are random, so that retries do not
    arrive together. A permanent failure is the row's error, in the server's words.
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
        self.provenance = {"engine": "server", "server": settings.start or url}
        self._settings, self._endpoint, self._process = settings, f"{url}/chat/completions", process
        self._body, self._secrets = settings_of(model, sampling), (settings.secret, *proxy_secrets(url))
        self._failed_in_a_row, self._gone = 0, ""
        self._loop = asyncio.new_event_loop()
        self._through = through(url)
        self._client = client_of(
            url,
            {"Content-Type": "application/json", **headers},
            timeout=httpx2.Timeout(settings.timeout, connect=min(30.0, settings.timeout), pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=settings.concurrency),
        )
        self._free = asyncio.Semaphore(settings.concurrency)
        threading.Thread(target=self._loop.run_forever, name="chat", daemon=True).start()

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        """Send all questions at the same time.

        Raises:
            ConnectionError: Too many consecutive images got no answer: 100, or twice `calls` if that is more.
        """
        answers = asyncio.run_coroutine_threadsafe(self._all(questions), self._loop).result()
        for answer in answers:
            self._failed_in_a_row = self._failed_in_a_row + 1 if answer.retry else 0
            if self._failed_in_a_row >= max(_IN_A_ROW, 2 * self.calls) and not self._gone:
                self._gone = (
                    f"{self._failed_in_a_row} images in a row without an answer, the last one: {answer.error}; "
                    "run again when the server is well"
                )
        if self._gone and all(answer.error for answer in answers):  # in the other threads too: requests have stopped
            raise ConnectionError(self._gone)
        return answers

    async def _all(self, questions: Sequence[Question]) -> list[Answer]:
        return await asyncio.gather(*(self._answer(question) for question in questions))

    async def _answer(self, question: Question) -> Answer:
        body = encode_request(self._body, question)
        answer = Answer(error="server: given up", retry=True)
        for attempt in range(self._settings.tries):
            async with self._free:
                if self._gone:
                    break
                answer, wait = await self._try(body)
            if not answer.retry or wait is None or attempt + 1 == self._settings.tries:
                break
            pause = min(_LONGEST_PAUSE, self._settings.pause * 2**attempt)
            await asyncio.sleep(max(wait, random.uniform(pause / 2, pause)))
        return answer

    async def _try(self, body: bytes) -> tuple[Answer, float | None]:
        """Send one request; return the answer, and the least seconds to wait before a retry (None: do not retry)."""
        try:
            reply = await exchange(self._client, "POST", self._endpoint, self._settings.timeout, body)
        except (httpx2.TimeoutException, TimeoutError):
            said = f"server: no whole answer within {self._settings.timeout:g} s{self._through}"
            return Answer(error=said, retry=True), 0
        except FAILURES as error:
            return Answer(error=self._said(f"server: {type(error).__name__} {error}{self._through}"), retry=True), 0
        if reply.status not in _ANSWERS:
            way = self._through if reply.status in _OF_A_PROXY else ""
            words = _words(reply) or httpx2.codes.get_reason_phrase(reply.status)
            said = self._said(f"server: {reply.status}{way} {words}")
            again = reply.status in _WORTH_ANOTHER_TRY
            ours = reply.status in _ABOUT_US or 300 <= reply.status < 400
            return Answer(error=said, retry=again or ours), retry_after(reply) if again else None
        if not reply.whole:
            return Answer(error=f"server: an answer of more than {MOST_BYTES >> 20} MiB", retry=True), 0
        answer = read_answer(reply.body)
        if answer.error:
            answer = answer._replace(error=self._said(answer.error))
        return answer, retry_after(reply) if answer.retry else 0

    def _said(self, error: str) -> str:
        """Return an error as it is stored: one line, shortened, without secrets."""
        return redact(one_line(error), *self._secrets)[:_LONGEST_ERROR]


def _greet(url: str, headers: Mapping[str, str], what: str) -> None:
    """Check that the server answers and accepts the key."""
    way = through(url)
    hint = ", or name its host in no_proxy" if way else ""
    try:
        status = get(f"{url}/models", _GREETING, headers).status
    except FAILURES as error:
        said = f"{what}: no server answers at {url}{way} ({type(error).__name__}); start one{hint}"
        raise UserError(said) from error
    if way and status in _OF_A_PROXY:
        raise UserError(f"{what}: {url} answers {status}{way}; see that it runs{hint}")
    if status in (401, 403):
        raise UserError(f"{what}: {url} refuses the API key ({status}); set it in the environment")


def _words(reply: Reply) -> str:
    """Return the server's error message in one line; empty if there is none."""
    try:
        return error_words(json.loads(reply.body))
    except (ValueError, RecursionError):
        return error_words(reply.body[:4096].decode(errors="replace"))
