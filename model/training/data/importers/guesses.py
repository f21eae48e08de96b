"""Guess which key of an unknown form has the image and which the text. A tie is refused, never decided."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.errors import BadSampleError

_IMAGE = re.compile(r"[^\n]+\.(?:jpe?g|png|webp|bmp|gif)(?:\?[^?\s]*)?", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_CAPTION = re.compile(r"caption|description|answer|text", re.IGNORECASE)


def is_address(text: str) -> bool:
    """Return whether a text is an address of the web."""
    return _ADDRESS.fullmatch(text) is not None


def image_key(entry: Mapping[str, Any]) -> str:
    """Return the key of the image: bytes, else a path, else an address."""
    values = {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in entry.items()}
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    held = [
        key for key, value in values.items() if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes)
    ]
    paths = [key for key, text in texts.items() if _IMAGE.fullmatch(text) and not _ADDRESS.fullmatch(text)]
    addresses = [key for key, text in texts.items() if _ADDRESS.fullmatch(text)]
    return _one(held or paths or addresses, entry, "image")


def text_key_of(entry: Mapping[str, Any], image_key: str) -> str:
    """Return the key of the text: the one that is called so, else the only one with words."""
    texts = {key: value for key, value in entry.items() if isinstance(value, str) and key != image_key}
    words = [key for key, text in texts.items() if " " in text.strip() and not _ADDRESS.match(text)]
    return _one([key for key in words if _CAPTION.search(key)] or words, entry, "text")


def _one(keys: list[str], entry: Mapping[str, Any], what: str) -> str:
    if len(keys) != 1:
        among = " and ".join(keys) or f"none of {', '.join(map(str, entry))}"
        raise BadSampleError(f"it is not clear which key has the {what}: {among}; give --set {what}=KEY")
    return keys[0]
