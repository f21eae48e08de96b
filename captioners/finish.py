"""Why an answer ended: whole, cut, or broken off. One table for servers, lmdeploy and transformers.

| `finish_reason` | the answer |
| --- | --- |
| `stop`, `eos`, `eos_token`, `stop_sequence`, `stop_token`, `end_turn`, `complete` | is whole |
| `length`, `max_tokens`, `max_length`, `model_length`, `token_limit` | is cut |
| `content_filter`, `safety`, `recitation`, `sensitive`, `repetition` | is cut |
| `tool_calls`, `tool_call`, `function_call`, `tool_use` | is cut |
| `abort`, `aborted`, `cancel`, `cancelled`, `canceled`, `error` | broke off: an error, worth another try |
| `timeout`, `insufficient_system_resource` | broke off: an error, worth another try |
| null, any other | is cut; where it has no word it broke off |

OpenAI, vLLM, SGLang, lmdeploy, llama.cpp, Ollama, TGI, Mistral, DeepSeek and Anthropic use these names; case, `-` and
`_` do not matter, nor does what stands around the word (`FinishReason.STOP`, SGLang's `{"type": "stop"}`). Only what is
known to be whole counts as whole: a server that cut an answer and does not say so must not make a whole caption of a
half one.
"""

from __future__ import annotations

from captioners.engine import Answer
from captioners.markup import one_line, printable

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
    """An answer that ended for `reason`, as the table above says.

    Args:
        text: The model's words, possibly none.
        reason: The engine's `finish_reason`; None where it gives none.
        engine: What to call it in errors.
        prompt_tokens: As in `Answer`; what is no count counts as None.
        tokens: Likewise.
        reasoned: Whether the engine gave reasoning apart from the text.
        details: The engine's own words on an error.
    """
    known = _word(reason)
    counts = _count(prompt_tokens), _count(tokens)
    wordless = not printable(text).strip() and not reasoned
    if known in _BROKEN_OFF or (wordless and known not in _WHOLE | _CUT):
        said = one_line(f"{engine}: the answer broke off (finish_reason {known[:200] or 'null'}) {details[:300]}")
        return Answer("", False, *counts, error=said, retry=True)
    return Answer(text, known not in _WHOLE, *counts, reasoned=reasoned)


def _word(reason: object) -> str:
    """The reason as the tables have it; empty where there is none."""
    said = reason.get("type") if isinstance(reason, dict) else reason
    return one_line(said).lower().replace("-", "_").rpartition(".")[2] if isinstance(said, str) else ""


def _count(tokens: object) -> int | None:
    return tokens if type(tokens) is int and 0 <= tokens < 1 << 31 else None
