"""Reasoning, end tokens and control characters come out of an answer; words that look like them stay."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioners.markup import SUSPECT, strip

WORDS = "A red square lies on a grey table beside a small green cup."
PAIRS = (
    ("<think>", "</think>"),
    ("<think>\n", "\n</think>\n\n"),
    ("<THINK >", "</THINK >"),
    ("<thinking>", "</thinking>"),
    ("<thinking type='visible'>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<think>", "</thinking>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|think|>", "<|/think|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<unused94>thought\n", "<unused95>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("analysis", "assistantfinal"),
    ("Here is my thought process: ", "Here is my response: "),
)
ENDS = ("<|im_end|>", "<|endoftext|>", "</s>", "<|eot_id|>", "<eos>", "<end_of_turn>", "<|end|>", "<|return|>", "[EOS]")
ENDS += ("<｜end▁of▁sentence｜>", "<end_of_utterance>", "<|end_of_text|>", "<turn|>", "<pad><pad>", "<|im_end")


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_reasoning_goes_and_the_caption_stays(opening: str, closing: str) -> None:
    thought = "The user wants a caption.\nI see 1 < 2 squares, and count <b>corners</b>."
    assert strip(f"{opening}{thought}{closing}{WORDS}") == (WORDS, True, False)
    assert strip(f"{thought}{closing}\n{WORDS}") == (WORDS, True, False)
    assert strip(f"{opening}{thought}") == ("", True, True)
    assert strip(f"{opening}{closing}{WORDS}<|im_end|>") == (WORDS, True, False)


@pytest.mark.parametrize("end", ENDS)
def test_end_tokens_go_with_what_stands_behind_them(end: str) -> None:
    assert strip(f"{WORDS}{end}").text == WORDS
    assert strip(f"{WORDS} {end}\n").text == WORDS
    if end != "<|im_end":
        assert strip(f"{WORDS}{end}\n<|im_start|>user\nWhat else?{end}").text == WORDS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"<think>a <think> b</think>{WORDS}", WORDS),
        (f"<think>a<think>b</think>c</think>{WORDS}", WORDS),
        (f"<think>a</think><think>b</think>{WORDS}", WORDS),
        (f"{WORDS}\n<think>Was that right?</think>", WORDS),
        (f"<think/>{WORDS}", WORDS),
        (f"<think>a</think><answer>{WORDS}</answer>", WORDS),
        (f"<think>a</think>\n<|begin_of_box|>{WORDS}<|end_of_box|>", WORDS),
        (f"<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>{WORDS}<|END_RESPONSE|>", WORDS),
        (f"<|im_start|>assistant\n{WORDS}<|im_end|>", WORDS),
        (f"<|start_header_id|>assistant<|end_header_id|>\n\n{WORDS}<|eot_id|>", WORDS),
        (f"<s> {WORDS}</s>", WORDS),
        ("A red\x00 square.\x00\x00", "A red square."),
        ("\x1b[1mA red\x1b[0m square.\x07", "A red square."),
        ("A red\r\nsquare.\x85", "A red\nsquare."),
        ("A red square \ud83d.", "A red square ."),
        ("<thi\x00nk>a</think>A red square.", "A red square."),
        ("<|im_end|>", ""),
        ("", ""),
    ],
)
def test_values(text: str, words: str) -> None:
    assert strip(text).text == words


def test_what_was_said_before_the_model_began_to_think_again_stays_but_is_cut() -> None:
    assert strip(f"{WORDS} <think>Let me check") == (WORDS, True, True)


@pytest.mark.parametrize(
    "text",
    [
        WORDS,
        "I think <b>the</b> sign says [STOP], 1 < 2 > 0, and a</p>.",
        "Ein <image> und <|image_pad|>, <obj> und 😀 naïve – 图片。",
        "analysis of a chart: three bars; the assistant finally smiles.",
        "A page with <reasonable> and <thinker> tags; a thought</thoughtful>.",
        "Line one.\n\n\tLine two.",
    ],
)
def test_other_words_and_marks_stay(text: str) -> None:
    assert strip(text) == (text, False, False)


def test_a_users_own_tags_and_end_tokens() -> None:
    text = f"<musing>hm</musing>{WORDS}###More"
    assert strip(text).text == f"<musing>hm</musing>{WORDS}###More"
    assert strip(text, ["###"], ["musing"]).text == WORDS


PIECES = ["<think>", "</think>", "<|im_end|>", "\x00", "[THINK]", "a", " ", "<", "|>"]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_what_is_changed_is_suspect_and_nothing_is_left_to_change(text: str) -> None:
    words = strip(text).text
    assert re.search(SUSPECT, text) or words.split() == text.split()
    assert "\x00" not in words
    assert "<|im_end|>" not in words


@pytest.mark.parametrize("piece", ["<think>", "</think", "<|", " ", "<", "<think ", "a_", "<|channel|> ", "[THINK"])
def test_hostile_answers_take_no_longer_than_their_length(piece: str) -> None:
    begin = time.monotonic()
    strip(piece * (200_000 // len(piece)))
    assert time.monotonic() - begin < 5
