"""What questions about a clip are about: built-in sets of aspects, and those of a user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from core.errors import UserError, suggest

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_MOST_CHARACTERS = 2000


def read_aspects(written: Any) -> Any:
    """Return aspects as they are stored in a recipe: one mapping `{name: description}` per aspect.

    Args:
        written: The name of a built-in set, a path, a mapping {name: description}, or a list of those.

    Raises:
        UserError: A file cannot be read, a name is invalid or occurs twice, or there is no aspect.
    """
    aspects: dict[str, str] = {}
    for source in written if isinstance(written, list | tuple) else [written]:
        read = _read(source) if isinstance(source, str) else source
        if not isinstance(read, Mapping):
            raise UserError("give names of built-in sets, paths, or mappings {name: description}")
        for name, description in read.items():
            _check(name, description)
            if name in aspects:
                raise UserError(f"the aspect {name} is there twice; give one of them another name")
            aspects[name] = " ".join(description.split())
    if not aspects:
        raise UserError("give at least one aspect")
    return tuple({name: description} for name, description in aspects.items())


Aspects = Annotated[
    tuple[dict[str, str], ...],
    BeforeValidator(read_aspects),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "additionalProperties": {"type": "string"}},
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "anyOf": [
                            {"type": "string"},
                            {"type": "object", "additionalProperties": {"type": "string"}},
                        ]
                    },
                },
            ]
        }
    ),
]
"""The type of the setting `aspects`: one mapping {name: description} per aspect, in order."""


def built_in_sets() -> list[str]:
    """Return the names of the built-in sets of aspects."""
    folder = files("captioners").joinpath("prompts", "aspects")
    return sorted(file.name.removesuffix(".txt") for file in folder.iterdir() if file.name.endswith(".txt"))


def _read(source: str) -> dict[str, str]:
    """Read a file of aspects: paragraphs of `name: description`; lines that start with `#` are comments."""
    ours = built_in_sets()
    path = files("captioners").joinpath("prompts", "aspects", f"{source}.txt") if source in ours else Path(source)
    try:
        text = (path.expanduser() if isinstance(path, Path) else path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source!r} is no readable file of aspects{suggest(source, ours)}") from error
    kept = "\n".join(line.rstrip() for line in text.splitlines() if not line.startswith("#"))
    aspects: dict[str, str] = {}
    for paragraph in filter(None, map(str.strip, kept.split("\n\n"))):
        name, _, description = paragraph.partition(":")
        if name in aspects:
            raise UserError(f"{source}: the aspect {name} is there twice")
        aspects[name] = description.strip()
    return aspects


def _check(name: object, description: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = str(name)[:40]
        raise UserError(
            f"{shown!r} is no name of an aspect; give lower-case letters, digits, _ and -, such as time_order"
        )
    if not isinstance(description, str) or not 0 < len(description.strip()) <= _MOST_CHARACTERS:
        raise UserError(f"the aspect {name} needs a description of 1 to {_MOST_CHARACTERS:,} characters: `{name}: …`")
