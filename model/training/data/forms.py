"""Convert other trainers' annotations to VideoLLaMA3's form.

LLaMA-Factory, ms-swift and TRL write `messages`, `role`, `content`, `images` and `videos` where VideoLLaMA3 writes
`conversations`, `from`, `value`, `image` and `video`. Both mean the same and are read. Forms and keys with another
meaning raise an error that names them: ignoring a key would silently change what is learned.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any, Literal

from core.errors import BadSampleError

_UNREAD = {  # keys of unsupported forms, which have no turns
    ("query", "response"): "ms-swift's form with `query` and `response`",
    ("instruction", "output"): "Alpaca's form",
    ("prompt", "completion"): "TRL's form with `prompt` and `completion`",
    ("QA",): "VideoChat's form",
    ("q", "a"): "Video-ChatGPT's form",
    ("question", "answer"): "a table of questions",
    ("texts",): "FineVision's form",
    ("text",): "plain text",
}
_PREFERENCE = "what an assistant should not say is not learned here"
_REFUSED = {  # unsupported keys next to the turns that change what is learned
    "audio": "sound is not read",
    "audios": "sound is not read",
    "tools": "calls of tools are not read",
    "rejected": _PREFERENCE,
    "rejected_response": _PREFERENCE,
}
_STILLS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_NOTHING = (None, "")
_PATH_IN_TEXT = re.compile("<img>[^<]+</img>")  # in HTML the path is an attribute


def media_of(entry: Mapping[str, Any], kind: Literal["image", "video"]) -> list[Any]:
    """Return the `image` or `images` (`video` or `videos`) of an entry: paths, not yet checked.

    null, an empty text, and lists of these count as no media.

    Raises:
        BadSampleError: Both keys are given, or a video is given as a list of frames.
    """
    given = [listed for key in (kind, f"{kind}s") if (listed := _listed(entry.get(key)))]
    if len(given) > 1:
        raise BadSampleError(f"`{kind}` and `{kind}s` are both given: leave one out")
    media = given[0] if given else []
    if kind == "video" and _are_frames(media):
        raise BadSampleError(
            "a film as a list of its frames is not read: make it one film, or give the frames as `image`, with a mark "
            "<image> for each"
        )
    return media


def turns_of(entry: Mapping[str, Any]) -> Any:
    """Return the turns of an entry, with `from` and `value`.

    Items that are not turns are returned unchanged; `from_turns` raises on them.

    Raises:
        BadSampleError: The entry has an unsupported form or key.
    """
    for key, reason in _REFUSED.items():
        if entry.get(key):
            raise BadSampleError(f"`{key}`: {reason}")
    given = [turns for key in ("conversations", "messages") if (turns := entry.get(key))]
    if len(given) > 1:
        raise BadSampleError("`conversations` and `messages` are both given: leave one out")
    if not given:
        raise BadSampleError(_without_turns(entry))
    if not isinstance(given[0], list):
        return given[0]
    turns = [_turn(turn) for turn in given[0]]
    if system := entry.get("system"):
        turns.insert(0, {"from": "system", "value": system})
    texts = [turn["value"] for turn in turns if isinstance(turn, Mapping) and isinstance(turn["value"], str)]
    if entry.get("objects") and any("<bbox>" in text or "<ref-object>" in text for text in texts):
        raise BadSampleError(
            "`objects`: marks <bbox> and <ref-object> are not read: write names and boxes into the text, boxes in "
            "thousandths of the image"
        )
    if any(map(_PATH_IN_TEXT.search, texts)):
        raise BadSampleError(
            "Qwen-VL's form with <img>PATH</img> in a text is not read: name the image as `image`, and write <image> "
            "in its place"
        )
    return turns


def _listed(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    return [] if all(one in _NOTHING for one in values) else values


def _are_frames(videos: list[Any]) -> bool:
    stills = [one for one in videos if isinstance(one, str) and one.lower().endswith(_STILLS)]
    return any(isinstance(one, list) for one in videos) or (len(videos) > 1 and bool(stills))


def _turn(turn: Any) -> Any:
    if not isinstance(turn, Mapping):
        return turn
    speaker = turn.get("from", turn.get("role"))
    if speaker in ("gpt", "assistant") and (turn.get("loss", 1) == 0 or turn.get("weight", 1) == 0):
        raise BadSampleError(
            "an answer that is not to be learned (`loss`, `weight`): not read, every answer is learned"
        )
    return {"from": speaker, "value": _text(turn.get("value", turn.get("content")))}


def _text(content: Any) -> Any:
    """Return the text of a turn; a list of parts becomes one text with placeholders."""
    return "".join(map(_part, content)) if isinstance(content, list) else content


def _part(part: Any) -> str:
    if isinstance(part, Mapping):
        kind, text = part.get("type"), part.get("text")
        if kind == "text" and isinstance(text, str):
            return text
        if kind in ("image", "video") and all(value is None for key, value in part.items() if key != "type"):
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
