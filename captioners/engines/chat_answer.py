"""Parse the JSON of a chat completion into an answer or an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from captioners.engines.base import Answer
from captioners.engines.finish import finished
from captioners.markup import one_line
from core.errors import BadSampleError


def read_answer(body: bytes) -> Answer:
    """Parse a server's JSON. Anything that is not an answer becomes an error that can be retried.

    Args:
        body: An OpenAI chat completion, or a server's variant of it.
    """
    try:
        return _answer(_object(_parsed(body), "the answer"))
    except (BadSampleError, RecursionError) as error:
        return Answer(error=f"server: malformed answer ({one_line(str(error))})", retry=True)


def error_words(said: object) -> str:
    """Return the message of an error in one line, at most 4,096 characters."""
    said = said.get("error", said) if isinstance(said, dict) else said
    said = said.get("message", said) if isinstance(said, dict) else said
    return one_line(str(said))[:4096]


def _answer(completion: Mapping[str, Any]) -> Answer:
    choices = completion.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if said := _failure(completion) or _failure(first):
        return Answer(error=f"server: {said}", retry=True)
    choice = _object(first, "choices[0]")
    message, text = choice.get("message"), choice.get("text")
    message = {"content": text} if message is None and isinstance(text, str) else _object(message, "message")
    content, thought, refusal = message.get("content"), _has_reasoning(message), _refusal(message)
    if isinstance(content, list):  # some servers answer in parts
        thought = thought or any(_is_thought(part) for part in content)
        content = "".join(_text(part) for part in content if not _is_thought(part))
    if not isinstance(content, str | None):
        raise BadSampleError("content is no text")
    usage = _object_or_empty(completion.get("usage"))
    details = _object_or_empty(usage.get("completion_tokens_details"))
    tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    thought = thought or _is_some(details.get("reasoning_tokens"))
    reason = choice.get("finish_reason")
    if refusal and not content:
        return finished(refusal, reason, "server", *tokens, reasoned=thought)._replace(refused=True)
    return finished(content or "", reason, "server", *tokens, reasoned=thought)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, an integer of 5,000 digits; nested too deeply
        raise BadSampleError(f"{type(error).__name__}: {error}") from error


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadSampleError(f"{what} is no object")
    return value


def _object_or_empty(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _failure(said: Any) -> str:
    """Return the error message in an answer of status 200, or in its choice; empty if there is none."""
    if not isinstance(said, dict):
        return ""
    error = said.get("error") or (said if said.get("object") == "error" else None)
    failed = any(error.values()) if isinstance(error, dict) else error
    return (error_words(error) or "an error") if failed else ""


def _has_reasoning(message: Mapping[str, Any]) -> bool:
    """Return whether the server returned reasoning in a separate field."""
    return any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking", "reasoning_details"))


def _refusal(message: Mapping[str, Any]) -> str:
    """Return the refusal that OpenAI's models put beside the content, or into a part of it; empty if there is none."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    said = [part.get("refusal") for part in (message, *parts)]
    return next((refusal for refusal in said if refusal and isinstance(refusal, str)), "")


def _is_thought(part: Any) -> bool:
    kinds = ("thinking", "reasoning", "redacted_thinking")
    return isinstance(part, dict) and (part.get("type") in kinds or part.get("thought") is True)


def _text(part: Any) -> str:
    said = part if isinstance(part, str) else _object(part, "a part of content").get("text") or ""
    said = said.get("value") if isinstance(said, dict) else said
    if not isinstance(said, str):
        raise BadSampleError("a part's text is none")
    return said


def _is_some(tokens: Any) -> bool:
    return type(tokens) is int and tokens > 0
