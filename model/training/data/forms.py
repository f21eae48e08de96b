"""Convert other trainers' annotations to VideoLLaMA3's form.

LLaMA-Factory, ms-swift and TRL write `messages`, `role`, `content`, `images` and `videos` where VideoLLaMA3 writes
`conversations`, `from`, `value`, `image` and `video`. Both mean the same and are read. Forms and keys with another
meaning raise an error that names them: ignoring a key would silently change what is learned.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from core.errors import BadSampleError
from model.training.data.conversations import ROLES
from model.training.data.unread_keys import check_line, check_turn

_UNREAD = {  # keys of unsupported forms, which have no turns
    ("query", "response"): "ms-swift's form with `query` and `response`",
    ("instruction", "output"): "Alpaca's form",
    ("chosen", "rejected"): "a form with `chosen` and `rejected`",
    ("prompt", "completion"): "TRL's form with `prompt` and `completion`",
    ("QA",): "VideoChat's form",
    ("q", "a"): "Video-ChatGPT's form",
    ("question", "answer"): "a table of questions",
    ("texts",): "FineVision's form",
    ("text",): "plain text",
}
_STILLS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_NOTHING: tuple[Any, ...] = (None, "", {})
_PATH = re.compile(r"<img>(?!\s*<(?:image|video)>\s*</img>)")
_MARK = re.compile("<image>|<video>")


def media_of(entry: Mapping[str, Any], kind: Literal["image", "video"]) -> list[Any]:
    """Return the `image` or `images` (`video` or `videos`) of an entry: paths, not yet checked.

    null, an empty text, and lists of these count as no media.

    Raises:
        BadSampleError: Both keys are given, one of several is empty, or a video is given as a list of frames.
    """
    given = [listed for key in (kind, f"{kind}s") if (listed := _listed(entry.get(key)))]
    if len(given) > 1:
        raise BadSampleError(f"`{kind}` and `{kind}s` are both given: leave one out")
    media = given[0] if given else []
    if empty := [number for number, one in enumerate(media, 1) if _is_nothing(one)]:
        raise BadSampleError(f"{kind} {empty[0]} of {len(media)} is empty: leave it out")
    if kind == "video" and _are_frames(media):
        raise BadSampleError(
            "a film as a list of its frames is not read: name a folder of them, or give the frames as `image`, with a "
            "mark <image> for each"
        )
    return media


def turns_of(entry: Mapping[str, Any]) -> Any:
    """Return the turns of an entry, with `from` and `value`.

    Items that are not turns are returned unchanged; `from_turns` raises on them.

    Raises:
        BadSampleError: The entry has an unsupported form or key.
    """
    given = [turns for key in ("conversations", "messages") if (turns := entry.get(key))]
    if len(given) > 1:
        raise BadSampleError("`conversations` and `messages` are both given: leave one out")
    if not given:
        raise BadSampleError(_without_turns(entry))
    media = [*media_of(entry, "image"), *media_of(entry, "video")]
    check_line(entry, media)
    if not isinstance(given[0], list):
        return given[0]
    turns = [_turn(turn, media) for turn in given[0]]
    if system := entry.get("system"):
        turns.insert(0, {"from": "system", "value": system})
    texts = [turn["value"] for turn in turns if isinstance(turn, Mapping) and isinstance(turn["value"], str)]
    if entry.get("objects") and any("<bbox>" in text or "<ref-object>" in text for text in texts):
        raise BadSampleError(
            "`objects`: marks <bbox> and <ref-object> are not read: write names and boxes into the text, boxes in "
            "thousandths of the image"
        )
    if any(_has_path(turn["value"]) for turn in turns if _is_question(turn)):
        raise BadSampleError(
            "Qwen-VL's form with <img>PATH</img> in a text is not read: name the image as `image`, and write <image> "
            "in its place"
        )
    return turns


def stream_turns_of(entry: Mapping[str, Any]) -> Any:
    """Return the turns of a streaming entry, unchanged.

    Raises:
        BadSampleError: The entry has an unsupported key.
    """
    given = [turns for key in ("conversation", "conversations") if (turns := entry.get(key))]
    if len(given) > 1:
        raise BadSampleError("`conversation` and `conversations` are both given: leave one out")
    if entry.get("system"):
        raise BadSampleError("`system`: not read beside a stream: make it the first turn")
    media = [*media_of(entry, "image"), *media_of(entry, "video")]
    check_line(entry, media)
    turns = given[0] if given else []
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, Mapping):
            check_turn(turn, media, ROLES.get(str(turn.get("role"))) == "assistant")
    return turns


def _listed(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    return [] if all(map(_is_nothing, values)) else values


def _is_nothing(value: Any) -> bool:
    return all(map(_is_nothing, value)) if isinstance(value, list) else value in _NOTHING


def _are_frames(videos: list[Any]) -> bool:
    stills = [one for one in videos if isinstance(one, str) and one.lower().endswith(_STILLS)]
    return any(isinstance(one, list) for one in videos) or (len(videos) > 1 and bool(stills))


def _turn(turn: Any, media: Sequence[Any]) -> Any:
    if not isinstance(turn, Mapping):
        return turn
    speaker, content = _one_of(turn, "from", "role"), _one_of(turn, "value", "content")
    role = ROLES.get(str(speaker))
    check_turn(turn, media, role == "assistant")
    return {"from": speaker, "value": _text(content, role == "user")}


def _one_of(turn: Mapping[str, Any], ours: str, theirs: str) -> Any:
    """Return the value of the one key that is given; both may say the same."""
    first, second = turn.get(ours), turn.get(theirs)
    if first is None:
        return second
    same = first == second or (ours == "from" and ROLES.get(str(first)) == ROLES.get(str(second), second))
    if second is not None and not same:
        raise BadSampleError(f"`{ours}` and `{theirs}` of a turn are both given, and differ: leave one out")
    return first


def _is_question(turn: Any) -> bool:
    return isinstance(turn, Mapping) and isinstance(turn["value"], str) and ROLES.get(str(turn["from"])) == "user"


def _has_path(text: str) -> bool:
    begin = _PATH.search(text)  # later ones need no look: an end after them is one after this, too
    return begin is not None and text.find("</img>", begin.end() + 1) >= 0


def _text(content: Any, question: bool) -> Any:
    """Return the text of a turn; a list of parts becomes one text with placeholders."""
    return "".join(_part(part, question) for part in content) if isinstance(content, list) else content


def _part(part: Any, question: bool) -> str:
    if isinstance(part, Mapping):
        kind, text = part.get("type"), part.get("text")
        others = [key for key, value in part.items() if key not in ("type", "text") and value is not None]
        if kind == "text" and isinstance(text, str) and not others:
            if question and (mark := _MARK.search(text)):
                raise BadSampleError(
                    f'{mark[0]} in a part of text is ambiguous: give {{"type": "{mark[0][1:-1]}"}}, or other words'
                )
            return text
        if kind in ("image", "video") and text is None and not others:
            if not question:
                raise BadSampleError(
                    f'{{"type": "{kind}"}} in an answer or a system message: only questions have media'
                )
            return f"<{kind}>"
    raise BadSampleError(
        f"a part of `content` is {reprlib.repr(part)}: "
        'give {"type": "text", "text": …}, {"type": "image"} or {"type": "video"}, and the paths as `images`, `videos`'
    )


def _without_turns(entry: Mapping[str, Any]) -> str:
    accepted = "`conversations` must be a list of turns (`from`, `value`), or `messages` one (`role`, `content`)"
    form = next((form for keys, form in _UNREAD.items() if all(key in entry for key in keys)), None)
    if form:
        return f"no conversation: {form} is not read: {accepted}"
    keys = reprlib.repr(list(entry)) if entry else "none"
    return f"no conversation: {accepted}; its keys are {keys}"
