"""Classify why an answer ended: whole, cut, or broken off. Servers, lmdeploy and transformers share this table.

| `finish_reason` | the answer |
| --- | --- |
| `stop`, `eos`, `eos_token`, `stop_sequence`, `stop_token`, `end_turn`, `complete` | is whole |
| `length`, `max_tokens`, `max_length`, `model_length`, `token_limit` | is cut |
| `content_filter`, `safety`, `recitation`, `sensitive`, `repetition` | is cut |
| `tool_calls`, `tool_call`, `function_call`, `tool_use` | is cut |
| `abort`, `aborted`, `cancel`, `cancelled`, `canceled`, `error` | broke off: an error that can be retried |
| `timeout`, `insufficient_system_resource` | broke off: an error that can be retried |
| null, any other | is cut; if it has no text, it broke off |

OpenAI, vLLM, SGLang, lmdeploy, llama.cpp, Ollama, TGI, Mistral, DeepSeek and Anthropic use these names. Case, and `-`
or `_`, do not matter; wrappers are removed (`FinishReason.STOP`, SGLang's `{"type": "stop"}`). An answer counts as
whole only if the reason says so: otherwise a server that cuts answers silently would produce half captions.
"""

from __future__ import annotations

from captioners.engines.base import Answer
from captioners.markup import is_blank, one_line, printable

_WHOLE = frozenset("stop eos eos_token stop_sequence stop_token end_turn complete".split())
_CUT = frozenset(
    "length max_tokens max_length model_length token_limit content_filter safety recitation sensitive repetition"
    " tool_calls tool_call function_call tool_use".split()
)
_BROKEN_OFF = frozenset("abort aborted cancel cancelled canceled error timeout insufficient_system_resource".split())


def finished(
    text: str,
    reason: object,
    engine: str,
    prompt_tokens: object = None,
    tokens: object = None,
    reasoned: bool = False,
    details: str = "",
) -> Answer:
    """Return the answer that ended for `reason`, by the table above.

    Args:
        text: The model's text; may be empty.
        reason: The engine's `finish_reason`; None if it gives none.
        engine: Name of the engine, for errors.
        prompt_tokens: As in `Answer`; a value that is not a count becomes None.
        tokens: As in `Answer`; likewise.
        reasoned: Whether the engine returned reasoning separately from the text.
        details: The engine's error message.
    """
    known = _word(reason)
    counts = count(prompt_tokens), count(tokens)
    wordless = is_blank(printable(text)) and not reasoned
    if known in _BROKEN_OFF or (wordless and known not in _WHOLE | _CUT):
        said = one_line(f"{engine}: the answer broke off (finish_reason {known[:200] or 'null'}) {details[:300]}")
        return Answer("", False, *counts, error=said, retry=True)
    return Answer(text, known not in _WHOLE, *counts, reasoned=reasoned)


def _word(reason: object) -> str:
    """Return the reason as spelled in the table; empty if there is none."""
    said = reason.get("type") if isinstance(reason, dict) else reason
    return one_line(said).lower().replace("-", "_").rpartition(".")[2] if isinstance(said, str) else ""


def count(tokens: object) -> int | None:
    """Return a number of tokens as it is stored; None if it is not a count, or needs more than 31 bits."""
    return tokens if type(tokens) is int and 0 <= tokens < 1 << 31 else None
