"""Make foreign text (file names, alt texts, captions, errors) safe for terminals, Markdown and UTF-8."""

from __future__ import annotations

import re
import unicodedata

from core.errors import UserError

# An underscore inside a word and a lone > have no effect, so they are not escaped: `aspect_ratio > 2` stays legible.
_SPECIAL = re.compile(r"[\\`*\[\]|~#@!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;"})


def printable(text: str, keep: str = "") -> str:
    """Return text without characters that control a terminal or are invisible.

    Spaces and line ends of any kind become plain spaces. Other characters that are not printable become U+FFFD:
    control characters (C0 including escape, C1), changes of text direction, zero-width characters, surrogates.

    Args:
        text: One or more lines.
        keep: Characters that stay unchanged, such as a newline.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else " " if _is_space(c) else "\ufffd" for c in text)


def _is_space(character: str) -> bool:
    return character in "\t\n\r\v\f\x85" or unicodedata.category(character) in ("Zs", "Zl", "Zp")


def not_unicode(text: str) -> str:
    """Return why a text is not valid Unicode, or an empty string if it is valid.

    UTF-8, table columns and tokenizers cannot hold lone surrogates. They come from escapes in JSON and YAML
    (`"\\ud83d"`), and from arguments that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"not valid Unicode: U+{ord(text[error.start]):04X} at character {error.start} is half of one"
    return ""


def refuse_not_unicode(value: object, what: str) -> None:
    """Refuse a text that is not valid Unicode in nested mappings and lists, keys included.

    Raises:
        UserError: There is such a text; the message says where.
    """
    if isinstance(value, str) and (reason := not_unicode(value)):
        raise UserError(f"{what}: {reason}: write it as UTF-8, without an escape")
    for key, inner in value.items() if isinstance(value, dict) else ():
        refuse_not_unicode(key, what)
        refuse_not_unicode(inner, f"{what}: {key}")
    for inner in value if isinstance(value, list | tuple) else ():
        refuse_not_unicode(inner, what)


def markdown(text: str) -> str:
    """Escape text for a line, a heading or a table cell of Markdown, so that it is shown literally.

    No character of it makes HTML, a link, an image, emphasis, code, a formula or another cell.
    """
    escaped = _SPECIAL.sub(r"\\\g<0>", " ".join(printable(text).split())).translate(_ENTITIES)
    return escaped.replace("://", r":\/\/").replace("www.", r"www\.").replace("WWW.", r"WWW\.")


def code_span(text: str) -> str:
    """Return text as inline code for a line or a table cell of Markdown."""
    shown = " ".join(printable(text).split()).replace("|", r"\|")
    fence = "`" * (_longest_run(shown) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def code_block(text: str, language: str) -> str:
    """Return lines as a Markdown code block. Its fence is longer than any run of backticks in the lines."""
    fence = "`" * max(3, _longest_run(text) + 1)
    lines = printable(text, keep="\n").rstrip()
    return f"{fence}{language}\n{lines}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
