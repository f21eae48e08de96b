"""What a model's answer has besides its words: reasoning, end tokens, control characters.

Servers are to take these out, and many do not: without a reasoning parser `<think>…</think>` is part of the text, with
the wrong chat template `<|im_end|>` is. The tables below name the spellings of today's open models and servers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

_NAME = (
    r"(?:\w{1,20}[:_])?(?:think(?:ing)?(?:_process)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|rationale"
    r"|inner_monologue|chain_of_thought|cot)"
)
_OPENING = (
    r"<NAME(?:\s[^<>]{0,200})?>",  # DeepSeek, Qwen, GLM, MiniMax: <think>; Seed-OSS: <seed:think>; Gemini: <thought>
    r"◁NAME▷",  # Kimi-VL
    r"(?-i:\[THINK(?:ING)?\])",  # Magistral
    r"<\|(?:begin|start)(?:_of)?_NAME\|>",  # OpenThinker: <|begin_of_thought|>; Cohere: <|START_THINKING|>
    r"<\|NAME(?:_(?:start|begin))?\|>",
    r"<\|inner_prefix\|>",  # Apertus
    r"<unused94>(?:thought)?",  # MedGemma
    r"<\|channel\|?>\s*(?:analysis|commentary|thought)[^<]{0,80}(?:<\|message\|>)?",  # gpt-oss, Gemma
    r"\A\s*(?-i:analysis(?=[A-Z]))",  # gpt-oss without its control tokens
    r"\A\s*here is my thought process:",  # Granite
)
_CLOSING = (
    r"</NAME\s*>",
    r"<NAME\s*/>",
    r"◁/NAME▷",
    r"(?-i:\[/THINK(?:ING)?\])",
    r"<\|end(?:_of)?_NAME\|>",
    r"<\|(?:/NAME|NAME_end)\|>",
    r"<\|inner_suffix\|>",
    r"<unused95>",
    r"(?:<\|start\|>assistant)?<\|channel\|>\s*final\s*(?:<\|constrain\|>\s*\w+\s*)?<\|message\|>",
    r"<channel\|>",
    r"assistantfinal",
    r"here is my response:",
)
_ANSWER = re.compile(  # what some models put around the answer behind their reasoning
    r"\s*(?:<(?P<tag>answer|response|final_answer|final|conclusion|output|caption)>(?P<tagged>.*?)(?:</(?P=tag)>|\Z)"
    r"|<\|(?:begin_of_|START_)(?P<mark>solution|box|response|text)\|>(?P<marked>.*?)"
    r"(?:<\|(?:end_of_|END_)(?P=mark)\|>|\Z)).*",
    re.IGNORECASE | re.DOTALL,
)
_ENDS = (
    "</s> <eos> <EOS> [EOS] <|eos|> <|endoftext|> <|end_of_text|> <|im_end|> <|im_start|> <|end|> <|return|> <|start|>"
    " <|call|> <|eot_id|> <|eom_id|> <|eot|> <|EOT|> <|start_header_id|> <end_of_turn> <start_of_turn> <turn|> <|turn>"
    " <|end_of_turn|> <|endofturn|> <|END_OF_TURN_TOKEN|> <|START_OF_TURN_TOKEN|> <|end_of_sentence|> <|endofchunk|>"
    " <｜end▁of▁sentence｜> <|end▁of▁sentence|> <end_of_utterance> <|end_of_message|> <|user|> <|observation|>"
    " <|im_user|> <eoa> <eot> [/INST] <pad> <|pad|> [PAD]"
).split()
_BEGINNING = re.compile(  # the header of the assistant's own turn
    r"(?:\s|<s>|<bos>|\[BOS\]|<\|(?:bos|startoftext|begin_of_text)\|>|<｜begin▁of▁sentence｜>|<pad>|<\|pad\|>|\[PAD\]"
    r"|<\|im_start\|>\s*assistant\b|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>|<\|assistant\|>"
    r"|<start_of_turn>\s*model\b|<\|turn>\s*model\b|<\|start\|>\s*assistant\s*<\|message\|>|<｜Assistant｜>)*"
)
_HALF_AN_END = r"<[|｜]\w{0,24}[|｜]?\s*\Z"

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_LINE_END = re.compile(r"\r\n?")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")

SUSPECT = r"(?i)[<◁\[]|assistantfinal|^\s*(analysis|here is my thought process)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
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


def strip(text: str, end_tokens: Sequence[str] = (), reasoning_tags: Sequence[str] = ()) -> Stripped:
    """Take reasoning, end tokens and control characters out of an answer.

    Reasoning is what stands between an opening and a closing mark, in front of a closing mark that has no opening (the
    chat template wrote that), and behind an opening mark without an end. Of the rest what stands behind the first
    end token goes: the model went on into a turn that nobody asked for.

    Args:
        text: The answer as the engine gave it.
        end_tokens: Further end tokens.
        reasoning_tags: Further names of tags around reasoning.
    """
    marks = _marks(tuple(reasoning_tags))
    text = printable(text)
    kept: list[str] = []
    position, thinking, reasoned = 0, False, False
    for mark in marks.finditer(text):
        reasoned = True
        if mark.lastgroup == "opening":
            kept += [] if thinking else [text[position : mark.start()]]
            thinking = True
        else:
            if not thinking:
                kept.clear()
            position, thinking = mark.end(), False
    kept += [] if thinking else [text[position:]]
    said = "".join(kept)
    if reasoned and (answer := _ANSWER.fullmatch(said)):
        said = answer["tagged"] if answer["tag"] else answer["marked"]
    beginning = _BEGINNING.match(said)
    said = said[beginning.end() :] if beginning else said
    return Stripped(_ends(tuple(end_tokens)).split(said, 1)[0].strip(), reasoned, thinking)


def is_mark(token: str) -> bool:
    """Whether a tokenizer's token is a mark around reasoning, or a part of one: `strip` has to see it."""
    return token in ("<|channel|>", "<|message|>", "<|start|>", "<|end|>") or bool(_marks(()).search(token))


@cache
def _marks(more: tuple[str, ...]) -> re.Pattern[str]:
    name = f"(?:{'|'.join([_NAME, *map(re.escape, more)])})"
    opening, closing = ("|".join(marks).replace("NAME", name) for marks in (_OPENING, _CLOSING))
    return re.compile(f"(?P<closing>{closing})|(?P<opening>{opening})", re.IGNORECASE)


@cache
def _ends(more: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join([*map(re.escape, (*_ENDS, *more)), _HALF_AN_END]))
