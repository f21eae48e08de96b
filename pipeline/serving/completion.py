"""The JSON of OpenAI's chat completions: whole answers, pieces of one, errors, the list of models."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from model.chat import GenerationStats

DONE = b"data: [DONE]\n\n"
"""The last event of a stream."""


@dataclass(frozen=True)
class Completion:
    """What all pieces of one answer share."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, finish_reason: str, stats: GenerationStats | None) -> dict[str, Any]:
        """Return an answer that was not streamed."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": _usage(stats)}

    def piece(self, delta: Mapping[str, str], finish_reason: str | None = None) -> bytes:
        """Return the event of one piece."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def usage(self, stats: GenerationStats | None) -> bytes:
        """Return the event that tells the numbers of tokens."""
        return event({**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(stats)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _usage(stats: GenerationStats | None) -> dict[str, int]:
    prompt, answer = (stats.prompt_tokens, stats.tokens) if stats else (0, 0)
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def event(value: Mapping[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def error(message: str, status: int) -> dict[str, Any]:
    """Return the body of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def models(names: Sequence[str]) -> dict[str, Any]:
    """Return the list of models."""
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "vl3syn"} for name in names]}
