"""Find control tokens of chat models and trainers: placeholders for media, and starts and ends of turns.

In a training text they are not words: a trainer inserts an image wherever it finds `<image>`, and many tokenizers turn
`<|im_end|>` into the token itself. This also happens in a text that only mentions such a token.
"""

from __future__ import annotations

import re

END_TOKENS = tuple(
    (
        "<|eos|> <|eos_token|> <|eod|> <|eom|> <|endoftext|> <|end_of_text|> <|im_end|> <|im_start|> <|im_sep|> <|end|>"
        " <|return|> <|start|> <|call|> <|eot_id|> <|eom_id|> <|eot|> <|start_header_id|> <end_of_turn> <start_of_turn>"
        " <turn|> <|turn> <|end_of_turn|> <|endofturn|> [|endofturn|] <|end_of_turn_token|> <|start_of_turn_token|>"
        " <|end_of_sentence|> <|endofchunk|> <｜end▁of▁sentence｜> <|end▁of▁sentence|> <end_of_utterance>"
        " <|end_of_message|> <|user|> <|assistant_end|> <|observation|> <|im_user|> <|pad|>"
    ).split()
)
"""Unambiguous ends of an answer."""

PLAIN_END_TOKENS = tuple("</s> <eos> [EOS] <eos_token> <eot> <eoa> <eod> <eom> [/INST] <pad> [PAD]".split())
"""Ends of an answer that may also occur as ordinary text in a caption, such as HTML's `</s>`."""

_ORDINARY = ("[EOS]", "[PAD]")
"""End tokens that do not count as control tokens: only older models use them, and many diagrams contain these words."""

MEDIA_TOKENS = (
    "<image> </image> <video> </video> <audio> </audio> <img> </img> <IMG_CONTEXT> <VIDEO_CONTEXT> <image_pad>"
    " <video_pad> <image_soft_token> <audio_soft_token> <start_of_image> <end_of_image> <start_of_audio> <end_of_audio>"
    " <image_placeholder> <image_token> <image_start> <image_end> <im_start> <im_end> <im_patch> <vid_start> <vid_end>"
    " <vid_patch> <ImageHere> <fake_token_around_image> <global-img> <image|> <|image> <audio|> <|audio>"
    " <vision_start> <vision_end> <image_newline> [IMG] [IMG_BREAK] [IMG_END] <slice> </slice> <image_id> </image_id>"
).split()
"""Placeholders for media, and their starts and ends."""

_TURNS = "<s> <bos> <unk> <mask> [INST] <<SYS>> <</SYS>> [AVAILABLE_TOOLS] [TOOL_CALLS] <channel|> <|channel>".split()
_QWEN = "<tool_call> </tool_call> <tool_response> </tool_response> <think> </think>".split()
"""Single tokens in the vocabulary of Qwen 2.5 and 3."""

_FORMS = (  # no look-around, as polars does not support it
    r"<\|[\w▁/-]{2,40}\|>|<｜[\w▁/-]{2,40}｜>|\[\|[a-z]{2,20}\|\]"
    r"|<(?:image|video|img)_?\d{1,4}>|<(?:unused|extra_id_|reserved_)\d{1,4}>|<row_\d{1,3}_col_\d{1,3}>"
)
_NAMED = dict.fromkeys([*END_TOKENS, *PLAIN_END_TOKENS, *MEDIA_TOKENS, *_TURNS, *_QWEN])
CONTROL_TOKEN = "|".join([_FORMS, *(re.escape(token) for token in _NAMED if token not in _ORDINARY)])
"""Pattern of one control token, in the tokenizers' spelling: `<eos>` matches, the `<EOS>` on a camera does not."""

MAX_COUNT = 127
"""Largest value of a count, which is stored in 8 bits."""

_CONTROL_TOKEN = re.compile(CONTROL_TOKEN)


def find_control_tokens(text: str) -> list[str]:
    """Return the control tokens in a text, in order."""
    return _CONTROL_TOKEN.findall(text)


def count_control_tokens(text: str) -> int:
    """Return the number of control tokens in a text, at most `MAX_COUNT`."""
    return min(len(find_control_tokens(text)), MAX_COUNT)


def as_words(text: str) -> str:
    """Spell the control tokens in a text as words, `< image >`, which trainers and tokenizers do not recognise."""
    return _CONTROL_TOKEN.sub(lambda token: f"{token[0][0]} {token[0][1:-1]} {token[0][-1]}", text)
