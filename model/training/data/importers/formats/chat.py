"""Conversations of text alone: OpenAI's messages, sharegpt, ultrachat, instruction and output, …."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Turn
from model.training.data.forms import media_of
from model.training.data.importers.dialogs import dialog_of, pair_of
from model.training.data.importers.format import Draft, Format, Options, Row
from model.training.data.importers.turns import content_text, list_of_turns, plain, role_of
from model.training.data.unread_keys import check_line, check_turn

_WEIGHTS = ("weight", "loss", "train")
_LISTS = ("messages", "conversations", "conversation")


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
    yield Draft(turns, original_id=original, subset=str(entry.get("source") or ""))


def _turn(turn: Mapping[str, Any]) -> Turn:
    speaker = turn.get("role", turn.get("from"))
    role = "system" if speaker == "developer" else role_of(speaker)
    weights = [turn[key] for key in _WEIGHTS if turn.get(key) is not None] if role == "assistant" else []
    if any(weight not in (0, 1) for weight in weights):  # True and False are 1 and 0
        raise BadSampleError(f"a weight that is neither 0 nor 1: {weights}")
    rest = {key: value for key, value in turn.items() if not weights or key not in _WEIGHTS}
    check_turn(rest, (), role == "assistant")
    return plain(role, content_text(turn.get("content", turn.get("value"))), learn=False if 0 in weights else None)


def _fits(entry: Mapping[str, Any]) -> bool:
    if any(key in entry for key in ("image", "images", "video", "videos", "stream", "media")):
        return False
    lists = any(isinstance(entry.get(key), list) for key in ("messages", "conversations"))
    ultrachat = isinstance(entry.get("data"), list) and all(isinstance(text, str) for text in entry["data"])
    return lists or ultrachat or pair_of(entry) is not None


FORMAT = Format("chat", "text alone: OpenAI's messages, sharegpt, ultrachat, instruction/output, …", read, _fits)
