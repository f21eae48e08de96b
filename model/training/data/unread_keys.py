"""Refuse keys of annotations that change what is learned and are not read.

Other trainers know more keys: media by other names, answers that are not learned, calls of tools. Passing over one of
them would silently train on something else. Keys about a sample (`image_id`, `video_length`, `split`) change nothing
and are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from os.path import basename, splitext
from typing import Any

from core.errors import BadSampleError
from core.text import printable

_LINE = frozenset(
    (
        "conversations messages conversation system stream start_time end_time fps max_frames start end objects"
        " frames_fps times_from_start image images video videos id source dataset data_source"
    ).split()
)
_TURN = frozenset("from role value content time id name".split())
_MEDIA = re.compile("(image|img|picture|photo|video|frame|audio|media|pixel)")
_FILE = re.compile(
    r"data:(?:image|video|audio)/|(?!.*\n).*\.(?:jpe?g|png|webp|bmp|gif|tiff?|avif|heic|mp4|m4v|mkv|webm|mov|avi|wav|mp3"
    r"|flac)(?:\?[^?\s]*)?$",
    re.IGNORECASE,
)
_CARRIERS = frozenset(  # words beside `image` in a key that holds the image: image_path, input_image, image_1, image_a
    (
        "path paths file files filename filenames filepath name names url urls uri uris link list dir folder base b"
        " bytes data binary input inputs content item items local src a c s"
    ).split()
)
_ABOUT = frozenset(  # words in a key that tells something about the sample
    (
        "id ids source dataset split set type category level score index idx original orig caption captions title hash"
        " sha md thumbnail size width height"
    ).split()
)
_SETTINGS = ("min_pixels", "max_pixels")
_ON = frozenset(("", "none", "null", "{}", "true", "1", "1.0", "yes"))
_FALSE = frozenset(("false", "0", "0.0", "no"))
_OFF = _FALSE | {"", "none", "null", "{}", "[]"}
_TRAINED = frozenset("train training trainable".split())
_WEIGHTS = frozenset("kto weight weights loss".split()) | _TRAINED
_QUESTIONS = frozenset("input inputs prompt prompts user".split())
_MASKS = frozenset("mask masked ignore ignored".split())
_REJECTED = frozenset("reject rejected rejection rejections".split())
_TOOLS = frozenset("tool tools function functions".split())
_REASONING = frozenset("reasoning thinking".split())
_SYSTEM = frozenset("prompt prompts message messages instruction instructions text".split())


def check_line(entry: Mapping[str, Any], media: Sequence[Any]) -> None:
    """Check the keys of an entry.

    Args:
        entry: A line of annotations.
        media: Paths of all images and videos that are read from it.

    Raises:
        BadSampleError: A key changes what is learned and is not read; the message names it.
    """
    for key, value in entry.items():
        if key not in _LINE:
            _raise(key, _names_media(key, value, media) or _trains(key, value))


def check_turn(turn: Mapping[str, Any], media: Sequence[Any], answer: bool) -> None:
    """Check the keys of a turn.

    Args:
        turn: A question, an answer, or a system message.
        media: Paths of all images and videos that are read from its line.
        answer: Whether an assistant says it, so that it is learned.

    Raises:
        BadSampleError: A key changes what is learned and is not read; the message names it.
    """
    for key, value in turn.items():
        if key in _TURN:
            continue
        # The line's media do not excuse those of a turn, which say where they stand.
        named = _names_media(key, value, ()) if _MEDIA.search(key.lower()) else _names_media(key, value, media)
        _raise(key, named or (_trains(key, value, turn=True) if answer else _trains_on_others(key, value)))


def _raise(key: str, reason: str | None) -> None:
    if reason:
        raise BadSampleError(f"`{printable(key[:60])}`: {reason}")


def _names_media(key: str, value: Any, media: Sequence[Any]) -> str | None:
    """Return why a key is refused that names media; None if it names none, or those that are read."""
    words = _words(key)
    kind = next((word for word in words if _MEDIA.fullmatch(word)), None)
    rest = set(words) - {kind}
    texts = [one for one in _leaves(value) if isinstance(one, str) and one]
    if kind is None:
        flat = isinstance(value, str | list) and not media
        return _media_reason(kind) if flat and any(map(_FILE.match, texts)) else None
    if kind == "pixel" and (isinstance(value, list) or (key in _SETTINGS and value is not None)) and value:
        return "pixels are not read: name a file as `image`; sizes are the stage's"
    names = {basename(one) for one in media if isinstance(one, str)}
    read = names | {splitext(name)[0] for name in names}
    if media and (rest & {"url", "urls", "uri", "uris", "link"} or rest & _ABOUT or {*map(basename, texts)} <= read):
        return None
    carries = all(word in _CARRIERS or word.isdigit() for word in rest)
    return _media_reason(kind) if texts and (carries or any(map(_FILE.match, texts))) else None


def _media_reason(kind: str | None) -> str:
    if kind == "audio":
        return "sound is not read"
    return "media of this name are not read: name them beside the turns, as `image` or `video`"


def _trains(key: str, value: Any, turn: bool = False) -> str | None:
    """Return why a key is refused that says what is learned from an answer or from all; None if it is harmless."""
    words = _words(key)
    among = set(words)
    if among & _ABOUT:
        return None
    if among & _TRAINED and among & _QUESTIONS:  # train_on_inputs
        return _trains_on_others(key, value)
    said = {str(leaf).strip().lower() for leaf in _leaves(value)}
    text = any(isinstance(leaf, str) and leaf.strip().lower() not in _OFF for leaf in _leaves(value))
    if (
        (among & _WEIGHTS and said - _ON)
        or (words == ["label"] and str(value).strip().lower() in _FALSE)
        or (turn and among & _MASKS and said - _OFF)
    ):
        return "every answer is learned, all with weight 1: leave out the sample, or this key"
    if among & _REJECTED and said - _OFF:
        return "what an assistant should not say is not learned here"
    if words and words[0] in _TOOLS and text:
        return "calls of tools are not read"
    if among & _REASONING and text:
        return "thoughts are not read: write them into the answer, or leave them out"
    if words and words[0] == "system" and among & _SYSTEM and text:
        return "not read: name it `system`"
    return None


def _trains_on_others(key: str, value: Any) -> str | None:
    """Return why a key is refused that has a question learned."""
    words = {*_words(key)}
    learned = words & _TRAINED and not words & _ABOUT and str(value).strip().lower() in _ON - {"", "none", "null", "{}"}
    return "only answers are learned: leave out this key" if learned else None


def _words(key: str) -> list[str]:
    """Split a key: `imagePaths`, `image_paths` and `imagepaths` have the words image and paths."""
    parted = re.sub("(?<=[a-z])(?=[A-Z])", "_", key).lower()
    return re.findall(r"[^\W\d_]+|\d+", _MEDIA.sub(r"_\1_", parted))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _leaves(one)
    else:
        yield value
