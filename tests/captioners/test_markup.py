"""Reasoning, end tokens and control characters come out of an answer; words that look like them stay."""

from __future__ import annotations

import re
import time

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioners.markup import SUSPECT, printable, strip
from captioners.recaption import ShortCaption
from tests.captioners.ordinary import ORDINARY

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
    ("<antThinking>", "</antThinking>"),
    ("<|startofthink|>", "<|endofthink|>"),
    ("<|start|>assistant<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
)
BOTH = (  # marks that count only where both are there
    ("analysis", "assistantfinal"),
    ("Here is my thought process: ", "Here is my response: "),
    ("Here's my thought process: ", "Here's my response: "),
    ("Thinking...\n", "\n...done thinking.\n\n"),
    ("< think >", "</ think >"),
    ("< think >", "< / think >"),
    ("&lt;think&gt;", "&lt;/think&gt;"),
    ("＜think＞", "＜/think＞"),
    ("[think]", "[/think]"),
    ('<details type="reasoning" done="true"><summary>Thought for 3 s</summary>', "</details>"),
    ("<reasoning_process>", "</reasoning_process>"),
    ("<analysis>", "</analysis>"),
    ("<reflection>", "</reflection>"),
)
ENDS = ("<|im_end|>", "<|endoftext|>", "</s>", "<|eot_id|>", "<eos>", "<end_of_turn>", "<|end|>", "<|return|>", "[EOS]")
ENDS += ("<|IM_END|>", "<|eod|>", "[|endofturn|]", "<|im_sep|>", "<|eom|>", "<|eos_token|>", "<|assistant_end|>")
ENDS += ("<eot>", "<eoa>", "[PAD][PAD]", "</s><pad>", "[/INST]", "</S>")
ENDS += ("<｜end▁of▁sentence｜>", "<end_of_utterance>", "<|end_of_text|>", "<turn|>", "<pad><pad>", "<|im_end")


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_reasoning_is_removed_and_the_caption_stays(opening: str, closing: str) -> None:
    thought = "The user wants a caption.\nI see 1 < 2 squares, and count <b>corners</b>."
    assert strip(f"{opening}{thought}{closing}{WORDS}") == (WORDS, True, False)
    assert strip(f"{thought}{closing}\n{WORDS}") == (WORDS, True, False)
    assert strip(f"{opening}{thought}") == ("", True, True)
    assert strip(f"{opening}{closing}{WORDS}<|im_end|>") == (WORDS, True, False)


@pytest.mark.parametrize(("opening", "closing"), BOTH)
def test_reasoning_between_two_marks_is_removed(opening: str, closing: str) -> None:
    thought = "The user wants a caption.\nI see 1 < 2 squares, and count <b>corners</b>."
    assert strip(f"{opening}{thought}{closing}{WORDS}") == (WORDS, True, False)


def test_reasoning_without_opening_tag_ends_at_its_closing_tag() -> None:
    for answer in (
        f"Hm.\n</think>\n\n{WORDS}",
        f"Hm.</think>\n{WORDS}",
        f"Hm.</think>{WORDS}",
        f"Hm. </think> {WORDS}",
    ):
        assert strip(answer) == (WORDS, True, False)
    assert strip("I see a cat.\n</think>") == ("", True, False)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_captions_stay(text: str) -> None:
    assert strip(text) == (text, False, False)
    assert strip(f"{text}<|im_end|>\n<|im_start|>user\nAnd this?").text == text
    assert strip(f"<think>Hm.</think>{WORDS}\n{text}").text == f"{WORDS}\n{text}"
    assert strip(f"{WORDS} {text}").text == f"{WORDS} {text}"


def test_stored_rows_with_ordinary_captions_are_not_suspect() -> None:
    wrong = [f"<think>Hm.</think>{WORDS}", f"{WORDS}</s>", f"{WORDS}\x00"]
    odd = ["a page\x0cand another", "a\x0bb", "a\x85b", "a\u2028b", "a\r\nb"]
    captions = [*ORDINARY, *odd, *wrong]
    stored = {"id": range(len(captions)), "short_caption": captions, "short_raw_characters": [None] * len(captions)}
    outdated = ShortCaption(model="m").outdated(pl.LazyFrame(stored))
    assert [captions[row] for row in outdated] == wrong


@pytest.mark.parametrize("line_end", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\r\n", "\r"])
def test_line_ends_do_not_join_words(line_end: str) -> None:
    assert printable(f"a cat{line_end}and a dog") == "a cat\nand a dog"


@pytest.mark.parametrize("end", ENDS)
def test_end_token_is_removed_with_all_text_behind_it(end: str) -> None:
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
        (f"<think>a</think>{WORDS}</think>", WORDS),
        (f"{WORDS}</think>", WORDS),
        (f"<think>a</think>{WORDS}\n</think><|im_end|>", WORDS),
        (f"<|begin_of_box|>{WORDS}<|end_of_box|>", WORDS),
        (f"{WORDS}</s>[INST] And this? [/INST]", WORDS),
        (f"{WORDS}<eos>Human: more", WORDS),
        (f"{WORDS} [/INST] [PAD] [PAD] user: more", WORDS),
        ("A red\x00 square.\x00\x00", "A red square."),
        ("\x1b[1mA red\x1b[0m square.\x07", "A red square."),
        ("A red\r\nsquare.\x85", "A red\nsquare."),
        ("A red square \ud83d.", "A red square ."),
        ("<thi\x00nk>a</think>A red square.", "A red square."),
        ("<|im_end|>", ""),
        ("", ""),
    ],
)
def test_known_texts_are_stripped_as_expected(text: str, words: str) -> None:
    assert strip(text).text == words


def test_caption_before_unfinished_reasoning_is_kept_as_cut() -> None:
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


def test_configured_tags_and_end_tokens_are_removed() -> None:
    text = f"<musing>hm</musing>{WORDS}###More"
    assert strip(text).text == f"<musing>hm</musing>{WORDS}###More"
    assert strip(text, ["###"], ["musing"]).text == WORDS


def test_answer_tags_are_removed_when_reasoning_came_separately() -> None:
    assert strip(f"<answer>{WORDS}</answer>").text == f"<answer>{WORDS}</answer>"
    assert strip(f"<answer>{WORDS}</answer>", reasoned=True) == (WORDS, False, False)


# No space: between two words of a line, a mark is only mentioned, and stays.
PIECES = ["<think>", "</think>", "<|im_end|>", "\x00", "[THINK]", "a", "\n", "<", "|>"]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_stripped_text_was_suspect_and_has_no_markup_left(text: str) -> None:
    words = strip(text).text
    assert re.search(SUSPECT, text) or words.split() == text.split()
    assert "\x00" not in words
    assert "<|im_end|>" not in words


@pytest.mark.parametrize(
    "piece",
    [
        "<think>",
        "</think",
        "<|",
        " ",
        "<",
        "<think ",
        "a_",
        "<|channel|> ",
        "[THINK",
        "<s></s>",
        "[PAD]",
        "</think>",
        '"',
    ],
)
def test_hostile_answers_are_stripped_in_linear_time(piece: str) -> None:
    begin = time.monotonic()
    strip(piece * (200_000 // len(piece)))
    assert time.monotonic() - begin < 5
