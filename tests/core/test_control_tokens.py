"""Control tokens are found as tokenizers spell them, and can be spelled as words."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.control_tokens import CONTROL_TOKEN, END_TOKENS, PLAIN_END_TOKENS, as_words, find_control_tokens
from tests.captioners.ordinary import ORDINARY

TOKENS = "<image> <video> <audio> <img> <IMG_CONTEXT> <image_1> <ImageHere> <image_soft_token> <start_of_image> [IMG]"
TOKENS += " <|image_pad|> <|video_pad|> <|vision_start|> <|vision_end|> <|im_end|> <|im_start|> <|image_1|> <image|>"
TOKENS += " <s> </s> <bos> <eos> <pad> <unk> <mask> [INST] [/INST] <<SYS>> <start_of_turn> <end_of_turn> <|turn>"
TOKENS += " <turn|> <|eot_id|> <|start_header_id|> <｜User｜> <｜end▁of▁sentence｜> [|endofturn|] <unused94>"
TOKENS += " <extra_id_0> <fake_token_around_image> <row_1_col_2> <|END_RESPONSE|> <|placeholder|> <|media_pad|>"
TOKENS += " <tool_call> </tool_call> <tool_response> </tool_response> <think> </think>"
NONE = (
    "I <3 you",
    "a sign that says <EXIT>",
    "a camera by <EOS> and a <Video> button",
    "<IMAGE> on a slide",
    "1 < 2 > 0, a<b && c>d",
    "<b>bold</b>, <p>, <br/>, <img src='x'>, <video controls>",
    "let y = f <| g |> h, <||>, <|>, |<>|",
    "a face <|:-) and a bar |||",
    "[1] [CLS] [PAD] [SEP] [MASK] [sic] [STOP]",
    "Map<String, Image>, List<image[]>",
    "&lt;image&gt; and < image >",
    "a cat <box>[412,80,590,143]</box>, <ref>a dog</ref>",
    "ann@example.com <ann@example.com> <http://x.y>",
)
SPEAK_OF_TOKENS = (
    "<s>",
    "</s>",
    "<eos>",
    "<bos>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "[/INST]",
    "<think>",
    "</think>",
)
"""What ordinary captions, of slides and of web pages, have of them. A tokenizer reads them as tokens, too."""


@pytest.mark.parametrize("token", TOKENS.split())
def test_token_at_any_position_is_replaced_by_words(token: str) -> None:
    for text in (token, f"A red {token} square.", f"A red{token}square.", f'It reads "{token}".', f"{token}\n{token}"):
        assert find_control_tokens(text) == [token] * text.count(token)
        assert find_control_tokens(as_words(text)) == []
    assert as_words(f"A {token}.") == f"A {token[0]} {token[1:-1]} {token[-1]}."


@pytest.mark.parametrize("text", [*NONE, *(t for t in ORDINARY if not any(token in t for token in SPEAK_OF_TOKENS))])
def test_ordinary_text_has_no_control_tokens(text: str) -> None:
    assert find_control_tokens(text) == []
    assert as_words(text) == text


def test_control_tokens_include_the_stripped_end_tokens() -> None:
    ordinary = {"[EOS]", "[PAD]"}
    assert {token for token in (*END_TOKENS, *PLAIN_END_TOKENS) if not find_control_tokens(token)} == ordinary


@given(st.lists(st.sampled_from([*TOKENS.split(), "<", ">", "|", "[", " ", "image", "s", "\n", "_"])).map("".join))
def test_text_as_words_has_no_token_in_python_and_polars(text: str) -> None:
    assert find_control_tokens(as_words(text)) == []
    assert as_words(text).replace(" ", "") == text.replace(" ", "")
    assert pl.Series([text]).str.count_matches(CONTROL_TOKEN).to_list() == [len(find_control_tokens(text))]
