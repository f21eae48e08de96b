"""Remove reasoning, end tokens and control characters from a model's answer.

Servers should remove them, but many do not: without a reasoning parser `<think>…</think>` stays in the text, and with
the wrong chat template `<|im_end|>` does. `reasoning` and `turns` list the spellings of today's models and servers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from captioners.reasoning import without_reasoning
from captioners.turns import without_header, without_next_turns, without_tail

_ANSWER = re.compile(  # some models wrap the answer after their reasoning
    r"\s*(?:<(?P<tag>answer|response|final_answer|final|conclusion|output|caption)>(?P<tagged>.*?)(?:</(?P=tag)>|\Z)"
    r"|<\|(?:begin_of_|START_)(?P<mark>solution|box|response|text)\|>(?P<marked>.*?)"
    r"(?:<\|(?:end_of_|END_)(?P=mark)\|>|\Z)).*",
    re.IGNORECASE | re.DOTALL,
)

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x1c-\x1f\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")

SUSPECT = (
    r"(?i)[<＜◁\[]|&lt;|^\s*(analysis|here.{1,3}s my thought process|thinking\.\.\.)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
"""A pattern, valid in polars too, that matches every text with something to remove, and some other texts."""
_SUSPECT = re.compile(SUSPECT)


class Stripped(NamedTuple):
    """An answer without reasoning, end tokens and control characters.

    Attributes:
        text: The text, without white space around it.
        reasoned: Whether reasoning was removed.
        thinking: Whether the answer ends within its reasoning: it was cut while the model was thinking.
    """

    text: str
    reasoned: bool = False
    thinking: bool = False


def printable(text: str) -> str:
    """Return the text without control characters, terminal escapes and lone surrogates; line ends become `\\n`."""
    return _CONTROL.sub("", _LINE_END.sub("\n", _ESCAPE.sub("", text)))


def is_blank(text: str) -> bool:
    """Return whether nothing of the text is visible: it has only white space, format characters and loose accents."""
    return all(unicodedata.category(character)[0] in "CMZ" for character in text)


def one_line(text: str) -> str:
    """Return the text in one line, cleaned by `printable`."""
    return " ".join(printable(text).split())


def strip(
    text: str, end_tokens: Sequence[str] = (), reasoning_tags: Sequence[str] = (), reasoned: bool = False
) -> Stripped:
    """Remove reasoning, end tokens and control characters from an answer.

    Marks that a caption only mentions, in quotes or inside a sentence, stay.

    Args:
        text: The engine's answer.
        end_tokens: Further end tokens.
        reasoning_tags: Further names of tags around reasoning.
        reasoned: Whether the engine returned reasoning separately from the text.
    """
    ends, plain = tuple(end_tokens), printable(text)
    if not (ends or reasoning_tags or _SUSPECT.search(plain)):  # most captions; the search takes a tenth of the rest
        return Stripped(plain.strip())
    answer = without_tail(without_header(plain), ends)
    said, thought, thinking = without_reasoning(answer, tuple(reasoning_tags))
    said = without_next_turns(without_header(said), ends)
    if wrapped := _ANSWER.fullmatch(said):
        if wrapped["mark"]:
            said = wrapped["marked"]
        elif thought or reasoned:
            said = wrapped["tagged"]
        said = without_next_turns(said, ends)
    return Stripped(said.strip(), thought, thinking)
