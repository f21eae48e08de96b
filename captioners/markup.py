"""What a model's answer has besides its words: reasoning, end tokens, control characters.

Servers are to take these out, and many do not: without a reasoning parser `<think>…</think>` is part of the text, with
the wrong chat template `<|im_end|>` is. `reasoning` and `turns` name the spellings of today's open models and servers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from captioners.reasoning import without_reasoning
from captioners.turns import without_header, without_next_turns, without_tail

_ANSWER = re.compile(  # what some models put around the answer behind their reasoning
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
"""A pattern (of polars, too) that any text matches which has something to be taken out; others may match it."""


class Stripped(NamedTuple):
    """An answer's words.

    Attributes:
        text: Without white space around it.
        reasoned: Whether reasoning was taken out.
        thinking: Whether the answer ends within its reasoning: it was cut while the model was thinking.
    """

    text: str
    reasoned: bool = False
    thinking: bool = False


def printable(text: str) -> str:
    """The text without control characters, terminal escapes and halves of characters; line ends are `\\n`."""
    return _CONTROL.sub("", _LINE_END.sub("\n", _ESCAPE.sub("", text)))


def one_line(text: str) -> str:
    """The text in one line, as `printable` leaves it."""
    return " ".join(printable(text).split())


def strip(
    text: str, end_tokens: Sequence[str] = (), reasoning_tags: Sequence[str] = (), reasoned: bool = False
) -> Stripped:
    """Take reasoning, end tokens and control characters out of an answer.

    Marks that a caption speaks of stay: in quotes, or amid the words of a sentence.

    Args:
        text: The answer as the engine gave it.
        end_tokens: Further end tokens.
        reasoning_tags: Further names of tags around reasoning.
        reasoned: Whether the engine gave reasoning apart from the text.
    """
    ends = tuple(end_tokens)
    answer = without_tail(without_header(printable(text)), ends)
    said, thought, thinking = without_reasoning(answer, tuple(reasoning_tags))
    said = without_next_turns(without_header(said), ends)
    if wrapped := _ANSWER.fullmatch(said):
        if wrapped["mark"]:
            said = wrapped["marked"]
        elif thought or reasoned:
            said = wrapped["tagged"]
        said = without_next_turns(said, ends)
    return Stripped(said.strip(), thought, thinking)
