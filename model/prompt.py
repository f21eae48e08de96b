"""Turn a conversation into tokens and labels: ChatML, one placeholder per visual token (arXiv 2501.13106, figure 4).

Text of users and assistants never becomes a special token. The template is rendered with marks instead of the texts,
then split at special tokens, and only then the texts replace the marks. So a literal `<|image_pad|>` in a question is
ordinary text. Everything else is tokenised as in transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import BadSampleError
from core.text import not_unicode
from model.tokenizer import Tokenizer

IGNORE_INDEX = -100
"""Label of a token that is not learned; torch's cross entropy skips it."""

SYSTEM_PROMPT = (
    "You are VideoLLaMA3 created by Alibaba DAMO Academy, a helpful assistant to help people understand images and "
    "videos."
)
"""The system prompt of the published checkpoints at inference."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}{{- message.content -}}
{%- else -%}{%- for part in message.content -%}
{%- if part.type == 'text' -%}{{- part.text -}}
{%- elif part.type == 'image' -%}
{%- if part.time is defined and part.time is not none -%}{{- 'Time %.1fs: ' % part.time -}}{%- endif -%}
{{- '<|image_pad|>\\n' -}}
{%- elif part.type == 'video' -%}{{- '<|video_pad|>\\n' -}}
{%- endif -%}{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

_MARK = re.compile("\ue000([0-9]+)\ue001")
_ROLES = ("system", "user", "assistant")
_PARTS = ("text", "image", "video")

Message = Mapping[str, Any]


@dataclass(frozen=True)
class ParsedConversation:
    """A conversation, parsed into structure, texts and media.

    Attributes:
        messages: Messages for the template, with marks instead of texts.
        texts: The texts that replace the marks.
        answers: Indices of the assistants' texts.
        media: Images and videos in the order of their placeholders.
    """

    messages: list[dict[str, Any]]
    texts: list[str]
    answers: set[int]
    media: list[Mapping[str, Any]]


@dataclass
class Tokens:
    """Token ids and labels. A label is the id in an assistant's answer, its end token included, else -100."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], learned: bool) -> None:
        """Append ids, with labels if they are learned."""
        self.ids += ids
        self.labels += ids if learned else [IGNORE_INDEX] * len(ids)


def parse_conversation(conversation: Sequence[Message]) -> ParsedConversation:
    """Validate a conversation, and separate its texts, its media and its structure.

    Args:
        conversation: [{"role": "user", "content": text or parts}, …]; a part is a text, or {"type": "text", "text": …},
            {"type": "image", "image": …}, {"type": "video", "video": …}.

    Raises:
        BadSampleError: A message has another form, or a text is not valid Unicode, which no tokenizer accepts.
    """
    if not conversation:
        raise BadSampleError("an empty conversation: give at least one message")
    script = ParsedConversation([], [], set(), [])
    for number, message in enumerate(conversation):
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            raise BadSampleError(f"message {number}: role {role!r}: use one of {', '.join(_ROLES)}")
        parts = [content] if isinstance(content, str) else content
        if not isinstance(parts, list | tuple):
            raise BadSampleError(f"message {number}: content must be a text or a list of parts")
        arranged = [_part(part, f"message {number}", role == "assistant", script) for part in parts]
        whole = isinstance(content, str)
        script.messages.append({"role": role, "content": arranged[0]["text"] if whole else arranged})
    return script


def _part(part: Any, where: str, answer: bool, script: ParsedConversation) -> dict[str, Any]:
    part = {"type": "text", "text": part} if isinstance(part, str) else part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in _PARTS or kind not in part or (kind == "text" and not isinstance(part["text"], str)):
        raise BadSampleError(f'{where}: a part must be {{"type": K, K: …}} with K one of {", ".join(_PARTS)}')
    if kind == "text":
        if reason := not_unicode(part["text"]):
            raise BadSampleError(f"{where}: {reason}: write the text as UTF-8")
        if answer:
            script.answers.add(len(script.texts))
        script.texts.append(part["text"])
        return {"type": "text", "text": f"\ue000{len(script.texts) - 1}\ue001"}
    if answer:
        raise BadSampleError(f"{where}: an {kind} in an assistant's message: put it into the user's")
    script.media.append(part)
    return {"type": kind, "time": part.get("time")}


def tokenize(
    script: ParsedConversation,
    placeholders: Sequence[Sequence[tuple[str, int]]],
    tokenizer: Tokenizer,
    template: str,
    image_token: str,
    video_token: str,
    generation_prompt: bool,
) -> Tokens:
    """Render the template, and tokenise it piece by piece.

    Args:
        script: The parsed conversation.
        placeholders: Per item of media: (text before, number of kept visual tokens) of the image or of each frame.
        tokenizer: A fast tokenizer of transformers.
        template: Jinja template that writes one image_token or video_token per item.
        image_token: Placeholder of images.
        video_token: Placeholder of videos.
        generation_prompt: Whether to end with the start of an answer.

    Raises:
        BadSampleError: The template does not write one placeholder per item.
    """
    rendered = tokenizer.apply_chat_template(
        script.messages, chat_template=template, tokenize=False, add_generation_prompt=generation_prompt
    )
    kinds = {image_token, video_token}
    rendered, counts = _expand(rendered, placeholders, kinds)
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    longest_first = sorted({*special, *kinds}, key=len, reverse=True)
    tokens, answered = Tokens(), False
    for piece in filter(None, re.split("(" + "|".join(map(re.escape, longest_first)) + ")", rendered)):
        if piece in kinds:
            tokens.add([tokenizer.convert_tokens_to_ids(piece)] * next(counts), False)
            answered = False
        elif piece in special:
            tokens.add([tokenizer.convert_tokens_to_ids(piece)], answered)  # learned if it ends an answer
            answered = False
        else:
            answered = _add_text(piece, script, tokenizer, tokens)
    return tokens


def _expand(rendered: str, placeholders: Sequence[Sequence[tuple[str, int]]], kinds: set[str]) -> tuple[str, Any]:
    """Repeat an item's placeholder once per frame, after the frame's text. Also return each frame's token count."""
    split = re.split("(" + "|".join(map(re.escape, sorted(kinds))) + ")", rendered)
    if len(split) // 2 != len(placeholders):
        raise BadSampleError(
            f"the chat template places {len(split) // 2} of {len(placeholders)} images and videos: fix it"
        )
    for number, frames in enumerate(placeholders):
        token = split[2 * number + 1]
        split[2 * number + 1] = "".join(before + token for before, _ in frames)
    return "".join(split), iter([count for frames in placeholders for _, count in frames])


def _add_text(piece: str, script: ParsedConversation, tokenizer: Tokenizer, tokens: Tokens) -> bool:
    """Tokenise text between special tokens. Return whether it ends with an answer.

    An answer is tokenised separately from the text around it, as in generation.
    """
    runs: list[tuple[str, bool]] = []
    for number, part in enumerate(_MARK.split(piece)):
        answer = number % 2 == 1 and int(part) in script.answers
        text = script.texts[int(part)] if number % 2 else part
        if runs and runs[-1][1] == answer:
            runs[-1] = (runs[-1][0] + text, answer)
        elif text or answer:
            runs.append((text, answer))
    for text, answer in runs:
        tokens.add(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"], answer)
    return bool(runs) and runs[-1][1]
