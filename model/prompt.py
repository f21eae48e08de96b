"""Turn a conversation into tokens and labels: ChatML, one placeholder per visual token (arXiv 2501.13106, figure 4).

Text of users and assistants never becomes a special token: a literal `<|image_pad|>` in a question is ordinary text.

1. `parse_conversation` replaces each text by a mark, a number between two private-use characters.
2. `tokenize` renders the template with the marks and splits the result at special tokens.
3. Only then the texts replace the marks. Everything else is tokenised as in transformers.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
"""{"role": …, "content": a text or a list of texts and parts}."""

Part = Mapping[str, Any]
"""{"type": "text", "text": …}, {"type": "image", "image": …} or {"type": "video", "video": …}, with options."""


class Placeholders(NamedTuple):
    """The placeholders of an image, or of one frame of a video.

    Attributes:
        prefix: Text before them, such as the frame's time.
        tokens: Their number: one per kept visual token.
    """

    prefix: str
    tokens: int


@dataclass(frozen=True)
class ParsedConversation:
    """A conversation, parsed into structure, texts and media.

    Attributes:
        messages: Messages for the template. The mark of text n stands for that text.
        texts: The texts, in order.
        answers: Which of the texts are an assistant's, as indices.
        media: Images and videos in the order of their placeholders.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    answers: set[int] = field(default_factory=set)
    media: list[Part] = field(default_factory=list)


@dataclass
class Tokens:
    """Token ids and labels. In an assistant's answer and at its end token, the label is the id; elsewhere -100.

    They are arrays of int64: an image has thousands of placeholders.
    """

    ids: array[int] = field(default_factory=lambda: array("q"))
    labels: array[int] = field(default_factory=lambda: array("q"))

    def add(self, ids: Sequence[int], learned: bool) -> None:
        """Append ids. Their labels are the ids if they are learned, else -100."""
        self.ids.extend(ids)
        self.labels.extend(ids if learned else array("q", [IGNORE_INDEX]) * len(ids))


def parse_conversation(conversation: Sequence[Message]) -> ParsedConversation:
    """Validate a conversation, and separate its texts, its media and its structure.

    Args:
        conversation: At least one message.

    Raises:
        BadSampleError: A message has another form, or a text is not valid Unicode, which no tokenizer accepts.
    """
    if not conversation:
        raise BadSampleError("an empty conversation: give at least one message")
    parsed = ParsedConversation()
    for number, message in enumerate(conversation):
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            raise BadSampleError(f"message {number}: role {role!r}: use one of {', '.join(_ROLES)}")
        is_text = isinstance(content, str)
        parts = [content] if is_text else content
        if not isinstance(parts, list | tuple):
            raise BadSampleError(f"message {number}: content must be a text or a list of parts")
        template_parts = [_parse_part(part, f"message {number}", role == "assistant", parsed) for part in parts]
        parsed.messages.append({"role": role, "content": template_parts[0]["text"] if is_text else template_parts})
    return parsed


def _parse_part(part: object, where: str, is_answer: bool, parsed: ParsedConversation) -> dict[str, Any]:
    """Add a part's text or medium to `parsed`. Return the part for the template, with a mark instead of the text."""
    part = {"type": "text", "text": part} if isinstance(part, str) else part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if (
        not isinstance(part, Mapping)
        or kind not in _PARTS
        or kind not in part
        or (kind == "text" and not isinstance(part["text"], str))
    ):
        raise BadSampleError(f'{where}: a part must be {{"type": K, K: …}} with K one of {", ".join(_PARTS)}')
    if kind == "text":
        if reason := not_unicode(part["text"]):
            raise BadSampleError(f"{where}: {reason}: write the text as UTF-8")
        if is_answer:
            parsed.answers.add(len(parsed.texts))
        parsed.texts.append(part["text"])
        return {"type": "text", "text": f"\ue000{len(parsed.texts) - 1}\ue001"}
    if is_answer:
        raise BadSampleError(f"{where}: an {kind} in an assistant's message: put it into the user's")
    parsed.media.append(part)
    return {"type": kind, "time": part.get("time")}


def tokenize(
    parsed: ParsedConversation,
    placeholders: Sequence[Sequence[Placeholders]],
    tokenizer: Tokenizer,
    template: str,
    image_token: str,
    video_token: str,
    generation_prompt: bool,
) -> Tokens:
    """Render the template, and tokenise it piece by piece.

    Args:
        parsed: The parsed conversation.
        placeholders: Per item of `parsed.media`: one for an image, one per frame for a video. A part of a stream may
            have none: it is left out, and so is a message that had nothing else.
        tokenizer: A fast tokenizer of transformers.
        template: Jinja template that writes one image_token per image and one video_token per video.
        image_token: Placeholder of images.
        video_token: Placeholder of videos.
        generation_prompt: Whether to end with the start of an answer.

    Raises:
        BadSampleError: The template does not write one token per image and video.
    """
    rendered = tokenizer.apply_chat_template(
        _without_empty(parsed.messages, placeholders),
        chat_template=template,
        tokenize=False,
        add_generation_prompt=generation_prompt,
    )
    media_tokens = {image_token, video_token}
    rendered, counts = _expand(rendered, [frames for frames in placeholders if frames], media_tokens)
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    runs: list[_Run] = []
    for piece in filter(None, _split_at(special | media_tokens, rendered)):
        if piece in media_tokens:
            runs.append(_Run(array("q", [tokenizer.convert_tokens_to_ids(piece)]) * next(counts), False))
        elif piece in special:
            ends_answer = bool(runs) and isinstance(runs[-1].tokens, str) and runs[-1].learned
            runs.append(_Run([tokenizer.convert_tokens_to_ids(piece)], ends_answer))
        else:
            runs += _runs_of_text(piece, parsed)
    return _tokens(runs, tokenizer)


def _without_empty(
    messages: Sequence[dict[str, Any]], placeholders: Sequence[Sequence[Placeholders]]
) -> list[dict[str, Any]]:
    """Return the messages without media that have no placeholders, and without messages of nothing but these."""
    per_medium, shown = iter(placeholders), []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [part for part in content if part["type"] == "text" or next(per_medium)]
        if content or not message["content"]:
            shown.append({**message, "content": content})
    return shown


def _split_at(tokens: set[str], text: str) -> list[str]:
    """Split a text at tokens: text, token, text, …, text. Of tokens that begin alike, the longest matches."""
    return re.split("(" + "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) + ")", text)


def _expand(
    rendered: str, placeholders: Sequence[Sequence[Placeholders]], media_tokens: set[str]
) -> tuple[str, Iterator[int]]:
    """Repeat a video's token once per frame, each after the frame's prefix. Also return the placeholders of each."""
    pieces = _split_at(media_tokens, rendered)
    written = len(pieces) // 2
    if written != len(placeholders):
        raise BadSampleError(f"the chat template places {written} of {len(placeholders)} images and videos: fix it")
    for number, frames in enumerate(placeholders):
        token = pieces[2 * number + 1]
        pieces[2 * number + 1] = "".join(frame.prefix + token for frame in frames)
    return "".join(pieces), iter([frame.tokens for frames in placeholders for frame in frames])


class _Run(NamedTuple):
    """Text, or ids of special tokens, and whether it is learned."""

    tokens: str | Sequence[int]
    learned: bool


def _runs_of_text(piece: str, parsed: ParsedConversation) -> list[_Run]:
    """Return the runs of text between special tokens, with texts for marks.

    An answer is tokenised separately from the text around it, as in generation. All other text is joined first.
    """
    runs: list[_Run] = []
    for number, part in enumerate(_MARK.split(piece)):  # text of the template and numbers of marks alternate
        is_mark = number % 2 == 1
        is_answer = is_mark and int(part) in parsed.answers
        text = parsed.texts[int(part)] if is_mark else part
        if runs and runs[-1].learned == is_answer:
            runs[-1] = _Run(f"{runs[-1].tokens}{text}", is_answer)
        elif text or is_answer:
            runs.append(_Run(text, is_answer))
    return runs


def _tokens(runs: Sequence[_Run], tokenizer: Tokenizer) -> Tokens:
    """Tokenise the runs of text, each by itself, and join all runs. A tokenizer's call takes longer than a text."""
    texts = [run.tokens for run in runs if isinstance(run.tokens, str)]
    ids = iter(tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else [])
    tokens = Tokens()
    for run in runs:
        tokens.add(next(ids) if isinstance(run.tokens, str) else run.tokens, run.learned)
    return tokens
