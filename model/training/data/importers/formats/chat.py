"""Conversations of text alone: OpenAI's messages, sharegpt, ultrachat, instruction and output, …."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Turn
from core.text import printable
from model.training.data.forms import media_of
from model.training.data.importers.dialogs import dialog_of, pair_of
from model.training.data.importers.format import Draft, Format, Options, Row
from model.training.data.importers.turns import content_text, list_of_turns, plain, role_of
from model.training.data.unread_keys import check_line, check_turn

_WEIGHTS = ("weight", "loss", "train")
_LISTS = ("messages", "conversations", "conversation")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_MEDIUM = re.compile(
    r"media|audio|(?:image|img|picture|photo|video|vid|gif|clip|frame)s?(?:ids?|names?|files?|paths?|urls?)?"
)
_IDS = frozenset("id ids index idx".split())


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry. Text is text, whatever marks are in it."""
    entry = row.entry
    if media_of(entry, "image") or media_of(entry, "video"):
        raise BadSampleError("media in a chat of text: import it as llava")
    check_line(entry, ())
    listed = [key for key in _LISTS if entry.get(key)]
    if len(listed) > 1:
        raise BadSampleError(f"two conversations: {' and '.join(listed)}")
    if listed:
        turns = [_turn(turn) for turn in list_of_turns(entry[listed[0]])]
        turns = [plain("system", entry["system"]), *turns] if entry.get("system") else turns
    elif isinstance(entry.get("data"), list):  # ultrachat: question, answer, question, …
        texts = [content_text(text) for text in entry["data"]]
        turns = [plain(("user", "assistant")[number % 2], text) for number, text in enumerate(texts)]
    else:
        turns = [plain(role, text) for role, text in dialog_of(entry)]
    original = next((entry[key] for key in ("id", "prompt_id", "uuid") if entry.get(key) is not None), "")
    notes = [f"`{printable(key[:60])}` names a medium, which is not in a chat of text" for key in _media_keys(entry)]
    yield Draft(turns, original_id=original, subset=str(entry.get("source") or ""), notes=notes)


def _turn(turn: Mapping[str, Any]) -> Turn:
    speaker = turn.get("role", turn.get("from"))
    role = "system" if speaker == "developer" else role_of(speaker)
    weights = [turn[key] for key in _WEIGHTS if turn.get(key) is not None] if role == "assistant" else []
    if any(weight not in (0, 1) for weight in weights):  # True and False are 1 and 0
        raise BadSampleError(f"a weight that is neither 0 nor 1: {weights}")
    rest = {key: value for key, value in turn.items() if not weights or key not in _WEIGHTS}
    check_turn(rest, (), role == "assistant")
    return plain(role, content_text(turn.get("content", turn.get("value"))), learn=False if 0 in weights else None)


def _media_keys(entry: Mapping[str, Any]) -> list[str]:
    """Return the keys that name an image or a film: `imageId` of GQA, `video_id` of MSRVTT-QA, `gif_name` of TGIF-QA.

    Empty ones, and a count of 0, name none: a set may mix questions with and without a picture. An id may be 0.
    """
    found = []
    for key, value in entry.items():
        words = [word.lower() for word in _WORD.findall(str(key))]
        medium = next((word for word in words if _MEDIUM.fullmatch(word)), None)
        is_id = type(value) is int and (_IDS & {*words} or str(medium).endswith("id"))
        if medium and (value or is_id):
            found.append(str(key))
    return found


def _fits(entry: Mapping[str, Any]) -> bool:
    if any(key in entry for key in ("image", "images", "video", "videos", "stream", "media")) or _media_keys(entry):
        return False
    lists = any(isinstance(entry.get(key), list) for key in ("messages", "conversations"))
    ultrachat = isinstance(entry.get("data"), list) and all(isinstance(text, str) for text in entry["data"])
    return lists or ultrachat or pair_of(entry) is not None


FORMAT = Format("chat", "text alone: OpenAI's messages, sharegpt, ultrachat, instruction/output, …", read, _fits)
