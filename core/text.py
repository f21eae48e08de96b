"""Text that others wrote (file names, alt texts, captions, errors), made safe for what it is written to."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from core.errors import UserError

# An underscore inside a word emphasises nothing, and > alone opens nothing: `aspect_ratio > 2` stays legible.
_SPECIAL = re.compile(r"[\\`*\[\]|~#@!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;"})


def printable(text: str, keep: str = "") -> str:
    """Text for a terminal: nothing that moves its cursor, changes its colours, turns its direction or is not seen.

    Spaces and ends of lines of any kind become plain spaces, other characters that are not printed become U+FFFD:
    controls (C0 with escape, C1), changes of direction, zero-width ones, surrogates.

    Args:
        text: One line, or several.
        keep: Characters that stay, such as a newline.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else " " if _is_space(c) else "\ufffd" for c in text)


def _is_space(character: str) -> bool:
    return character in "\t\n\r\v\f\x85" or unicodedata.category(character) in ("Zs", "Zl", "Zp")


def not_unicode(text: str) -> str:
    """Why a text is not valid Unicode, which no UTF-8, no column and no tokenizer can hold; empty where it is.

    Lone surrogates come from escapes in JSON and YAML (`"\\ud83d"`), and from arguments that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"not valid Unicode: U+{ord(text[error.start]):04X} at character {error.start} is half of one"
    return ""


def refuse_not_unicode(value: Any, what: str) -> None:
    """Refuse a text that is not valid Unicode in nested mappings and lists, keys included.

    Raises:
        UserError: With its place.
    """
    if isinstance(value, str) and (reason := not_unicode(value)):
        raise UserError(f"{what}: {reason}: write it as UTF-8, without an escape")
    for key, inner in value.items() if isinstance(value, dict) else ():
        refuse_not_unicode(key, what)
        refuse_not_unicode(inner, f"{what}: {key}")
    for inner in value if isinstance(value, list | tuple) else ():
        refuse_not_unicode(inner, what)


def markdown(text: str) -> str:
    """Text for a line, a heading or a table's cell of Markdown, which shows it as it is.

    No character of it makes HTML, a link, an image, emphasis, code, a formula or another cell.
    """
    escaped = _SPECIAL.sub(r"\\\g<0>", " ".join(printable(text).split())).translate(_ENTITIES)
    return escaped.replace("://", r":\/\/").replace("www.", r"www\.").replace("WWW.", r"WWW\.")


def code_span(text: str) -> str:
    """Text as code in a line or a table's cell of Markdown."""
    shown = " ".join(printable(text).split()).replace("|", r"\|")
    fence = "`" * (_longest_run(shown) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def code_block(text: str, language: str) -> str:
    """Lines as a block of code in Markdown, which nothing in them closes."""
    fence = "`" * max(3, _longest_run(text) + 1)
    lines = printable(text, keep="\n").rstrip()
    return f"{fence}{language}\n{lines}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
