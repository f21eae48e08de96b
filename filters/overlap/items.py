"""The rows of a benchmark in the forms in which they are published: which keys have images, question, answer."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import BadSampleError
from core.image_header import IMAGE_ENDINGS
from core.text import printable

_IDS = ("question_id", "qid", "q_uid", "pid", "uid", "id", "index", "video_id", "videoID", "file_name")
_QUESTIONS = ("question", "query", "prompt", "text", "sentence", "caption", "description", "q", "Q")
_OPTIONS = ("options", "choices", "candidates")
_ANSWERS = ("answer", "answers", "gt_answer", "reference", "references", "label", "a", "A")
_IMAGES = re.compile(
    r"(decoded_)?(image|images|img|image_path|img_path|image_file|image_bytes|file_name|picture|photo|screenshot)(_?\d+)?"
    r"|jpg|jpeg|png|webp"
)
_LETTER = re.compile(r"[A-J]|option[ _]?\d|choice[ _]?\d|[a-j]\d")
_TURNS = ("conversations", "messages", "conversation")
_DATA_URI = re.compile(r"data:image/[\w.+-]{1,20};base64,")
_BASE64_STARTS = (
    "/9j/",
    "iVBORw0KGgo",
    "R0lGOD",
    "UklGR",
    "Qk0",
    "SUkqA",
    "TU0AK",
)  # of JPEG, PNG, GIF, WebP, BMP, TIFF
_SHORTEST = 64  # characters of an image in Base64
_DEEPEST = 4  # levels of lists and mappings that are looked into
_MOST_TEXTS = 64  # texts of one value


@dataclass(frozen=True)
class Item:
    """A row of a benchmark.

    Attributes:
        id: Its id, or file and position.
        images: Encoded images, or paths relative to the file's folder.
        question: The question; empty if there is none.
        options: The options, in their order.
        answers: The answers; without a question they are captions, each of which is searched for.
    """

    id: str
    images: Sequence[bytes | str] = ()
    question: str = ""
    options: Sequence[str] = ()
    answers: Sequence[str] = ()

    @property
    def variants(self) -> list[str]:
        """The texts to search for: the question, with options, with the answer, with both."""
        options, answer = " ".join(self.options), self.answers[0] if self.answers else ""
        tails = ("", options, answer, f"{options} {answer}")
        texts = [f"{self.question} {tail}".strip() for tail in tails]
        alone = list(self.answers) if not self.question else []  # captions
        return list(dict.fromkeys(text for text in texts + alone if text))


def item_of(row: Mapping[str, Any], name: str) -> Item | None:
    """Return a row of a benchmark as an item; None if no key of it is known.

    Args:
        row: The row.
        name: Its name if it has no id: file and position.

    Raises:
        BadSampleError: An image is not valid Base64.
    """
    turns = [text for key in _TURNS for text in _turns(row.get(key))]
    question = next((row[key] for key in _QUESTIONS if isinstance(row.get(key), str) and row[key].strip()), "")
    images = [
        image
        for key, value in row.items()
        if _IMAGES.fullmatch(str(key)) or _is_image(value)
        for image in _images(value)
    ]
    captions = [] if question or turns else [text for key in _QUESTIONS for text in _texts(row.get(key))]
    item = Item(
        id=_id(row, name),
        images=tuple(images),
        question=question or "\n".join(turns),
        options=tuple(_options(row)),
        answers=(*captions, *(text for key in _ANSWERS for text in _texts(row.get(key)))),
    )
    return item if item.images or item.question or item.answers else None


def is_read(key: str) -> bool:
    """Return whether a key of a row may have an image, a text or an id."""
    known = {*_IDS, *_QUESTIONS, *_OPTIONS, *_ANSWERS, *_TURNS}
    return key in known or bool(_IMAGES.fullmatch(key) or _LETTER.fullmatch(key))


def _is_image(value: Any) -> bool:
    """Return whether a value is an image as the library `datasets` stores it, whatever its key is called."""
    if isinstance(value, list | tuple):
        return any(map(_is_image, value))
    return isinstance(value, Mapping) and value.keys() == {"bytes", "path"} and isinstance(value["bytes"], bytes)


def _id(row: Mapping[str, Any], name: str) -> str:
    value = next((row[key] for key in _IDS if isinstance(row.get(key), str | int) and str(row[key]).strip()), name)
    return printable(str(value)[:200])


def _options(row: Mapping[str, Any]) -> list[str]:
    listed = [text for key in _OPTIONS for text in _texts(row.get(key))]
    return listed or [text for key, value in row.items() if _LETTER.fullmatch(str(key)) for text in _texts(value)]


def _turns(value: Any) -> list[str]:
    """Return the texts of a conversation's turns."""
    turns = value if isinstance(value, list) else []
    contents = [turn.get("value", turn.get("content")) for turn in turns if isinstance(turn, Mapping)]
    return [text for content in contents for text in _texts(content)]


def _texts(value: Any, depth: int = _DEEPEST) -> list[str]:
    """Return the texts and numbers of a value: of a list, or of a mapping without its keys."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [str(value)]
    if not depth or not isinstance(value, list | tuple | Mapping):
        return []
    if isinstance(value, Mapping):
        value = [value["text"]] if isinstance(value.get("text"), str) else list(value.values())
    return [text for inner in value[:_MOST_TEXTS] for text in _texts(inner, depth - 1)]


def _images(value: Any, depth: int = _DEEPEST) -> Iterator[bytes | str]:
    """Yield encoded images and paths: bytes, Base64, `{"bytes": …, "path": …}`, a path, or a list of these."""
    if isinstance(value, bytes):
        if value:
            yield value
    elif isinstance(value, str):
        if value.strip():
            yield from _named_or_packed(value.strip())
    elif isinstance(value, Mapping):
        inner = value.get("bytes") or value.get("path") or value.get("url")
        yield from _images(inner, depth - 1) if depth else ()
    elif isinstance(value, list | tuple) and depth:
        for one in value:
            yield from _images(one, depth - 1)


def _named_or_packed(text: str) -> Iterator[bytes | str]:
    if match := _DATA_URI.match(text[:64]):
        yield _unpacked(text[match.end() :])
    elif len(text) > _SHORTEST and text.startswith(_BASE64_STARTS) and not text.lower().endswith(tuple(IMAGE_ENDINGS)):
        yield _unpacked(text)
    else:
        yield text


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSampleError(f"an image is no valid Base64: {error}") from error
