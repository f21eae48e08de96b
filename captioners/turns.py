"""Find where the answer's turn starts and ends, by chat template tokens that a server leaves in the text.

An unambiguous token (`<|im_end|>`) ends the answer, except in quotes or inside a sentence. A token that a caption may
contain (`</s>` of HTML, the `[PAD]` of a diagram) ends the answer only at the end of the text or before another turn.
"""

from __future__ import annotations

import re
from functools import cache

from captioners.prose import Prose
from core.control_tokens import END_TOKENS, PLAIN_END_TOKENS

_TURN = r"(?=\s*(?:<s>|<bos>|\[BOS\]|\[INST\]|(?:user|human|assistant)\s*:))"
_BEGINNING = re.compile(  # the header of the assistant's own turn
    r"(?:\s|<s>(?![^<]*</s>\s*[^\s<])|(?:<bos>|\[BOS\]|<pad>|\[PAD\])(?![ ]+[a-z]|,)"
    r"|<\|(?:bos|startoftext|begin_of_text|pad)\|>|<｜begin▁of▁sentence｜>"
    r"|<\|im_start\|>\s*assistant\b|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>|<\|assistant\|>"
    r"|<start_of_turn>\s*model\b|<\|turn>\s*model\b|<\|start\|>\s*assistant\s*<\|message\|>|<｜Assistant｜>"
    r"|<think(?:ing)?\s*/>)*"
)
_HALF = re.compile(r"<[|｜][\w▁]{1,30}[|｜]?\s*\Z|(?<=\S)<[|｜]\s*\Z")


def without_header(text: str) -> str:
    """Return the text without the header of a turn and without leading white space."""
    header = _BEGINNING.match(text)
    return text[header.end() :] if header else text


def without_tail(text: str, more: tuple[str, ...]) -> str:
    """Return the text without the end tokens at its very end, whole or cut."""
    return _before_tail(text, _tokens_in(text, more), len(text))


def without_next_turns(text: str, more: tuple[str, ...]) -> str:
    """Return the text before its first end token.

    Args:
        text: The answer without reasoning.
        more: Further end tokens; these end the text anywhere.
    """
    prose, tokens = Prose(text), _tokens_in(text, more)
    ends = (token.start() for token in tokens if token["extra"] or (token["token"] and not prose.mentions(token)))
    struck = text.find("<s>")
    turns = (token.start() for token in tokens if token["turn"] and not _strikes(token, struck))
    return _before_tail(text, tokens, min(next(ends, len(text)), next(turns, len(text))))


def _strikes(token: re.Match[str], struck: int) -> bool:
    """Return whether a token is HTML's `</s>`: the text has a `<s>` before it, at `struck` (-1: none)."""
    return token[0] == "</s>" and 0 <= struck < token.start()


def _tokens_in(text: str, more: tuple[str, ...]) -> list[re.Match[str]]:
    return list(_pattern(more).finditer(text))


def _before_tail(text: str, tokens: list[re.Match[str]], stop: int) -> str:
    half = _HALF.search(text, max(0, stop - 64), stop)
    if half and any(token.startswith(half[0].strip().lower()) for token in END_TOKENS):
        stop = half.start()
    struck = text.find("<s>")
    for token in reversed(tokens):
        if token.start() >= stop:
            continue
        if text[token.end() : stop].strip() or _strikes(token, struck):
            break
        stop = token.start()
    return text[:stop].rstrip()


@cache
def _pattern(more: tuple[str, ...]) -> re.Pattern[str]:
    extra = "|".join(map(re.escape, more)) or "(?!)"
    tokens, at_the_end = ("|".join(map(re.escape, names)) for names in (END_TOKENS, PLAIN_END_TOKENS))
    turn = f"(?:{at_the_end})(?:{_TURN}|(?=\\s*(?:{tokens})))"
    return re.compile(f"(?P<extra>{extra})|(?i:(?P<token>{tokens})|(?P<turn>{turn})|(?P<last>{at_the_end}))")
