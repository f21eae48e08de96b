"""What a chat completion's JSON says: an answer, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captioners.engine import Answer
from captioners.finish import finished
from captioners.markup import printable


def answer_of(body: Any) -> Answer:
    """The answer of an OpenAI chat completion, or of what servers make of one."""
    choice = body["choices"][0]
    message = choice["message"]
    thought = _reasoning(message)
    content = message.get("content")
    if isinstance(content, list):  # in parts, as some servers answer
        thought = thought or any(_is_thought(part) for part in content)
        content = "".join(_text(part) for part in content if not _is_thought(part))
    if not isinstance(content, str | None):
        raise TypeError(f"content is {type(content).__name__}")
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    details = counts.get("completion_tokens_details")
    thought = thought or (isinstance(details, dict) and bool(_count(details.get("reasoning_tokens"))))
    tokens = _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))
    return finished(content or "", choice.get("finish_reason"), "server", *tokens, reasoned=thought)


def _reasoning(message: Mapping[str, Any]) -> bool:
    """Whether the server gives reasoning in a field of its own."""
    return any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking", "reasoning_details"))


def _is_thought(part: Any) -> bool:
    kinds = ("thinking", "reasoning", "redacted_thinking")
    return isinstance(part, dict) and (part.get("type") in kinds or part.get("thought") is True)


def _text(part: Any) -> str:
    said = part if isinstance(part, str) else part.get("text") or ""
    said = said.get("value") if isinstance(said, dict) else said
    if not isinstance(said, str):
        raise TypeError(f"a part's text is {type(said).__name__}")
    return said


def _count(tokens: Any) -> int | None:
    return tokens if type(tokens) is int and 0 <= tokens < 1 << 31 else None


def failure(body: Any) -> str:
    """What a server says of an error in an answer that has the status 200; empty where there is none."""
    choices = body.get("choices") or [{}]
    error = body.get("error") or (body if body.get("object") == "error" else choices[0].get("error"))
    failed = any(error.values()) if isinstance(error, dict) else error
    return (words(error) or "an error") if failed else ""


def words(said: Any) -> str:
    """What an error says, in one line."""
    said = said.get("error", said) if isinstance(said, dict) else said
    said = said.get("message", said) if isinstance(said, dict) else said
    return " ".join(printable(str(said)).split())[:200]
